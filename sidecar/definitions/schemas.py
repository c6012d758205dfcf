"""JSON Schemas (2020-12): checked at registration, compiled once, held against bodies.

The library (`jsonschema-rs`) stays behind the Protocol `BodyCheck`. Nothing is ever fetched:
references stay inside the schema. Patterns are matched in linear time, so they have no
look-around and no back-references. `format` is checked for the formats that the standard names.
How many checks a body takes is bounded before they are made: see `schema_graph`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonschema_rs import Draft202012Validator, RegexOptions, ValidationError

from sidecar.definitions.bodies import read_json
from sidecar.definitions.documents import canonical
from sidecar.definitions.findings import Findings, Path, shown, written
from sidecar.definitions.schema_graph import SchemaGraph
from sidecar.definitions.work import Work
from sidecar.saga.definition import BodyCheck, JsonText

MOST_PROBLEMS = 20
"""How many problems of one body are told."""
MOST_CHECKS = 4_000_000
"""How many checks one body may take; some 100 ms."""
_MOST_TOLD = 10_000
"""Telling all problems takes longer than seeing that there are some: so it is for less."""

_PATTERNS = RegexOptions(size_limit=64 * 1024)
_VALUE = "it"
"""What stands for values of bodies in the library's sentences: bodies may hold secrets."""
_WRONG = "does not fit the schema"
_REGULAR = (
    "is not a regular expression that can be matched in linear time: leave out look-around, "
    "back-references and great repetitions"
)
_TYPES = "must be array, boolean, integer, null, number, object, string, or a list of these"


class _Schema:
    """A compiled schema."""

    def __init__(self, validator: Draft202012Validator, graph: SchemaGraph) -> None:
        self._validator, self._graph = validator, graph

    def problems(self, body: JsonText) -> list[tuple[str, str]]:
        """What is wrong with `body`: paths inside it, each with a sentence; [] if nothing is."""
        try:
            value = read_json(body, Work(float("inf")))
        except ValueError:
            return [("", "is not JSON")]
        if self._graph.checks(value, body, MOST_CHECKS) > MOST_CHECKS:
            return [("", "is too large for what its schema asks of it; send less")]
        if self._validator.is_valid(value):
            return []
        if self._graph.checks(value, body, _MOST_TOLD) > _MOST_TOLD:
            return [self._first(value)]
        found = [_problem(one) for one in self._validator.iter_errors(value)]
        told = list(dict.fromkeys(found))
        more = len(told) - MOST_PROBLEMS
        return told[:MOST_PROBLEMS] + ([("", f"and {more} more problems")] if more > 0 else [])

    def _first(self, value: Any) -> tuple[str, str]:
        """One problem only. An error of a choice tells those of all its branches, so none."""
        if not self._graph.branches:
            try:
                self._validator.validate(value)
            except ValidationError as error:
                return _problem(error)
        return ("", f"{_WRONG}, and is too large to say where")


def _problem(error: ValidationError) -> tuple[str, str]:
    words = shown(error.message, 200).removeprefix(f"{_VALUE} ")
    return written(tuple(error.instance_path)), words


def compile_schema(schema: dict[str, Any], path: Path, findings: Findings) -> BodyCheck | None:
    """Compile the schema that stands at `path`; None, with findings, if it is not one."""
    try:
        validator = Draft202012Validator(
            schema, offline=True, validate_formats=True, pattern_options=_PATTERNS, mask=_VALUE
        )
    except ValidationError as error:
        # Of references it says no place, so we look for ourselves.
        faults = [one for one in SchemaGraph(schema).faults if one[0][-1:] == ("$ref",)]
        _add(faults or [(tuple(error.instance_path), _said(error))], path, findings)
        return None
    graph = SchemaGraph(schema)
    _add(graph.faults, path, findings)
    return None if graph.faults else _Schema(validator, graph)


def _add(faults: list[tuple[Path, str]], path: Path, findings: Findings) -> None:
    for inside, words in faults:
        findings.add((*path, *inside), words)


def _said(error: ValidationError) -> str:
    where = tuple(error.instance_path)
    if where[-1:] == ("type",):
        return _TYPES
    if error.kind.name == "format" and {"pattern", "patternProperties"} & set(where[-2:]):
        return _REGULAR
    return shown(error.message, 200).removeprefix(f"{_VALUE} ")


def compile_schemas(
    raw: Mapping[str, Any], findings: Findings
) -> dict[Path, tuple[JsonText, BodyCheck]]:
    """Compile all schemas of a document, by the paths where they stand."""
    given = raw.get("input")
    places: list[tuple[Path, object]] = [
        (("input", "schema"), given.get("schema") if isinstance(given, dict) else None)
    ]
    steps = raw.get("steps")
    for index, step in enumerate(steps if isinstance(steps, list) else ()):
        if isinstance(step, dict):
            places.append((("steps", index, "output_schema"), step.get("output_schema")))
    compiled: dict[Path, tuple[JsonText, BodyCheck]] = {}
    for path, schema in places:
        if isinstance(schema, dict):
            check = compile_schema(schema, path, findings)
            if check is not None:
                compiled[path] = (canonical(schema), check)
    return compiled
