"""What a definition keeps of the catalogues that it names: fixed when it is registered.

The machine needs to know of an action whether it can be undone, how long its calls may take and
how they are tried: that is written into the document, so that workflows keep it. Where the calls
go is not: the sidecar that calls looks that up in its own catalogue, so that a deploy may move it.
A document registered again after the catalogue has changed is another version, unless it brings
what was pinned, which is then held against the version of the catalogue that it names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from sidecar.definitions.calls import NO_EFFECT
from sidecar.definitions.catalogues import ActionPlan, Catalogue, plain
from sidecar.definitions.compiling import ParsedDefinition
from sidecar.definitions.documents import canonical, digest
from sidecar.definitions.findings import shown
from sidecar.errors import DefinitionError

_LISTED = 30

CatalogueRef = tuple[str, int | None]
"""The catalogue of a service: one version, or the one that is in force."""


def catalogues_of(document: Mapping[str, Any]) -> set[CatalogueRef]:
    """The catalogues that a document that can be read asks for."""
    return {_ref(step) for _, step in _steps_with_action(document)}


def with_catalogues(
    parsed: ParsedDefinition, catalogues: Mapping[CatalogueRef, Catalogue]
) -> ParsedDefinition:
    """Return a document with what the given catalogues say of its actions.

    Steps of other services stay as they are. Raises `DefinitionError`.
    """
    document = json.loads(parsed.document)
    if problems := pin_actions(document, catalogues):
        raise DefinitionError(problems)
    text = canonical(document)
    return ParsedDefinition(parsed.name, text, digest(text))


def pin_actions(
    document: dict[str, Any],
    catalogues: Mapping[CatalogueRef, Catalogue | None],
    *,
    allow_missing: bool = False,
) -> list[tuple[str, str]]:
    """Write into `document` what the catalogues say of its actions; return what is wrong.

    A catalogue that is None is one that nobody has published; of those that are left out nothing
    is known, and their steps stay as they are. `allow_missing` leaves steps whose action is not
    offered as they are, too.
    """
    problems: list[tuple[str, str]] = []
    for index, step in _steps_with_action(document):
        ref = _ref(step)
        if ref not in catalogues:
            continue
        where, catalogue = f"steps[{index}]", catalogues[ref]
        plan = None if catalogue is None else catalogue.actions.get(step["action"])
        if "pinned" in step:
            if catalogue is None or plan is None or step["pinned"] != pin_of(plan, ref[1] or 0):
                problems.append((f"{where}.pinned", _not_pinned(step, ref)))
        elif catalogue is None or plan is None:
            if not allow_missing:
                problems.append((f"{where}.action", _missing(step, catalogue)))
        else:
            step["pinned"] = pin_of(plan, catalogue.version)
        unnamed = plan is not None and plan.compensate is None
        if unnamed and step.get("compensate") == "from_catalogue":
            problems.append((f"{where}.compensate", _unnamed(step)))
    return problems


def pin_of(plan: ActionPlan, version: int) -> dict[str, Any]:
    """What is kept of an action of a catalogue."""
    given, execute = plain(plan), plain(plan.execute)
    kept: dict[str, Any] = {
        key: given.get(key, execute.get(key))
        for key in ("timeout", "retry", "callback_timeout")
        if key in given or key in execute
    }
    if plan.status is not None:
        kept["status"] = {key: one for key, one in plain(plan.status).items() if key == "budget"}
    if plan.compensate is NO_EFFECT:
        kept["compensate"] = "none"
    elif plan.compensate is not None:
        undo = plain(plan.compensate)
        kept["compensate"] = {key: undo[key] for key in ("timeout", "retry") if key in undo}
    return {"catalogue": version, **kept}


def _steps_with_action(document: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, step in enumerate(document["steps"]):
        if "action" in step:
            yield index, step


def _ref(step: Mapping[str, Any]) -> CatalogueRef:
    pinned = step.get("pinned")
    return step["service"], None if pinned is None else pinned["catalogue"]


def _missing(step: Mapping[str, Any], catalogue: Catalogue | None) -> str:
    service, action = step["service"], shown(step["action"])
    if catalogue is None:
        return (
            f"{action} is unknown: no sidecar of {service} has published a catalogue; start one "
            "whose configuration has `actions`, or allow what is missing"
        )
    names = sorted(catalogue.actions)
    offered = ", ".join(names[:_LISTED]) or "nothing"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    which = f" (version {catalogue.version})" if catalogue.version else ""
    return f"{service} offers no action {action}; its catalogue{which} has: {offered}{more}"


def _not_pinned(step: Mapping[str, Any], ref: CatalogueRef) -> str:
    return (
        f"is not what version {ref[1]} of the catalogue of {ref[0]} says of {step['action']}; "
        "leave it out, and what the catalogue says now is pinned"
    )


def _unnamed(step: Mapping[str, Any]) -> str:
    return (
        f"the catalogue of {step['service']} names nothing that undoes {step['action']}; "
        "write a path, or `none` if there is nothing to undo, or leave `compensate` out if it "
        "cannot be undone"
    )
