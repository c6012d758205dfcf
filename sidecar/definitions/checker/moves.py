"""What can happen next in a workflow that is explored, and what becomes of it.

Steps are claimed as soon as they can be, and have their turn at once: a place that somebody waits
for comes some time, and changes no outcome. A step that waits to be called has no future that one
being called does not have, too: instead of being cancelled, it is refused. Only a pivot is not:
until its claim the workflow can be cancelled.

On the way back one step after the other is followed to its end, since their order makes no
difference there: whatever is open gets its answer in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from sidecar.definitions.checker.abstraction import (
    EPOCH,
    Absent,
    Choices,
    Oracle,
    Roles,
    every_choice,
)
from sidecar.definitions.checker.claims import admitted, can_be_claimed, claimed
from sidecar.errors import IllegalTransition
from sidecar.saga.changes import Changes
from sidecar.saga.definition import Definition, JsonText, Render, StepDefinition
from sidecar.saga.events import Answered, CancelRequested, Event, SignalSent, TimerFired
from sidecar.saga.machine import NewWorkflow, advance, start
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.states import OPEN, StepStatus, WorkflowStatus
from sidecar.saga.turns import waits_for_turn
from sidecar.saga.workflow import Step, StepKey, Workflow, WorkflowId


class What(StrEnum):
    """What happens in one move."""

    START = "start"
    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """The outcome stays unknown, however often the call is tried."""
    UNDONE = "undone"
    TIMER = "timer"
    SIGNAL = "signal"
    CANCEL = "cancel"


class Move(NamedTuple):
    """One thing that happens; `picks` are the choices that the machine was given with it."""

    what: What
    key: StepKey | None = None
    picks: tuple[int, ...] = ()
    told: tuple[str, ...] = ()


class Node(NamedTuple):
    """A state that was reached; `absent` is what could not be rendered on the last move."""

    workflow: Workflow
    choices: Choices
    absent: tuple[Absent, ...] = ()


_OUTCOMES = {
    What.DONE: Outcome(OutcomeKind.DONE, output=JsonText("{}")),
    What.REFUSED: Outcome(OutcomeKind.REFUSED),
    # Nothing tries it again, neither the policy of the step nor that of its compensation.
    What.UNKNOWN: Outcome(OutcomeKind.UNUSABLE, may_have_effect=True),
    What.UNDONE: Outcome(OutcomeKind.DONE),
}
_ANY = (What.DONE, What.REFUSED, What.UNKNOWN)


class Space:
    """The states of a definition, which must be an abstract one, and the moves between them."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.roles = Roles(definition)
        self._place = {name: number for number, name in enumerate(definition.topological)}
        self._cannot_be_undone = {
            step.name for step in definition.steps if not step.compensation and not step.no_effect
        }
        self._fragile = {
            role.step
            for step in definition.steps
            if step.compensation and step.compensation.input and step.compensation.input.reads
            for role in (self.roles.of(step.compensation.input),)
        }

    # -- moving -------------------------------------------------------------------------------

    def starts(self, picks: tuple[int, ...] | None = None) -> Iterator[tuple[Move, Node]]:
        """All ways to begin; with `picks` the one they lead to."""
        new = NewWorkflow(WorkflowId("w"), JsonText("{}"))

        def run(render: Render) -> Changes:
            return start(self.definition, new, now=EPOCH, render=render)

        if picks is None:
            tries = every_choice(self.roles, (), run)
        else:
            tries = _with(Oracle(self.roles, (), picks), run)
        for oracle, changes in tries:
            yield self._made(What.START, None, oracle, changes)

    def after(
        self, node: Node, what: What, key: StepKey | None, picks: tuple[int, ...] | None = None
    ) -> Iterator[tuple[Move, Node]]:
        """All that a move may come to; with `picks` what it comes to with these.

        Nothing comes of a move that is not legal.
        """
        found = self._event(node.workflow, what, key)
        if found is None:
            return
        workflow, event, now = found

        def run(render: Render) -> Changes:
            return advance(self.definition, workflow, event, now=now, render=render)

        if picks is None:
            tries = every_choice(self.roles, node.choices, run)
        else:
            tries = _with(Oracle(self.roles, node.choices, picks), run)
        try:
            for oracle, changes in tries:
                yield self._made(what, key, oracle, changes)
        except IllegalTransition:
            return

    def _made(
        self, what: What, key: StepKey | None, oracle: Oracle, changes: Changes
    ) -> tuple[Move, Node]:
        workflow = changes.workflow
        for step in changes.steps:
            if waits_for_turn(workflow.steps[step.key]):
                workflow = admitted(workflow, step.key, EPOCH)
            here = workflow.steps[step.key]
            pivot = self.definition.by_name[step.key.step].pivot
            if can_be_claimed(here) and not (pivot and here.status is StepStatus.QUEUED):
                workflow = claimed(workflow, step.key, EPOCH)
        picks = tuple(pick for pick, _ in oracle.taken)
        move = Move(what, key, picks, tuple(oracle.told))
        return move, Node(workflow, oracle.remembered, tuple(oracle.absent))

    def _event(
        self, workflow: Workflow, what: What, key: StepKey | None
    ) -> tuple[Workflow, Event, datetime] | None:
        """The event of a move, and when it happens; None if it cannot."""
        if key is None:
            return workflow, CancelRequested(), EPOCH
        step = workflow.steps.get(key)
        if step is None:
            return None
        if what in (What.TIMER, What.SIGNAL):
            return self._waited(workflow, step, what)
        if can_be_claimed(step):
            workflow = claimed(workflow, key, EPOCH)
            step = workflow.steps[key]
        undoing = step.status is StepStatus.COMPENSATING
        if not step.leased or undoing is not (what is What.UNDONE):
            return None
        event = Answered(key, step.action, step.run.attempt, _OUTCOMES[what])
        return workflow, event, EPOCH

    def _waited(
        self, workflow: Workflow, step: Step, what: What
    ) -> tuple[Workflow, Event, datetime] | None:
        wait = self.definition.by_name[step.key.step].wait
        if step.status is not StepStatus.WAITING or wait is None:
            return None
        if what is What.TIMER:
            event: Event = TimerFired(step.key)
            return workflow, event, step.due_at or EPOCH
        if wait.signal is None:
            return None
        return workflow, SignalSent(wait.signal, JsonText("{}")), EPOCH

    # -- what may happen ----------------------------------------------------------------------

    def moves(self, node: Node, *, ample: bool) -> list[tuple[What, StepKey | None]]:
        """What is to be tried from here; `ample` leaves out what cannot make a difference."""
        workflow = node.workflow
        if workflow.turning_back:
            return self._back(workflow)
        if workflow.status is not WorkflowStatus.IN_PROGRESS:
            return []
        found: list[tuple[What, StepKey | None]] = []
        for name in self.definition.topological:
            of_step = self._forward(workflow, name)
            found += of_step
            if ample and of_step and self.may_go_first(name):
                found = list(of_step)
                break
        return [*found, (What.CANCEL, None)]

    def may_go_first(self, name: str) -> bool:
        """Whether what comes of a step is the same whether others move before it or after it.

        It is, unless somebody waits for it who need not wait for it.
        """
        by_name = self.definition.by_name
        return all(len(by_name[one].after) < 2 or by_name[one].join == "all"
                   for one in self.definition.descendants[name])  # fmt: skip

    def _forward(self, workflow: Workflow, name: str) -> list[tuple[What, StepKey | None]]:
        defined = self.definition.by_name[name]
        step = workflow.steps.get(StepKey(name))
        if step is None or step.status not in OPEN:
            return []
        if defined.wait is not None:
            return self._ends_of_wait(defined, step)
        if step.fan is None:
            return [(what, step.key) for what in self._outcomes(defined, step)]
        # Those that are open are alike, so that it does not matter which one moves.
        item = self._first_open_item(workflow, name)
        if item is None:
            return []
        return [(what, item.key) for what in self._outcomes(defined, step)]

    def _ends_of_wait(
        self, defined: StepDefinition, step: Step
    ) -> list[tuple[What, StepKey | None]]:
        ends: list[tuple[What, StepKey | None]] = []
        if defined.wait is not None and defined.wait.signal is not None:
            ends.append((What.SIGNAL, step.key))
        if step.due_at is not None:
            ends.append((What.TIMER, step.key))
        return ends

    def _outcomes(self, defined: StepDefinition, step: Step) -> tuple[What, ...]:
        """The outcomes of a call, as far as they are not assumed away: see `docs/checker.md`."""
        if defined.pivot:
            return (What.DONE, What.REFUSED)
        if not self.definition.past_pivot(defined.name) or defined.optional:
            return _ANY
        room = step.fan is not None and defined.fan_out is not None
        if room and step.fan and defined.fan_out and step.fan.failed < defined.fan_out.tolerated:
            return _ANY
        return (What.DONE,)

    def _first_open_item(self, workflow: Workflow, name: str) -> Step | None:
        items = (
            step
            for step in workflow.steps.values()
            if step.key.step == name and step.is_item and step.status in OPEN and step.leased
        )
        return min(items, key=lambda step: step.key.index, default=None)

    def _back(self, workflow: Workflow) -> list[tuple[What, StepKey | None]]:
        """All outcomes of one open step: first of those that may make an end in `error`."""
        steps = [step for step in workflow.steps.values() if step.leased and step.status in OPEN]
        if not steps:
            return []
        first = min(steps, key=self._urgency)
        if first.status is StepStatus.COMPENSATING:
            return [(What.UNDONE, first.key)]
        return [(what, first.key) for what in _ANY]

    def _urgency(self, step: Step) -> tuple[int, int, int]:
        name = step.key.step
        rank = 0 if name in self._cannot_be_undone else 1 if name in self._fragile else 2
        return rank, -self._place[name], step.key.index


def _with(oracle: Oracle, run: Callable[[Render], Changes]) -> Iterator[tuple[Oracle, Changes]]:
    yield oracle, run(oracle)
