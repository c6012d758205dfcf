"""A definition as the machine sees it: an immutable graph of call steps.

Reading YAML or JSON, and telling people what is wrong with it, is the work of
`sidecar.definitions`. What arrives here is well formed: names are unique, the graph has no
cycle, a pivot has no step beside it. `Definition` computes the orders it needs once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Any, NewType, Protocol

from sidecar.saga.policy import COMPENSATION_DEFAULT, FORWARD_DEFAULT, RetryPolicy

JsonText = NewType("JsonText", str)
"""A JSON document as text: valid UTF-8, without NUL, NaN or lone surrogates."""

DEFAULT_TIMEOUT = timedelta(seconds=30)


class Render(Protocol):
    """Fills an input template; given to the machine, which knows no expression language."""

    def __call__(self, template: Template, scope: Scope) -> JsonText:
        """Return the rendered JSON, or raise `RenderError`."""
        ...


@dataclass(frozen=True, slots=True)
class Template:
    """An input to be rendered. `source` is JSON whose strings may hold expressions.

    `compiled` belongs to whoever renders it. `reads` names the steps whose outputs it needs;
    `constant` says that it holds no expression at all and `source` is the result.
    """

    source: JsonText
    constant: bool
    reads: frozenset[str] = frozenset()
    compiled: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Scope:
    """What an expression can see: the workflow's input, and its steps' statuses and outputs.

    One transition has one scope. `kept` belongs to whoever renders, from one template of the
    transition to the next.
    """

    workflow_id: str
    definition: str
    version: int
    input: JsonText
    outputs: Mapping[str, JsonText | None]
    statuses: Mapping[str, str]
    kept: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Compensation:
    """How a step is undone: a path of the same service, and a policy of its own."""

    path: str
    method: str = "POST"
    timeout: timedelta = DEFAULT_TIMEOUT
    retry: RetryPolicy = COMPENSATION_DEFAULT
    input: Template | None = None
    on_status: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class StepDefinition:
    """One call step.

    `compensation` None with `no_effect` true means that there is nothing to undo; None with
    `no_effect` false means that what it did cannot be undone. `input` None sends the
    workflow's input. `on_status` overrides how HTTP statuses are classed.
    """

    name: str
    service: str
    path: str
    after: tuple[str, ...] = ()
    method: str = "POST"
    timeout: timedelta = DEFAULT_TIMEOUT
    retry: RetryPolicy = FORWARD_DEFAULT
    compensation: Compensation | None = None
    no_effect: bool = False
    pivot: bool = False
    input: Template | None = None
    on_status: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Definition:
    """One version of a workflow: its steps in the order they were written."""

    name: str
    version: int
    steps: tuple[StepDefinition, ...]
    namespace: str = "default"
    timeout: timedelta | None = None

    @cached_property
    def by_name(self) -> dict[str, StepDefinition]:
        """The steps by name."""
        return {step.name: step for step in self.steps}

    @cached_property
    def roots(self) -> tuple[StepDefinition, ...]:
        """The steps that wait for no other."""
        return tuple(step for step in self.steps if not step.after)

    @cached_property
    def successors(self) -> dict[str, tuple[str, ...]]:
        """For each step the steps that name it in `after`."""
        found: dict[str, list[str]] = {step.name: [] for step in self.steps}
        for step in self.steps:
            for before in step.after:
                found[before].append(step.name)
        return {name: tuple(after) for name, after in found.items()}

    @cached_property
    def topological(self) -> tuple[str, ...]:
        """The names in an order in which every step comes after all it waits for."""
        missing = {step.name: len(step.after) for step in self.steps}
        order = [step.name for step in self.roots]
        for name in order:
            for successor in self.successors[name]:
                missing[successor] -= 1
                if missing[successor] == 0:
                    order.append(successor)
        return tuple(order)

    @cached_property
    def ancestors(self) -> dict[str, frozenset[str]]:
        """For each step all the steps that must have passed before it."""
        found: dict[str, frozenset[str]] = {}
        for name in self.topological:
            before = self.by_name[name].after
            found[name] = frozenset(before).union(*(found[one] for one in before))
        return found

    @cached_property
    def descendants(self) -> dict[str, frozenset[str]]:
        """For each step all the steps that come after it, directly or not."""
        found: dict[str, frozenset[str]] = {}
        for name in reversed(self.topological):
            after = self.successors[name]
            found[name] = frozenset(after).union(*(found[one] for one in after))
        return found

    @cached_property
    def pivots(self) -> tuple[str, ...]:
        """The names of the pivot steps."""
        return tuple(step.name for step in self.steps if step.pivot)

    @cached_property
    def reads_outputs(self) -> bool:
        """Whether any input is rendered from the outputs of earlier steps."""
        templates = [step.input for step in self.steps]
        templates += [step.compensation.input for step in self.steps if step.compensation]
        return any(template is not None and template.reads for template in templates)

    @cached_property
    def renders(self) -> bool:
        """Whether any input is rendered from something: then transitions need bodies."""
        templates = [step.input for step in self.steps]
        templates += [step.compensation.input for step in self.steps if step.compensation]
        return any(template is not None and not template.constant for template in templates)

    def past_pivot(self, name: str) -> bool:
        """Whether step `name` comes after a pivot."""
        before = self.ancestors[name]
        return any(pivot in before for pivot in self.pivots)
