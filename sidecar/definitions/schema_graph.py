"""What a JSON Schema asks of a body: its subschemas, and how many of them meet one value.

The library that checks bodies has no budget: subschemas that refer to others twice, again and
again, are as many checks as one likes, and a pattern takes time in proportion to its size times
the text. So the subschemas are laid out as a graph once, and checks are counted before they are
made (`SchemaGraph.checks`).

References stay inside the schema. They may lead back to where they come from (a tree of
categories), as long as they go into the body on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from sidecar.definitions.findings import Path
from sidecar.definitions.patterns import program_size

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MOST_AT_ONCE = 2_000
"""How many subschemas may be held against one and the same value."""
MOST_ALTOGETHER = 100_000
"""How many, when each subschema is asked in turn."""
MOST_VISITS = 100_000
"""How often it is looked what one subschema asks of one value: each takes some 1 us."""
_LONGEST = 200
"""How many subschemas may follow each other without going into the body."""

_HERE = ("not", "if", "then", "else")
_HERE_LISTS = ("allOf", "anyOf", "oneOf")
_MAPS = ("properties", "patternProperties", "dependentSchemas")
_ONES = (
    *("additionalProperties", "unevaluatedProperties", "propertyNames"),
    *("items", "contains", "unevaluatedItems"),
)
_STRUCTURE = frozenset((*_HERE, *_HERE_LISTS, *_MAPS, *_ONES, "prefixItems", "$defs", "$ref"))
_BANNED = {
    "$dynamicRef": "is not read here; write `$ref`",
    "$dynamicAnchor": "is not read here; write a `$ref` to its place",
    "$recursiveRef": "is not read here; write `$ref`",
}

_MOST_PROGRAM = 2_700
"""No larger program is made of a pattern within the limit of memory that it is given."""
_STEPS = 6
"""How many steps of a pattern take as long as one check of anything else."""
_ENDLESS = float("inf")
_CHARACTERS = 32
"""So much of what stands in a schema, like the values of `enum`, counts as one check."""


@dataclass(slots=True)
class _Node:
    """One subschema: what it costs, and which others are held against what."""

    weight: float = 1
    program: int = 0
    here: list[int] = field(default_factory=list)
    named: dict[str, int] = field(default_factory=dict)
    any_member: list[int] = field(default_factory=list)
    other_members: list[int] = field(default_factory=list)
    names: list[int] = field(default_factory=list)
    prefix: list[int] = field(default_factory=list)
    rest: list[int] = field(default_factory=list)
    any_element: list[int] = field(default_factory=list)


class SchemaGraph:
    """The subschemas of one schema; `faults` says what is wrong with it, by paths inside it."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.faults: list[tuple[Path, str]] = []
        self.branches = False
        self._root = schema
        self._ids: dict[Path, int] = {}
        self._nodes: list[_Node] = []
        self._paths: list[Path] = []
        self._closures: dict[int, dict[int, int]] = {}
        self._build()
        self._closed = self._looks = 0
        self._bounds = self._bound()

    # -- laying it out ------------------------------------------------------------------------

    def _build(self) -> None:
        self._id(())
        # The list grows while it is walked: every subschema is laid out once.
        for number, path in enumerate(self._paths):
            schema = self._at(path)
            if isinstance(schema, dict):
                self._lay_out(self._nodes[number], schema, path)

    def _at(self, path: Path) -> Any:
        value: Any = self._root
        for part in path:
            value = value[part]
        return value

    def _id(self, path: Path) -> int:
        if path not in self._ids:
            self._ids[path] = len(self._nodes)
            self._nodes.append(_Node())
            self._paths.append(path)
        return self._ids[path]

    def _lay_out(self, node: _Node, schema: dict[str, Any], path: Path) -> None:
        self._check_words(schema, path)
        own = [value for key, value in schema.items() if key not in _STRUCTURE]
        node.weight = 1 + len(schema) + sum(len(str(value)) for value in own) / _CHARACTERS
        if isinstance(pattern := schema.get("pattern"), str):
            node.program = min(program_size(pattern), _MOST_PROGRAM)
        node.here = list(self._here(schema, path))
        if "unevaluatedProperties" in schema or "unevaluatedItems" in schema:
            node.here *= 2  # to know what they left over they are asked again
        for key, found in (
            *(("unevaluatedProperties", node.any_member), ("propertyNames", node.names)),
            *(("additionalProperties", node.other_members), ("items", node.rest)),
            *(("contains", node.any_element), ("unevaluatedItems", node.any_element)),
        ):
            if key in schema:
                found.append(self._id((*path, key)))
        for name in _keys(schema.get("properties")):
            node.named[name] = self._id((*path, "properties", name))
        for pattern in _keys(schema.get("patternProperties")):
            node.any_member.append(self._id((*path, "patternProperties", pattern)))
            node.weight += min(program_size(pattern), _MOST_PROGRAM) / _STEPS
        for index in range(_length(schema.get("prefixItems"))):
            node.prefix.append(self._id((*path, "prefixItems", index)))
        for name in _keys(schema.get("$defs")):
            self._id((*path, "$defs", name))

    def _here(self, schema: dict[str, Any], path: Path) -> Iterator[int]:
        """Those that are held against the very same value."""
        for key in _HERE:
            if key in schema:
                yield self._id((*path, key))
        for key in _HERE_LISTS:
            for index in range(_length(schema.get(key))):
                self.branches = self.branches or key != "allOf"
                yield self._id((*path, key, index))
        for name in _keys(schema.get("dependentSchemas")):
            yield self._id((*path, "dependentSchemas", name))
        if isinstance(reference := schema.get("$ref"), str):
            target = self._target(reference, (*path, "$ref"))
            if target is not None:
                yield self._id(target)

    def _check_words(self, schema: dict[str, Any], path: Path) -> None:
        for key, words in _BANNED.items():
            if key in schema:
                self.faults.append(((*path, key), words))
        if path and isinstance(schema.get("$id"), str):
            self.faults.append(((*path, "$id"), "may stand at the top only; leave it out"))
        dialect = schema.get("$schema", DIALECT)
        if isinstance(dialect, str) and dialect.rstrip("#") != DIALECT:
            self.faults.append(((*path, "$schema"), f"must be {DIALECT}; or leave it out"))

    def _target(self, reference: str, path: Path) -> Path | None:
        if not reference.startswith("#"):
            words = "leads outside, and nothing is fetched; copy it into `$defs`: #/$defs/NAME"
            self.faults.append((path, words))
            return None
        parts = unquote(reference[1:]).split("/")
        value: Any = self._root
        target: list[str | int] = []
        for part in parts[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
                target.append(int(name))
            elif isinstance(value, dict) and name in value:
                target.append(name)
            else:
                break
            value = value[target[-1]]
        if parts[0] or len(target) < len(parts) - 1 or not isinstance(value, (dict, bool)):
            self.faults.append((path, "leads nowhere; write a place in the schema: #/$defs/NAME"))
            return None
        return tuple(target)

    # -- counting -----------------------------------------------------------------------------

    def _close(self, number: int, above: tuple[int, ...] = ()) -> bool:
        """Find all that are held against one value with a subschema, and how often."""
        if number in self._closures:
            return True
        path = self._paths[number]
        if number in above:
            self.faults.append((path, "leads back to itself without going into the body"))
            return False
        if len(above) > _LONGEST:
            self.faults.append((path, f"comes after more than {_LONGEST} others on one value"))
            return False
        found = {number: 1}
        for one in self._nodes[number].here:
            if not self._close(one, (*above, number)):
                return False
            _ask(found, self._closures[one], 1)
        self._closed += len(found)
        if sum(found.values()) > MOST_AT_ONCE or self._closed > MOST_ALTOGETHER:
            words = "holds too many subschemas against one and the same value; make it simpler"
            self.faults.append((path, words))
            return False
        self._closures[number] = found
        return True

    def _bound(self) -> tuple[float, float]:
        """The most that one value can meet: checks of any kind, and instructions of patterns."""
        if self.faults or not all(map(self._close, range(len(self._nodes)))):
            return _ENDLESS, _ENDLESS
        try:
            return (
                self._worst(0, [node.weight for node in self._nodes], {}),
                self._worst(0, [node.program for node in self._nodes], {}),
            )
        except RecursionError:
            return _ENDLESS, _ENDLESS

    def _worst(self, number: int, costs: list[float], known: dict[int, float]) -> float:
        """The most that a value can cost, this one or one inside; infinite in a circle."""
        if number in known:
            return known[number]
        known[number] = _ENDLESS  # for who comes back here before it is known
        here = members = elements = 0.0
        for other, times in self._closures[number].items():
            node = self._nodes[other]
            self._looks += 1 + len(node.named) + len(node.prefix)
            if self._looks > MOST_ALTOGETHER:
                return _ENDLESS

            def of(*numbers: int) -> list[float]:
                return [self._worst(one, costs, known) for one in numbers]

            named = max(of(*node.named.values(), *node.other_members), default=0)
            member = sum(of(*node.any_member)) + named
            here += times * costs[other]
            members += times * max(member, sum(of(*node.names)))
            placed = max(of(*node.prefix, *node.rest), default=0)
            elements += times * (sum(of(*node.any_element)) + placed)
        known[number] = max(here, members, elements)
        return known[number]

    def checks(self, body: Any, text: str, most: float) -> float:
        """How many checks `body`, which is `text`, takes at most; infinite if more than `most`."""
        values = 1 + sum(map(text.count, ",:[{"))
        by_value, by_character = self._bounds
        roughly = by_value * values + by_character * len(text) / _STEPS
        return roughly if roughly <= most else self._counted(body, most)

    def _counted(self, body: Any, most: float) -> float:
        """Walk over the body with what is held against each of its values."""
        done, visits = 0.0, 0
        todo: list[tuple[Any, dict[int, int]]] = [(body, {0: 1})]
        while todo:
            value, asked = todo.pop()
            met: dict[int, int] = {}
            for number, times in asked.items():
                _ask(met, self._closures[number], times)
            visits += len(met)
            length = len(value) if isinstance(value, str) else 0
            for number, times in met.items():
                node = self._nodes[number]
                done += times * (node.weight + length * node.program / _STEPS)
            if done > most or visits > MOST_VISITS:
                return float("inf")
            if isinstance(value, dict):
                todo.extend(self._members(value, met))
            elif isinstance(value, list):
                todo.extend(self._elements(value, met))
        return done

    def _members(
        self, value: dict[str, Any], met: dict[int, int]
    ) -> Iterator[tuple[Any, dict[int, int]]]:
        nodes = [(self._nodes[number], times) for number, times in met.items()]
        for name, member in value.items():
            asked: dict[int, int] = {}
            names: dict[int, int] = {}
            for node, times in nodes:
                _ask_each(asked, node.any_member, times)
                _ask_each(names, node.names, times)
                if name in node.named:
                    _ask_each(asked, [node.named[name]], times)
                else:
                    _ask_each(asked, node.other_members, times)
            if names:
                yield name, names
            if asked:
                yield member, asked

    def _elements(
        self, value: list[Any], met: dict[int, int]
    ) -> Iterator[tuple[Any, dict[int, int]]]:
        nodes = [(self._nodes[number], times) for number, times in met.items()]
        for index, element in enumerate(value):
            asked: dict[int, int] = {}
            for node, times in nodes:
                _ask_each(asked, node.any_element, times)
                _ask_each(asked, node.prefix[index : index + 1] or node.rest, times)
            if asked:
                yield element, asked


def _ask(asked: dict[int, int], more: Mapping[int, int], times: int) -> None:
    for number, often in more.items():
        asked[number] = asked.get(number, 0) + times * often


def _ask_each(asked: dict[int, int], numbers: Iterable[int], times: int) -> None:
    for number in numbers:
        asked[number] = asked.get(number, 0) + times


def _keys(value: object) -> list[str]:
    return list(value) if isinstance(value, dict) else []


def _length(value: object) -> int:
    return len(value) if isinstance(value, list) else 0
