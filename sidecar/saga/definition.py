"""A definition as the machine sees it: an immutable graph of steps.

Reading YAML or JSON, and telling people what is wrong with it, is the work of
`sidecar.definitions`. What arrives here is well formed: names are unique, the graph has no
cycle, a pivot has no step beside it. `Definition` computes the orders it needs once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from typing import Any, NewType, Protocol

from sidecar.saga.policy import COMPENSATION_DEFAULT, FORWARD_DEFAULT, RetryPolicy

JsonText = NewType("JsonText", str)
"""A JSON document as text: valid UTF-8, without NUL, NaN or lone surrogates."""

DEFAULT_TIMEOUT = timedelta(seconds=30)
DEFAULT_CALLBACK_TIMEOUT = timedelta(minutes=15)
DEFAULT_STATUS_BUDGET = timedelta(minutes=5)
DEFAULT_PARALLEL = 10
"""How many items of a fan-out are open at a time, unless it says otherwise."""
MOST_PARALLEL = 1_000
MOST_ITEMS = 10_000
"""How many items one fan-out may have."""


class Join(StrEnum):
    """Which of the steps before it a step waits for."""

    ALL = "all"
    ANY = "any"
    """One that succeeded; or all of them, if none did."""


class Order(StrEnum):
    """In which order steps are undone."""

    REVERSE = "reverse"
    """A step after everything that depended on it; independent ones in parallel."""
    SEQUENTIAL = "sequential"
    """Strictly one by one, the last first."""
    PARALLEL = "parallel"


class Render(Protocol):
    """Fills an input template; given to the machine, which knows no expression language."""

    def __call__(self, template: Template, scope: Scope) -> JsonText:
        """Return the rendered JSON, or raise `RenderError`."""
        ...


class BodyCheck(Protocol):
    """Holds bodies against a JSON Schema; given to the machine, which knows no schemas."""

    def problems(self, body: JsonText) -> list[tuple[str, str]]:
        """What is wrong with `body`: paths inside it, each with a sentence; [] if nothing is."""
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
class Each:
    """The element of a fan-out that an expression sees as `each`; `index` counts from 0."""

    index: int
    item: JsonText


@dataclass(frozen=True, slots=True)
class Scope:
    """What an expression can see: the workflow's input, and its steps' statuses and outputs.

    One transition has one `kept`, which belongs to whoever renders, from one template of the
    transition to the next; `each` and what stands under the name of a fan-out's own step (for its
    items their own outputs and statuses) may differ between them.
    """

    workflow_id: str
    definition: str
    version: int
    input: JsonText
    outputs: Mapping[str, JsonText | None]
    statuses: Mapping[str, str]
    each: Each | None = None
    kept: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Compensation:
    """How a step is undone: a path of the same service, and a policy of its own.

    Without a `path` the sidecar that calls looks it up under the step's action.
    """

    path: str
    method: str = "POST"
    timeout: timedelta = DEFAULT_TIMEOUT
    retry: RetryPolicy = COMPENSATION_DEFAULT
    input: Template | None = None
    on_status: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """A pause: for a span, until a moment, or for a signal. Just one of the three is given.

    `until` renders to a time as RFC 3339 text. `timeout` is how long a signal is waited for; None
    is without end. When it passes, the step fails.
    """

    duration: timedelta | None = None
    until: Template | None = None
    signal: str | None = None
    timeout: timedelta | None = None


@dataclass(frozen=True, slots=True)
class FanOut:
    """One run of a step for each element of a list.

    `items` renders to the list; at most `max_parallel` items are open at a time; the step fails
    when more than `tolerated` of them have failed.
    """

    items: Template
    max_parallel: int = DEFAULT_PARALLEL
    tolerated: int = 0


@dataclass(frozen=True, slots=True)
class StatusCheck:
    """Where a service can be asked how an execute went, and for how long it is asked.

    Without a `path` the sidecar that calls looks it up under the step's action.
    """

    path: str
    budget: timedelta = DEFAULT_STATUS_BUDGET


@dataclass(frozen=True, slots=True)
class Child:
    """Another definition that a step runs; version 0 is one that was not pinned yet."""

    definition: str
    version: int


@dataclass(frozen=True, slots=True)
class Concurrency:
    """Workflows for which `key` renders to the same take turns, `limit` of them at a time.

    One in `error` keeps its turn unless `release_on_error`. For a step it is the same among the
    steps of that name, or the items of it.
    """

    key: Template
    limit: int = 1
    release_on_error: bool = False


@dataclass(frozen=True, slots=True)
class StepDefinition:
    """One step: a call of `service` at `path`, or a `wait`, or a `child`.

    `when` renders to true or false; on false the step is skipped. A failure of an `optional` step
    stops nothing. `compensation` None with `no_effect` true means that there is nothing to undo;
    None with `no_effect` false means that what it did cannot be undone. `input` None sends the
    workflow's input, or the element of a fan-out. `on_status` overrides how HTTP statuses are
    classed. `callback_timeout` is how long a service may take after it answered 202. With
    `concurrency` a call, or each item of a fan-out of calls, waits for its turn.
    `output_schema` is a JSON Schema, and `output_check` what was made of it. With an `action` in
    place of a path the sidecar that calls looks it up in its own catalogue; `catalogue` is the
    version whose policies these are, None if none was known. `priority` (0 to 9) puts its calls in
    order among those that wait (see `sidecar.saga.priority`).
    """

    name: str
    service: str = ""
    path: str = ""
    after: tuple[str, ...] = ()
    method: str = "POST"
    timeout: timedelta = DEFAULT_TIMEOUT
    retry: RetryPolicy = FORWARD_DEFAULT
    compensation: Compensation | None = None
    no_effect: bool = False
    pivot: bool = False
    input: Template | None = None
    on_status: tuple[tuple[int, str], ...] = ()
    join: Join = Join.ALL
    when: Template | None = None
    optional: bool = False
    wait: Wait | None = None
    fan_out: FanOut | None = None
    child: Child | None = None
    status_check: StatusCheck | None = None
    callback_timeout: timedelta = DEFAULT_CALLBACK_TIMEOUT
    output_schema: JsonText | None = None
    output_check: BodyCheck | None = field(default=None, compare=False, repr=False)
    priority: int = 0
    action: str = ""
    catalogue: int | None = None
    concurrency: Concurrency | None = None

    @property
    def templates(self) -> tuple[Template, ...]:
        """All that it renders."""
        found = (
            self.input,
            self.when,
            self.wait.until if self.wait else None,
            self.fan_out.items if self.fan_out else None,
            self.compensation.input if self.compensation else None,
            self.concurrency.key if self.concurrency else None,
        )
        return tuple(template for template in found if template is not None)


@dataclass(frozen=True)
class Definition:
    """One version of a workflow: its steps in the order they were written.

    `output` renders the output of a completed workflow. `input_schema` is a JSON Schema, and
    `input_check` what was made of it. `central` wants every compensation named, and looks at open
    rollbacks again and again. Of workflows that wait, those of a higher `priority` come first.
    """

    name: str
    version: int
    steps: tuple[StepDefinition, ...]
    namespace: str = "default"
    timeout: timedelta | None = None
    output: Template | None = None
    order: Order = Order.REVERSE
    central: bool = False
    input_schema: JsonText | None = None
    input_check: BodyCheck | None = field(default=None, compare=False, repr=False)
    concurrency: Concurrency | None = None
    priority: int = 0

    @cached_property
    def by_name(self) -> dict[str, StepDefinition]:
        """The steps by name."""
        return {step.name: step for step in self.steps}

    @cached_property
    def priorities(self) -> dict[str, int]:
        """The priorities of the steps that have one above 0, by their names."""
        return {step.name: step.priority for step in self.steps if step.priority}

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
    def templates(self) -> tuple[Template, ...]:
        """All that it renders."""
        found = (self.output, self.concurrency.key if self.concurrency else None)
        own = tuple(template for template in found if template is not None)
        return own + tuple(one for step in self.steps for one in step.templates)

    @cached_property
    def reads_outputs(self) -> bool:
        """Whether anything is rendered from the outputs of earlier steps."""
        return any(template.reads for template in self.templates)

    @cached_property
    def renders(self) -> bool:
        """Whether anything is rendered from something: then transitions need bodies.

        A child without an input of its own gets the workflow's.
        """
        passes_on = any(step.child and step.input is None for step in self.steps)
        return passes_on or any(not template.constant for template in self.templates)

    @cached_property
    def signals(self) -> frozenset[str]:
        """The names of the signals that some step waits for."""
        return frozenset(step.wait.signal for step in self.steps if step.wait and step.wait.signal)

    @cached_property
    def steps_take_turns(self) -> bool:
        """Whether some step waits for a place."""
        return any(step.concurrency for step in self.steps)

    @cached_property
    def fans_out(self) -> bool:
        """Whether some step runs once for each element of a list."""
        return any(step.fan_out for step in self.steps)

    def past_pivot(self, name: str) -> bool:
        """Whether step `name` comes after a pivot."""
        before = self.ancestors[name]
        return any(pivot in before for pivot in self.pivots)
