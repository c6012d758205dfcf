"""What belongs to which kind of step, and which keys exclude each other.

A step is a call, a wait or a child. These rules look at the document as it was written, so that
a slip in one key does not hide what is wrong with another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sidecar.definitions.findings import Findings, Path
from sidecar.definitions.model import Step

_PLACE = frozenset(("name", "after", "join", "when", "optional"))
"""What every step may say."""
FAN_OUT_KEYS = ("max_parallel", "tolerated_failures")
WAIT_KEYS = _PLACE | {"wait"}
CHILD_KEYS = _PLACE | {"workflow", "version", "input", "for_each", *FAN_OUT_KEYS, "output_schema"}
WAITS_FOR = ("duration", "until", "signal")

_NO_PIVOTS = {
    "optional": "when an optional step fails the workflow goes on",
    "for_each": "a fan-out is many calls",
}


def check_kinds(raw: Mapping[str, Any], findings: Findings) -> None:
    """Check a whole document."""
    compensation = raw.get("compensation")
    central = isinstance(compensation, dict) and compensation.get("mode") == "central"
    steps = raw.get("steps")
    for index, step in enumerate(steps if isinstance(steps, list) else ()):
        if isinstance(step, dict):
            path: Path = ("steps", index)
            _check_kind(step, path, findings)
            _check_fan_out(step, path, findings)
            if central and _is_call(step) and "compensate" not in step:
                own = ", `from_catalogue`" if "action" in step else ""
                findings.add(
                    (*path, "compensate"),
                    f"is missing; with `mode: central` each step says what undoes it: a path{own}, "
                    "or `none` if there is nothing to undo",
                )


def _is_call(step: Mapping[str, Any]) -> bool:
    return "wait" not in step and "workflow" not in step


def _check_kind(step: Mapping[str, Any], path: Path, findings: Findings) -> None:
    if "wait" in step:
        _only(WAIT_KEYS, "a step that waits", step, path, findings)
        _check_wait(step["wait"], (*path, "wait"), findings)
    elif "workflow" in step:
        _only(CHILD_KEYS, "a step that runs a child", step, path, findings)
    else:
        for key in ("service", "execute"):
            if key not in step and not (key == "execute" and "action" in step):
                findings.add((*path, key), "is missing; it must be given")
        _check_action(step, path, findings)
        if "version" in step:
            findings.add((*path, "version"), "belongs to `workflow`; leave it out")
        for key, why in _NO_PIVOTS.items():
            if step.get("pivot") is True and step.get(key) not in (None, False):
                findings.add(
                    (*path, "pivot"),
                    f"cannot be together with `{key}`: {why}; take one of them out",
                )


def _check_action(step: Mapping[str, Any], path: Path, findings: Findings) -> None:
    if "action" in step:
        if "execute" in step:
            findings.add((*path, "action"), "cannot be together with `execute`; keep one")
        return
    if "pinned" in step:
        findings.add((*path, "pinned"), "belongs to `action`; leave it out")
    if step.get("compensate") == "from_catalogue":
        findings.add(
            (*path, "compensate"),
            "belongs to `action`, which names what the catalogue offers; write the path",
        )


def _only(
    keys: frozenset[str], what: str, step: Mapping[str, Any], path: Path, findings: Findings
) -> None:
    for key in step:
        if key in Step.model_fields and key not in keys:
            instead = "leave it out"
            if key == "concurrency" and "workflow" in step:
                instead = "write it into the definition that the child runs"
            findings.add((*path, key), f"does not belong to {what}; {instead}")


def _check_wait(wait: object, path: Path, findings: Findings) -> None:
    if not isinstance(wait, dict):
        return
    given = [key for key in WAITS_FOR if key in wait]
    if len(given) != 1:
        findings.add(
            path,
            "must hold one of `duration`, `until` and `signal`"
            + (f", not {' and '.join(f'`{key}`' for key in given)}" if given else ""),
        )
    if "timeout" in wait and "signal" not in wait:
        findings.add((*path, "timeout"), "belongs to `signal`; leave it out")


def _check_fan_out(step: Mapping[str, Any], path: Path, findings: Findings) -> None:
    if "for_each" in step or "wait" in step:
        return
    for key in FAN_OUT_KEYS:
        if key in step:
            findings.add((*path, key), "belongs to `for_each`; give that too, or leave this out")
