"""Made-up data for what nobody gave: input and outputs that the definition's expressions can read.

Each place that an expression looks at gets the first value of a list with which most expressions
can be rendered. It is a sample, not a proof; who wants a condition to be true gives the data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from sidecar.definitions.checker.reads import expressions
from sidecar.definitions.rendering import render
from sidecar.definitions.templates import Compiled
from sidecar.errors import RenderError
from sidecar.saga.definition import Definition, Each, JsonText, Scope, Template

CANDIDATES: tuple[Any, ...] = (1, "sample", True, 1.5, {}, [1, 2], "2030-01-01T00:00:00Z")
MOST_PLACES = 200
"""After so many places the rest keep their first value: each costs some renderings."""
_ANY_LIST = [1, 2]

Place = tuple[str, ...]


class Samples:
    """The sample data of one definition. `given` holds the outputs that somebody gave."""

    def __init__(
        self, definition: Definition, given: Mapping[str, JsonText], body: JsonText | None
    ) -> None:
        self._definition = definition
        self._given = given
        self._body = body
        self._lists = dict(_lists(definition))
        self._values: dict[Place, Any] = {}
        chains = sorted({chain for one in definition.templates for chain in _chains(one)})
        for place in chains:
            leaf = not any(other[: len(place)] == place for other in chains if other != place)
            if leaf and place[0] in ("input", "steps", "each") and "status" not in place[2:3]:
                self._values[place] = CANDIDATES[0]
        for place in list(self._values)[:MOST_PLACES]:
            self._choose(place)

    def input(self) -> JsonText:
        """The input of the workflow."""
        return self._body if self._body is not None else _text(self._under(("input",)))

    def outputs(self) -> dict[str, JsonText]:
        """The output of every step that has one and that nobody gave."""
        made = {
            step.name: _text(self._under(("steps", step.name, "output")))
            for step in self._definition.steps
            if step.wait is None
        }
        return {**made, **self._given}

    def payload(self, step: str) -> JsonText:
        """What the signal that a step waits for says."""
        return _text(self._under(("steps", step, "output", "payload")))

    # -- choosing -----------------------------------------------------------------------------

    def _choose(self, place: Place) -> None:
        concerned = [
            one for one in self._definition.templates if any(c == place for c in _chains(one))
        ]
        best: tuple[int, Any] = (-1, CANDIDATES[0])
        for value in CANDIDATES:
            self._values[place] = value
            good = sum(self._renders(one) for one in concerned)
            if good > best[0]:
                best = (good, value)
            if good == len(concerned):
                break
        self._values[place] = best[1]

    def _renders(self, template: Template) -> bool:
        outputs = {step.name: self._output(step.name) for step in self._definition.steps}
        scope = Scope(
            workflow_id="w",
            definition=self._definition.name,
            version=1,
            input=self.input(),
            outputs=outputs,
            statuses=dict.fromkeys(outputs, "succeeded"),
            each=Each(0, _text(self._under(("each", "item")))),
        )
        try:
            rendered = render(template, scope)
        except RenderError:
            return False
        for step in self._definition.steps:
            if template is step.when:
                return rendered in ("true", "false")
            if step.fan_out and template is step.fan_out.items:
                return rendered.startswith("[")
        return True

    def _output(self, name: str) -> JsonText:
        step = self._definition.by_name[name]
        if name in self._given:
            return self._given[name]
        if step.wait is not None and step.wait.signal is not None:
            return JsonText(f'{{"payload":{self.payload(name)}}}')
        one = _text(self._under(("steps", name, "output")))
        return JsonText(f"[{one}]") if step.fan_out else one

    def _under(self, place: Place) -> Any:
        """What stands at a place: a value, or an object of what stands below it."""
        if place in self._lists:
            return [self._under(("each", "item"))] * 2
        if place in self._values:
            return self._values[place]
        below = {
            known[len(place)]: None
            for known in (*self._values, *self._lists)
            if known[: len(place)] == place and len(known) > len(place)
        }
        return {name: self._under((*place, name)) for name in below}


def _chains(template: Template) -> tuple[Place, ...]:
    compiled = template.compiled
    return compiled.chains if isinstance(compiled, Compiled) else ()


def _lists(definition: Definition) -> Iterator[tuple[Place, str]]:
    """The places that a fan-out takes its elements from, with its step."""
    for step in definition.steps:
        items = step.fan_out.items if step.fan_out else None
        if items is not None and len(_chains(items)) == 1:
            (chain,) = _chains(items)
            if [one.strip() for one in expressions(items)] == [".".join(chain)]:
                yield chain, step.name


def _text(value: Any) -> JsonText:
    return JsonText(json.dumps(value))
