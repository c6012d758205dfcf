"""What of a definition matters for how it ends, and the choices that stand for the rest.

The machine that is explored is the real one; its definition has been made small: a call is tried
once, since what many tries come to is what the last of them comes to; a compensation is tried for
ever; a fan-out has 0, 1 or 2 items, and tolerates the failure of at most one; a child is a call.
What an expression comes to is chosen: a condition is true or false, a list has so many elements.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from sidecar.definitions.checker.reads import condition, needs
from sidecar.errors import RenderError
from sidecar.saga.definition import (
    Compensation,
    Definition,
    JsonText,
    Scope,
    StepDefinition,
    Template,
)
from sidecar.saga.policy import RetryPolicy

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
MOST_ITEMS = 2
"""As many items stand for any number of them."""
ONCE = RetryPolicy(max_attempts=1, total_budget=None)
FOR_EVER = RetryPolicy(max_attempts=None, total_budget=None)

Choices = tuple[tuple[str, bool], ...]
"""What conditions have come to so far, of those that are asked again."""
Of = TypeVar("Of")


def abstract(definition: Definition, final: frozenset[str] = frozenset()) -> Definition:
    """Return what is explored in place of `definition`; `final` are children with no way back."""
    steps = tuple(_step(step, final=step.name in final) for step in definition.steps)
    return dataclasses.replace(
        definition, steps=steps, concurrency=None, input_check=None, input_schema=None
    )


def _step(step: StepDefinition, *, final: bool) -> StepDefinition:
    compensation = step.compensation
    if step.child is not None:
        compensation = None if final else Compensation("/child")
    elif compensation is not None:
        compensation = dataclasses.replace(compensation, retry=FOR_EVER)
    fan_out = step.fan_out
    if fan_out is not None:
        fan_out = dataclasses.replace(
            fan_out,
            items=_short(fan_out.items),
            max_parallel=min(fan_out.max_parallel, MOST_ITEMS),
            tolerated=min(fan_out.tolerated, 1),
        )
    return dataclasses.replace(
        step,
        compensation=compensation,
        fan_out=fan_out,
        retry=ONCE,
        child=None,
        status_check=None,
        output_schema=None,
        output_check=None,
    )


def _short(items: Template) -> Template:
    """The list of a fan-out, if it stands in the definition, with few of its elements."""
    if not items.constant:
        return items
    found = json.loads(items.source)
    few = found[:MOST_ITEMS] if isinstance(found, list) else found
    return dataclasses.replace(items, source=JsonText(json.dumps(few)))


@dataclass(frozen=True, slots=True)
class Role:
    """What a template is for: `step` is "" for the output of the workflow."""

    step: str
    key: str
    needs: frozenset[str] = frozenset()
    asks: tuple[str, bool] | None = None


@dataclass(frozen=True, slots=True)
class Absent:
    """A template could not be rendered for want of the output of step `read`."""

    role: Role
    read: str


class Roles:
    """The templates of a definition, by identity."""

    def __init__(self, definition: Definition) -> None:
        self._by_id: dict[int, Role] = {}
        self._kept: list[Template] = []  # so that no identity is used again
        asked: Counter[str] = Counter()
        for step in definition.steps:
            compensation = step.compensation
            for key, template in (
                ("when", step.when),
                ("for_each", step.fan_out.items if step.fan_out else None),
                ("wait", step.wait.until if step.wait else None),
                ("input", step.input),
                ("compensate", compensation.input if compensation else None),
                ("concurrency", step.concurrency.key if step.concurrency else None),
            ):
                if template is not None and not template.constant:
                    role = self._add(template, step.name, key)
                    asked.update([role.asks[0]] if role.asks else [])
        if definition.output is not None:
            self._add(definition.output, "", "output")
        self.asked_again = frozenset(text for text, times in asked.items() if times > 1)

    def _add(self, template: Template, step: str, key: str) -> Role:
        role = Role(
            step,
            key,
            needs(template, typed=key in ("when", "for_each", "wait")),
            condition(template) if key == "when" else None,
        )
        self._by_id[id(template)] = role
        self._kept.append(template)
        return role

    def of(self, template: Template) -> Role:
        """The role of a template of this definition."""
        return self._by_id[id(template)]

    @property
    def needed(self) -> frozenset[str]:
        """The steps whose outputs some template cannot do without."""
        none: frozenset[str] = frozenset()
        return none.union(*(role.needs for role in self._by_id.values()))

    def needing(self, step: str) -> frozenset[str]:
        """What the templates of one step cannot do without."""
        none: frozenset[str] = frozenset()
        return none.union(*(role.needs for role in self._by_id.values() if role.step == step))

    def asks_again(self, step: str) -> bool:
        """Whether the condition of a step is asked elsewhere, too."""
        return any(
            role.step == step and role.asks is not None and role.asks[0] in self.asked_again
            for role in self._by_id.values()
        )


@dataclass(slots=True)
class Oracle:
    """Renders by choosing: the choices in `script` first, then the first there is."""

    roles: Roles
    remembered: Choices
    script: tuple[int, ...]
    taken: list[tuple[int, int]] = field(default_factory=list)
    """Each choice with how many there were."""
    told: list[str] = field(default_factory=list)
    absent: list[Absent] = field(default_factory=list)

    def __call__(self, template: Template, scope: Scope) -> JsonText:
        """Render: the `Render` of the machine. Raises `RenderError`."""
        role = self.roles.of(template)
        for name in sorted(role.needs):
            if scope.outputs[name] is None:
                self.absent.append(Absent(role, name))
                raise RenderError(f"there is no output of {name}")
        match role.key:
            case "when":
                return JsonText("true" if self._condition(role) else "false")
            case "for_each":
                number = self._choose(MOST_ITEMS + 1, of=(2, 1, 0))
                self.told.append(f"{role.step} gets {number} item{'s' * (number != 1)}")
                return JsonText(json.dumps(list(range(number))))
            case "wait":
                return JsonText(json.dumps(EPOCH.isoformat()))
            case _:
                return JsonText("null")

    def _condition(self, role: Role) -> bool:
        text, positive = role.asks or ("", True)
        known: Mapping[str, bool] = dict(self.remembered)
        if text in known:
            true = known[text] is positive
        else:
            true = self._choose(2, of=(1, 0)) == 1
            if text in self.roles.asked_again:
                self.remembered = tuple(sorted({**known, text: true is positive}.items()))
        self.told.append(f"the condition of {role.step} is {'true' if true else 'false'}")
        return true

    def _choose(self, many: int, of: tuple[int, ...]) -> int:
        place = len(self.taken)
        pick = self.script[place] if place < len(self.script) else 0
        if pick >= many:  # a script from another way, on which something else was asked here
            pick = 0
        self.taken.append((pick, many))
        return of[pick]


def every_choice(
    roles: Roles, remembered: Choices, run: Callable[[Oracle], Of]
) -> Iterator[tuple[Oracle, Of]]:
    """Run something once for each combination of the choices that it turns out to need."""
    scripts: list[tuple[int, ...]] = [()]
    while scripts:
        script = scripts.pop()
        oracle = Oracle(roles, remembered, script)
        yield oracle, run(oracle)
        made = tuple(pick for pick, _ in oracle.taken)
        for place in range(len(oracle.taken) - 1, len(script) - 1, -1):
            pick, many = oracle.taken[place]
            scripts += [(*made[:place], other) for other in range(pick + 1, many)]
