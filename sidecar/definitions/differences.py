"""What differs between two documents, in what they mean: by steps and keys.

Steps are told apart by their names. Their order says nothing where `after` is written; where it is
left out, a step comes after the one above it, and that is what is compared. Two ways of writing the
same duration are the same. What a registration pins of a catalogue is compared only where both have
been registered: a file says nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sidecar.definitions.durations import parse_duration


class Change(StrEnum):
    """How something differs."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference: of a step or, with `step` None, of the definition as a whole.

    `path` is empty where a whole step came or went. What was not there is None.
    """

    step: str | None
    path: str
    change: Change
    before: Any = None
    after: Any = None


_DATA = frozenset({"input", "output", "schema", "for_each", "when"})
"""Below these keys stands what is sent and read: text there is text, never a duration."""


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Return what differs between two plain documents that can be read."""
    found = list(_compared(None, "", _without_steps(before), _without_steps(after)))
    old, new = _steps(before), _steps(after)
    for name in [*old, *(name for name in new if name not in old)]:
        if name not in new:
            found.append(Difference(name, "", Change.REMOVED, before=old[name]))
        elif name not in old:
            found.append(Difference(name, "", Change.ADDED, after=new[name]))
        else:
            found += _compared(name, "", *_comparable(old[name], new[name]))
    return found


def _comparable(before: dict[str, Any], after: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A step of both, without what only one of them has pinned."""
    pinned = "pinned" in before and "pinned" in after
    same_call = "action" in before and "action" in after
    for step in (before, after):
        yield {k: v for k, v in step.items() if k != "pinned" or pinned or not same_call}


def _without_steps(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != "steps"}


def _steps(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The steps by name, each saying what it comes after."""
    found: dict[str, dict[str, Any]] = {}
    above: list[str] = []
    for step in document["steps"]:
        after = sorted(step["after"]) if step.get("after") is not None else above
        found[step["name"]] = {**step, "after": after}
        above = [step["name"]]
    return found


def _compared(step: str | None, path: str, before: Any, after: Any) -> Iterator[Difference]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}):
            below = f"{path}.{key}" if path else key
            if key not in after:
                yield Difference(step, below, Change.REMOVED, before=before[key])
            elif key not in before:
                yield Difference(step, below, Change.ADDED, after=after[key])
            else:
                yield from _compared(step, below, before[key], after[key])
    elif not _same(path, before, after):
        yield Difference(step, path, Change.CHANGED, before, after)


def _same(path: str, before: Any, after: Any) -> bool:
    if type(before) is not type(after):  # true is no 1
        return False
    if before == after:
        return True
    text = isinstance(before, str) and _DATA.isdisjoint(path.split("."))
    return text and _spans(before) is not None and _spans(before) == _spans(after)


def _spans(text: str) -> object:
    try:
        return parse_duration(text)
    except ValueError:
        return None
