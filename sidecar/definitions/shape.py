"""Holding a document against the models, and saying in our words what they complain of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from sidecar.definitions.calls import (
    ENDLESS,
    FROM_CATALOGUE,
    NO_EFFECT,
    Call,
    Part,
    Retry,
)
from sidecar.definitions.documents import walk
from sidecar.definitions.findings import Findings, Path, sentence
from sidecar.definitions.model import (
    MODELS,
    PINNED,
    DefinitionModel,
    Step,
    StepTurnsPlan,
)
from sidecar.saga.policy import COMPENSATION_DEFAULT, FORWARD_DEFAULT, RetryPolicy

_DATA = frozenset(("input", "for_each", "output_schema"))
"""The keys of a step under which anything may stand."""


def check_shape(raw: Any, findings: Findings) -> DefinitionModel | None:
    """Read plain data as a definition; None if it is none, and then there are findings."""
    # `timeout:` with nothing after it is a slip, not a wish for the default.
    empty = {path for path, value in walk(raw) if value is None and _means_nothing(path)}
    for path in sorted(empty, key=str):
        findings.add(path, "is empty; give it a value or leave it out")
    try:
        model = DefinitionModel.model_validate(raw)
    except ValidationError as error:
        for one in error.errors(include_url=False, include_input=False):
            if one["loc"] not in empty:
                tell(one, raw, findings, _model_at, owner=Step)
        return None
    for index, step in enumerate(model.steps):
        _check_step(step, ("steps", index), findings)
    return model


def _means_nothing(path: Path) -> bool:
    """Whether null may not stand at `path`: it may in data, and where it means "no end"."""
    match path:
        case ("steps", int(), *keys):
            inside = not _DATA.isdisjoint(keys[:-1])
        case ("output", _, *_) | ("input", "schema", _, *_):
            inside = True
        case _:
            inside = False
    return not inside and not means_no_end(path)


def means_no_end(path: Path) -> bool:
    """Whether null at `path` means "without end"."""
    return len(path) > 1 and path[-2] == "retry" and path[-1] in ENDLESS


def _existing(path: Path, raw: Any) -> Path:
    """The path without the key that a bare `/path` has only in the model."""
    for length, part in enumerate(path):
        if isinstance(raw, str):
            return path[:length]
        if isinstance(raw, dict):
            raw = raw.get(part)
        elif isinstance(raw, list) and isinstance(part, int):
            raw = raw[part]
    return path


def tell(
    error: ErrorDetails,
    raw: Any,
    findings: Findings,
    model_at: Callable[[Path], type[Part]],
    *,
    owner: type[Part],
    at: Path = (),
) -> None:
    """Keep one complaint of pydantic about `raw`, which stands at the path `at`.

    `owner` is what calls stand in; `model_at` says which model a mapping should be.
    """
    path = _existing(tuple(error["loc"]), raw)
    where = (*at, *path)
    if error["type"] != "extra_forbidden":
        without = error["type"] == "missing" and _without_path(raw, path)
        findings.add(where, without or sentence(error))
        return
    model, key = model_at(path[:-1]), str(path[-1])
    if model is Call and key in owner.model_fields:
        findings.add(where, f"`{key}` belongs to the {owner.kind}; write it beside `execute`")
    else:
        findings.add_unknown(where, "there is no key", key, model.written())


def _without_path(raw: Any, path: Path) -> str | None:
    """What to say of a call beside an `action` that would only adjust the catalogue's."""
    match path:
        case ("steps", int(index), "compensate" | "status" as key, "path"):
            if "action" in raw["steps"][index]:
                return (
                    f"is missing: a `{key}` of its own takes nothing from the catalogue; write the "
                    f"path too, or leave `{key}` out, and what the catalogue says counts"
                )
    return None


def _model_at(path: Path) -> type[Part]:
    """The model of the mapping that stands at `path`."""
    if not path:
        return DefinitionModel
    if isinstance(path[-1], int):
        return Step
    if path[0] == "steps" and path[-1] == "concurrency":
        return StepTurnsPlan
    return (PINNED if "pinned" in path else MODELS)[path[-1]]


def _check_step(step: Step, path: Path, findings: Findings) -> None:
    """What the models cannot say: keys that exclude each other, policies in disorder."""
    offered = step.pinned.retry if step.pinned else None
    policies: list[tuple[Path, Retry | None, RetryPolicy]] = [
        (
            (*path, "retry"),
            step.retry,
            offered.over(FORWARD_DEFAULT) if offered else FORWARD_DEFAULT,
        ),
    ]
    if step.execute is not None:
        for key in ("input", "timeout", "retry", "on_status"):
            if key in step.model_fields_set and key in step.execute.model_fields_set:
                where = (*path, "execute", key)
                findings.add(where, f"`{key}` is given for the step too; keep one")
        policies.append(((*path, "execute", "retry"), step.execute.retry, FORWARD_DEFAULT))
    if step.compensate not in (None, NO_EFFECT, FROM_CATALOGUE):
        where = (*path, "compensate", "retry")
        policies.append((where, step.compensate.retry, COMPENSATION_DEFAULT))
    for where, retry, default in policies:
        if retry is not None and (text := retry.disorder(default)) is not None:
            findings.add(where, text)
