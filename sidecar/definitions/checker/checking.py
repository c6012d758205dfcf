"""All that the checker knows of one definition, as one report."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sidecar.definitions.catalogues import Catalogue
from sidecar.definitions.checker import places, rules
from sidecar.definitions.checker.abstraction import abstract
from sidecar.definitions.checker.codes import Severity
from sidecar.definitions.checker.exploring import Explored, Limits, Method, explore
from sidecar.definitions.checker.proof import Proof
from sidecar.definitions.checker.report import Finding, Report, Verdict, finding
from sidecar.definitions.checker.times import times
from sidecar.definitions.compiling import compile_stored, parse_definition
from sidecar.definitions.documents import format_of, read_document
from sidecar.definitions.findings import Path, Position
from sidecar.definitions.pins import CatalogueRef, with_catalogues
from sidecar.errors import DefinitionError
from sidecar.saga.definition import Definition


@dataclass(frozen=True, slots=True)
class Checked:
    """A report, and where in its document everything stands."""

    report: Report
    positions: Mapping[Path, Position] = field(default_factory=dict)


def check(
    definition: Definition,
    *,
    children: Mapping[str, Definition] | None = None,
    limits: Limits | None = None,
) -> Report:
    """Check a definition; `children` are the definitions that it runs, by name.

    It takes some milliseconds for most, and up to what `limits` allow for wide graphs: not to be
    called on an event loop.
    """
    known = children or {}
    final = frozenset(
        step.name
        for step in definition.steps
        if step.child
        and (child := known.get(step.child.definition)) is not None
        and not rules.can_be_undone(child, known)
    )
    small = abstract(definition, final)
    explored = explore(small, limits)
    spans = times(definition, known)
    found = [
        *Proof(small, explored).findings(),
        *rules.findings(definition, spans, known),
        *places.findings(definition, known),
    ]
    order = list(Severity)
    found.sort(key=lambda one: order.index(one.severity))  # stable: by code and step within
    return Report(
        definition=definition.name,
        verdict=_verdict(explored),
        method=explored.method.value,
        states=explored.states,
        transitions=explored.transitions,
        findings=tuple(found),
        assumptions=_assumptions(definition),
        times=spans,
    )


def check_text(
    text: bytes | str,
    content_type: str = "application/yaml",
    *,
    children: Mapping[str, Definition] | None = None,
    catalogues: Mapping[CatalogueRef, Catalogue] | None = None,
    limits: Limits | None = None,
) -> Checked:
    """Check a document in YAML or JSON. What is no definition has only findings that say why.

    `catalogues` are what services offer; of an action of another service nothing is known.
    """
    try:
        parsed = with_catalogues(parse_definition(text, content_type), catalogues or {})
        positions = read_document(text, format_of(content_type)).positions
        definition = compile_stored(parsed.document, "default", parsed.name, 1)
    except DefinitionError as error:
        return Checked(_unreadable(error))
    return Checked(check(definition, children=children, limits=limits), positions)


def _verdict(explored: Explored) -> Verdict:
    if explored.ways:
        return Verdict.REFUTED
    return Verdict.BOUNDED if explored.method is Method.BOUNDED else Verdict.PROVED


def _assumptions(definition: Definition) -> tuple[str, ...]:
    found = ["a compensation that is tried for long enough succeeds"]
    if definition.pivots:
        found.append(
            "a pivot whose outcome was unknown, and what comes after a pivot, is not refused and "
            "is answered in the end"
        )
    if any(step.child for step in definition.steps):
        found.append("a child that completed can be turned back, unless its definition was given")
    return tuple(found)


_PART = re.compile(r"\[(\d+)\]|([^.\[\]]+)")
_AT = re.compile(r" \(line (\d+)(?:, column (\d+))?\)$")


def _unreadable(error: DefinitionError) -> Report:
    found: list[Finding] = []
    for path, text in error.problems:
        parts: Path = tuple(int(one) if one else key for one, key in _PART.findall(path))
        found.append(finding("GC100", parts, text))
    return Report("", Verdict.UNREADABLE, "none", 0, 0, tuple(found))


def place_of(one: Finding, positions: Mapping[Path, Position]) -> Position | None:
    """Where a finding stands in its document; None where that is not known."""
    if (said := _AT.search(one.text)) is not None and one.code == "GC100":
        return Position(int(said[1]), int(said[2] or 1))
    for length in range(len(one.path), -1, -1):
        if (found := positions.get(one.path[:length])) is not None:
            return found
    return None
