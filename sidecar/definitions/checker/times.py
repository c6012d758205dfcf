"""How long a workflow can take: the longest way through its graph.

A service that never says "not now" is assumed: that costs no try and only ends with the budget.
Leases, doorbells and the time a step waits for a free sidecar are left out, and a fan-out counts as
one call. None is without end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from sidecar.saga.definition import Definition, Order, StepDefinition
from sidecar.saga.policy import COMPENSATION_DEFAULT, RetryPolicy

NOTHING = timedelta()
_MOST_TRIES = 100_000
"""More are not added up: they take as long as they may."""

Span = timedelta | None


@dataclass(frozen=True, slots=True)
class Times:
    """`best` counts pauses alone; `worst` tries, their time-outs and the pauses between them.

    `undo_best` is one try of each compensation for as long as it may take, `undo_worst` all tries.
    """

    best: timedelta | None = NOTHING
    worst: timedelta | None = NOTHING
    undo_best: timedelta | None = NOTHING
    undo_worst: timedelta | None = NOTHING


def times(definition: Definition, children: Mapping[str, Definition] | None = None) -> Times:
    """Return how long a definition can take."""
    undo = _undo_once, _undo_all
    back = [_backward(definition, of) for of in undo]
    return Times(
        best=_forward(definition, _pause),
        worst=_Worst(children or {}).of(definition),
        undo_best=back[0],
        undo_worst=back[1],
    )


def beside_moments(definition: Definition, children: Mapping[str, Definition]) -> Span:
    """The worst case if every moment that is waited for has passed: it may be any."""
    return _Worst(children, moment=NOTHING).of(definition)


def tries(policy: RetryPolicy, timeout: timedelta) -> Span:
    """How long all tries of a call take if each runs into its time-out."""
    longest = None if policy.total_budget is None else policy.total_budget + timeout
    many = policy.max_attempts
    if many is None or many > _MOST_TRIES:
        return longest
    if longest is not None and timeout * many > longest:
        return longest
    total = timeout
    for number in range(1, many):
        total += policy.delay(number, 1.0) + timeout
        if longest is not None and total >= longest:
            return longest
    return total


def _pause(step: StepDefinition) -> Span:
    if step.wait is None or step.wait.duration is None or step.when is not None:
        return NOTHING
    return step.wait.duration


class _Worst:
    """The worst cases of a definition and of its children, each looked at once."""

    def __init__(self, children: Mapping[str, Definition], moment: Span = None) -> None:
        self._children = children
        self._moment = moment
        self._known: dict[str, Span] = {}

    def of(self, definition: Definition) -> Span:
        """The longest way through a definition."""
        return _forward(definition, lambda step: self._step(definition, step))

    def _step(self, definition: Definition, step: StepDefinition) -> Span:
        if step.wait is not None:
            if step.wait.signal is not None:
                return step.wait.timeout
            return self._moment if step.wait.until is not None else step.wait.duration
        if step.child is not None:
            return self._child(step.child.definition)
        policy = step.retry
        if definition.past_pivot(step.name) or step.pivot:
            policy = step.compensation.retry if step.compensation else COMPENSATION_DEFAULT
        spent = tries(policy, step.timeout)
        if spent is not None and step.status_check is not None:
            spent += step.status_check.budget + step.timeout
        return spent

    def _child(self, name: str) -> Span:
        child = self._children.get(name)
        if child is None or child.timeout is not None:
            return child.timeout if child else None
        if name not in self._known:
            self._known[name] = None  # one that runs itself is without end
            self._known[name] = self.of(child)
        return self._known[name]


def _undo_once(step: StepDefinition) -> Span:
    return step.compensation.timeout if step.compensation else NOTHING


def _undo_all(step: StepDefinition) -> Span:
    if step.compensation is None:
        return NOTHING
    return tries(step.compensation.retry, step.compensation.timeout)


def _forward(definition: Definition, takes: Callable[[StepDefinition], Span]) -> Span:
    """The longest way from the roots."""
    ends: dict[str, Span] = {}
    for name in definition.topological:
        step = definition.by_name[name]
        ends[name] = plus(longest([ends[one] for one in step.after]), takes(step))
    return longest(list(ends.values()))


def _backward(definition: Definition, takes: Callable[[StepDefinition], Span]) -> Span:
    """The longest way back to the roots, in the order in which steps are undone."""
    steps = [one for one in definition.steps if not definition.past_pivot(one.name)]
    spans = [takes(one) for one in steps]
    if definition.order is Order.PARALLEL:
        return longest(spans)
    if definition.order is Order.SEQUENTIAL:
        total: Span = NOTHING
        for span in spans:
            total = plus(total, span)
        return total
    return _forward(definition, lambda step: takes(step) if step in steps else NOTHING)


def plus(one: Span, other: Span) -> Span:
    """The sum of two spans."""
    return None if one is None or other is None else one + other


def longest(spans: list[Span]) -> Span:
    """The longest of these spans; nothing if there are none."""
    found = NOTHING
    for span in spans:
        if span is None:
            return None
        found = max(found, span)
    return found
