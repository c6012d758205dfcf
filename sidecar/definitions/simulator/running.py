"""One workflow in virtual time: the real machine and the real renderer, scripted services.

A heap of moments stands in for sidecars, leader and clock: what can be claimed is claimed when it
is due, calls are answered, leases end, timers fire, signals come. Chance is one half. The same
scenario always gives the same run.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from sidecar.definitions.checker.claims import can_be_claimed, claimed
from sidecar.definitions.rendering import render
from sidecar.definitions.simulator.faults import CANCELS, Fault, FaultKind
from sidecar.definitions.simulator.samples import Samples
from sidecar.definitions.simulator.services import LATENCY, Services
from sidecar.errors import IllegalTransition
from sidecar.saga.changes import Changes, HistoryEvent, Verdict
from sidecar.saga.definition import Compensation, Definition, JsonText, Render, Scope, Template
from sidecar.saga.events import (
    Admitted,
    Answered,
    CancelRequested,
    DeadlinePassed,
    Event,
    LeaseEnded,
    SignalSent,
    TimerFired,
)
from sidecar.saga.explain import waiting_on
from sidecar.saga.invariants import crowded, misplaced, violations
from sidecar.saga.machine import NewWorkflow, advance, start
from sidecar.saga.states import WORKFLOW_ENDS, StepStatus, WorkflowStatus
from sidecar.saga.turns import InLine, Stand, Standing, TurnKey
from sidecar.saga.workflow import Step, StepKey, Workflow, WorkflowId

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
MOST_EVENTS = 20_000
LONGEST = timedelta(days=400)
SIGNAL_AFTER = timedelta(seconds=1)
"""How long after somebody waits for it a signal comes that nobody has planned."""


@dataclass(frozen=True, slots=True)
class PlannedSignal:
    """A signal that is sent so long after the start."""

    name: str
    payload: JsonText
    at: timedelta


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a run is to be: None and what is missing are made up."""

    input: JsonText | None = None
    outputs: Mapping[str, JsonText] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    signals: tuple[PlannedSignal, ...] = ()
    cancel_at: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the timeline: `after` the start something happened."""

    after: timedelta
    what: str
    text: str


@dataclass(frozen=True, slots=True)
class Run:
    """How it went.

    `undone` are the steps in the order in which they were compensated; `left` those that had an
    effect which is neither wanted nor undone, `waits_for` what an open workflow waits for,
    `broken` the invariants that did not hold (there must be none).
    """

    workflow: Workflow
    took: timedelta
    timeline: tuple[Line, ...]
    undone: tuple[str, ...]
    left: tuple[str, ...]
    waits_for: tuple[str, ...]
    broken: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()

    @property
    def good(self) -> bool:
        """Whether it ended all done or all undone."""
        ends = (WorkflowStatus.COMPLETED, WorkflowStatus.ROLLED_BACK)
        return self.workflow.status in ends and not self.left and not self.broken

    @property
    def keeps_the_promise(self) -> bool:
        """Whether it ended so, or visibly in `error` for a person."""
        return self.good or (self.workflow.status is WorkflowStatus.ERROR and not self.broken)


def simulate(definition: Definition, scenario: Scenario, samples: Samples | None = None) -> Run:
    """Run one workflow to its end, or until nothing more would happen."""
    samples = samples or Samples(definition, scenario.outputs, scenario.input)
    return _Simulation(_with_children_as_calls(definition), scenario, samples).run()


def _with_children_as_calls(definition: Definition) -> Definition:
    """A child is one call here, which can be undone; simulate its own definition by itself."""
    if not any(step.child for step in definition.steps):
        return definition
    steps = tuple(
        dataclasses.replace(step, child=None, compensation=Compensation("/child"))
        if step.child
        else step
        for step in definition.steps
    )
    return dataclasses.replace(definition, steps=steps)


class _Simulation:
    """One run while it is under way."""

    def __init__(self, definition: Definition, scenario: Scenario, samples: Samples) -> None:
        self._definition = definition
        self._scenario = scenario
        self._samples = samples
        self._services = Services(definition, samples.outputs(), scenario.faults)
        self._now = self._changed_at = EPOCH
        self._plan: list[tuple[datetime, int, Callable[[], None]]] = []
        self._planned = 0
        self._lines: list[Line] = []
        self._broken: dict[str, None] = {}
        self._undone: list[str] = []
        self._asked_for: set[StepKey] = set()
        self._stands: dict[InLine, Stand] = {}
        self._cancelled = False
        skipped = {one.step for one in scenario.faults if one.kind is FaultKind.SKIPPED}
        self._false = {
            id(step.when) for step in definition.steps if step.name in skipped and step.when
        }
        self._render: Render = self._rendered
        new = NewWorkflow(WorkflowId("00000000-0000-4000-8000-000000000000"), samples.input())
        began = start(definition, new, now=self._now, render=self._render, actor="simulation")
        self._workflow = began.workflow
        self._look(began)

    def run(self) -> Run:
        """Let everything happen that will."""
        for signal in self._scenario.signals:
            event = SignalSent(signal.name, signal.payload, actor="simulation")
            self._at(EPOCH + signal.at, partial(self._apply, event))
        if self._scenario.cancel_at is not None:
            self._at(EPOCH + self._scenario.cancel_at, self._cancel)
        if self._workflow.deadline_at is not None:
            self._at(self._workflow.deadline_at, self._deadline)
        for _ in range(MOST_EVENTS):
            if not self._plan or self._plan[0][0] - EPOCH > LONGEST:
                break
            self._now, _, happen = heapq.heappop(self._plan)
            happen()
        return self._result()

    # -- what happens -------------------------------------------------------------------------

    def _at(self, when: datetime, happen: Callable[[], None]) -> None:
        self._planned += 1
        heapq.heappush(self._plan, (max(when, self._now), self._planned, happen))

    def _deadline(self) -> None:
        self._apply(DeadlinePassed())
        deferred = self._workflow.deadline_at
        if deferred is not None and deferred > self._now:
            self._at(deferred, self._deadline)

    def _apply(self, event: Event) -> None:
        try:
            changes = advance(
                self._definition, self._workflow, event, now=self._now, render=self._render
            )
        except IllegalTransition as error:
            if not isinstance(event, DeadlinePassed):
                self._say("refused", f"{type(event).__name__}: {error.message}")
            return
        self._workflow = changes.workflow
        if changes.verdict is Verdict.DUPLICATE:
            self._say("duplicate", "an answer that was applied before changes nothing")
        self._look(changes)

    def _look(self, changes: Changes) -> None:
        """Write down what happened, and plan what follows from it."""
        if changes.writes:
            self._changed_at = self._now
        for one in changes.events:
            self._line(one)
            key = StepKey(one.step or "", one.index)
            undone = one.kind == "compensation" and one.after == StepStatus.COMPENSATED
            if undone and self._workflow.steps[key].fan is None:
                self._undone.append(str(key))
        for wrong in violations(self._definition, self._workflow):
            self._broken[wrong] = None
        self._take_turns(changes)
        for step in changes.steps:
            here = self._workflow.steps[step.key]
            if can_be_claimed(here):
                due = here.due_at or self._now
                self._at(due, partial(self._claim, step.key))
            elif here.status is StepStatus.WAITING or here.awaiting:
                self._wait(here)

    def _take_turns(self, changes: Changes) -> None:
        """Keep who waits for a place and who has one; nobody but this workflow wants any."""
        for one in changes.turns:
            self._stands.pop(one.who, None)  # the newest stands at the end
            if one.standing is not Standing.NONE:
                self._stands[one.who] = one
        if changes.turns:
            wrong = misplaced(self._definition, self._workflow, self._standing)
            for turn in {one.turn for one in changes.turns}:
                wrong += crowded(one for one in self._stands.values() if one.turn == turn)
            self._broken |= dict.fromkeys(wrong)
            self._at(self._now, self._admit)

    def _standing(self, turn: TurnKey, who: InLine) -> Standing:
        stand = self._stands.get(who)
        return stand.standing if stand is not None and stand.turn == turn else Standing.NONE

    def _admit(self) -> None:
        """Admit those for whom there is a place, the oldest first."""
        for one in list(self._stands.values()):
            others = (other for other in self._stands.values() if other.turn == one.turn)
            placed = sum(other.standing is Standing.HAS_PLACE for other in others)
            waits = one.standing is Standing.WAITS and self._stands.get(one.who) is one
            if waits and placed < one.limit:
                self._apply(Admitted(one.who.step))

    def _wait(self, step: Step) -> None:
        if step.awaiting and step.lease_until is not None:
            self._lease_of(step)
        elif step.due_at is not None:
            self._at(step.due_at, partial(self._apply, TimerFired(step.key)))
        wait = self._definition.by_name[step.key.step].wait
        if wait is None or wait.signal is None or step.key in self._asked_for:
            return
        planned = any(one.name == wait.signal for one in self._scenario.signals)
        if not planned and not self._services.has(step.key, FaultKind.SIGNAL_LOST):
            self._asked_for.add(step.key)
            payload = self._samples.payload(step.key.step)
            event = SignalSent(wait.signal, payload, actor="simulation")
            self._at(self._now + SIGNAL_AFTER, partial(self._signal, step.key, event))

    def _signal(self, key: StepKey, event: SignalSent) -> None:
        if self._workflow.steps[key].status is StepStatus.WAITING:
            self._apply(event)

    def _claim(self, key: StepKey) -> None:
        """Claim a step that is due, and call its service."""
        step = self._workflow.steps[key]
        if not can_be_claimed(step) or (step.due_at or self._now) > self._now:
            return
        self._workflow = claimed(self._workflow, key, self._now)
        held = self._workflow.steps[key]
        self._lease_of(held)
        action, attempt = held.action, held.run.attempt
        for reply in self._services.call(held):
            event = Answered(key, action, attempt, reply.outcome)
            self._at(self._now + reply.after, partial(self._apply, event))
        if self._services.has(key, *CANCELS) and not self._cancelled:
            self._at(self._now + LATENCY / 2, self._cancel)

    def _lease_of(self, step: Step) -> None:
        event = LeaseEnded(step.key, step.action, step.run.attempt)
        until = step.lease_until or self._now
        self._at(until, partial(self._end_lease, event, until))

    def _end_lease(self, event: LeaseEnded, until: datetime) -> None:
        if self._workflow.steps[event.step].lease_until == until:  # else it was made longer
            self._apply(event)

    def _cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self._apply(CancelRequested(actor="simulation"))

    def _rendered(self, template: Template, scope: Scope) -> JsonText:
        return JsonText("false") if id(template) in self._false else render(template, scope)

    # -- what is told -------------------------------------------------------------------------

    def _say(self, what: str, text: str) -> None:
        self._lines.append(Line(self._now - EPOCH, what, text))

    def _line(self, one: HistoryEvent) -> None:
        what = one.kind if one.step is None else str(StepKey(one.step, one.index))
        if one.kind == "compensation":
            what = f"undo {what}"
        moved = f"{one.before} -> {one.after}  " if one.before and one.after else ""
        if one.step is not None and one.kind not in ("step", "compensation"):
            moved = f"{one.kind}  "
        attempt = f", attempt {one.attempt}" if one.attempt else ""
        self._lines.append(Line(one.time - EPOCH, what, f"{moved}{one.cause}{attempt}"))

    def _result(self) -> Run:
        workflow = self._workflow
        over = workflow.status in WORKFLOW_ENDS
        self._lines.sort(key=lambda line: line.after)
        return Run(
            workflow=workflow,
            took=self._changed_at - EPOCH,
            timeline=tuple(self._lines),
            undone=tuple(self._undone),
            left=tuple(str(key) for key in self._left()),
            waits_for=() if over else tuple(waiting_on(self._definition, workflow, self._now)),
            broken=tuple(self._broken),
            faults=self._scenario.faults,
        )

    def _left(self) -> list[StepKey]:
        """Effects that are there, though the workflow does not count them as done."""
        completed = self._workflow.status is WorkflowStatus.COMPLETED
        return [
            key
            for key in self._services.effects
            if key not in self._services.undone
            and not self._definition.by_name[key.step].no_effect
            and not (completed and self._succeeded(key))
        ]

    def _succeeded(self, key: StepKey) -> bool:
        return self._workflow.steps[key].status is StepStatus.SUCCEEDED
