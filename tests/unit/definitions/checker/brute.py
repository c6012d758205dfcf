"""All that a definition can come to, the slow way: every event in every order, nothing left out.

Claims, releases, tries, callbacks, questions about an outcome, leases that end, the deadline and
signals that come early are all moves of their own here. Only times are left out of a state.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from msgspec.structs import replace

from sidecar.definitions.checker.abstraction import EPOCH, Choices, Roles, every_choice
from sidecar.definitions.checker.claims import can_be_claimed, claimed
from sidecar.definitions.checker.exploring import Flaw, flaws
from sidecar.errors import IllegalTransition
from sidecar.saga.changes import Changes
from sidecar.saga.definition import Definition, JsonText, Render
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
from sidecar.saga.invariants import violations
from sidecar.saga.machine import NewWorkflow, advance, start
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.states import WORKFLOW_ENDS, Action, StepStatus, WorkflowStatus
from sidecar.saga.turns import waits_for_turn
from sidecar.saga.workflow import Step, StepKey, Workflow, WorkflowId

K = OutcomeKind
MOST_STATES = 3_000


class State(NamedTuple):
    workflow: Workflow
    choices: Choices


class TooMany(Exception):
    """There are too many states to look at all of them."""


def outcomes(definition: Definition, workflow: Workflow, step: Step) -> list[Outcome]:
    """Every answer that is not assumed away."""
    defined = definition.by_name[step.key.step]
    done = Outcome(K.DONE, output=JsonText("{}"))
    later = [Outcome(K.RELEASED), Outcome(K.UNKNOWN), Outcome(K.PENDING)]
    if step.action is Action.COMPENSATE:
        return [done, *later]
    no = [Outcome(K.REFUSED), Outcome(K.UNUSABLE), Outcome(K.MISCONFIGURED)]
    if step.action is Action.STATUS:
        return [done, Outcome(K.REFUSED), Outcome(K.PENDING), Outcome(K.RELEASED)]
    if workflow.turning_back:
        return [done, *later, *no]
    if defined.pivot:
        return [done, *later, *([] if step.may_have_effect else [Outcome(K.REFUSED)])]
    room = False
    if step.is_item and defined.fan_out is not None:
        fan = workflow.steps[StepKey(defined.name)].fan
        assert fan is not None
        room = fan.failed < defined.fan_out.tolerated
    if definition.past_pivot(defined.name) and not defined.optional and not room:
        return [done, *later]
    return [done, *later, *no]


def events(definition: Definition, workflow: Workflow) -> Iterator[tuple[Workflow, Event]]:
    """Whatever may happen now, and the workflow it happens to."""
    for step in workflow.steps.values():
        if step.leased:
            action = Action.EXECUTE if step.awaiting else step.action
            action = step.action if step.status is StepStatus.COMPENSATING else action
            for outcome in outcomes(definition, workflow, step):
                yield workflow, Answered(step.key, action, step.run.attempt, outcome)
            if step.awaiting and not definition.by_name[step.key.step].pivot:
                yield workflow, LeaseEnded(step.key, step.action, step.run.attempt)
        elif step.status is StepStatus.WAITING and step.due_at is not None:
            yield workflow, TimerFired(step.key)
        elif waits_for_turn(step):
            yield workflow, Admitted(step.key)
    for name in sorted(definition.signals):
        waits = [one for one in definition.steps if one.wait and one.wait.signal == name]
        over = sum(
            one.name in {key.step for key in workflow.steps}
            and workflow.steps[StepKey(one.name)].status is not StepStatus.WAITING
            for one in waits
        )
        if sum(one.name == name for one in workflow.signals) < len(waits) - over:
            yield workflow, SignalSent(name, JsonText("{}"))
    yield workflow, CancelRequested()
    if workflow.deadline_at is not None:
        yield workflow, DeadlinePassed()


def found(definition: Definition) -> set[tuple[Flaw, str]]:
    """Every flaw of an abstract definition. Raises `TooMany`."""
    roles = Roles(definition)
    seen: set[object] = set()
    flawed: set[tuple[Flaw, str]] = set()
    stack: list[State] = []

    def reach(state: State) -> None:
        key = _key(state)
        if key in seen:
            return
        seen.add(key)
        if len(seen) > MOST_STATES:
            raise TooMany
        wrong = violations(definition, state.workflow)
        assert not wrong, wrong
        flawed.update(flaws(definition, state.workflow))
        stack.append(state)

    def begin(render: Render) -> Changes:
        new = NewWorkflow(WorkflowId("w"), JsonText("{}"))
        return start(definition, new, now=EPOCH, render=render)

    for oracle, changes in every_choice(roles, (), begin):
        reach(State(changes.workflow, oracle.remembered))
    while stack:
        state = stack.pop()
        if _is_over(state.workflow):
            continue
        after = list(_after(definition, roles, state))
        for one in after:
            reach(one)
        broken = state.workflow.status is WorkflowStatus.ERROR
        if not after and not broken:
            flawed.add((Flaw.LIMBO, ""))
    return flawed


def _is_over(workflow: Workflow) -> bool:
    ahead = workflow.status is WorkflowStatus.ERROR and not workflow.turning_back
    return workflow.status in WORKFLOW_ENDS or ahead


def _after(definition: Definition, roles: Roles, state: State) -> Iterator[State]:
    workflow = state.workflow
    for step in workflow.steps.values():
        if can_be_claimed(step):
            yield State(claimed(workflow, step.key, EPOCH), state.choices)
    for held, event in events(definition, workflow):
        now = EPOCH
        if isinstance(event, TimerFired):
            now = held.steps[event.step].due_at or EPOCH
        elif isinstance(event, DeadlinePassed):
            now = held.deadline_at or EPOCH

        def run(render: Render, event: Event = event, now: datetime = now) -> Changes:
            return advance(definition, workflow, event, now=now, render=render)

        try:
            tries = list(every_choice(roles, state.choices, run))
        except IllegalTransition:
            continue
        for oracle, changes in tries:
            if changes.writes:
                yield State(_timeless(changes.workflow), oracle.remembered)


def _timeless(workflow: Workflow) -> Workflow:
    """A timer that was set later than it could be is as one set at once."""
    return replace(workflow, revision=0, last_seq=0)


def _key(state: State) -> object:
    workflow = state.workflow
    steps = tuple(
        (
            key,
            one.status,
            one.execute.tries,
            one.execute.attempt > 0,
            one.may_have_effect,
            one.leased,
            one.awaiting,
            one.due_at is not None,
            one.output is not None,
            one.fan,
            one.run.closed == one.run.attempt,
        )
        for key, one in sorted(workflow.steps.items())
    )
    signals = tuple(one.name for one in workflow.signals)
    return (workflow.status, workflow.reason, signals, workflow.deadline_at, state.choices, steps)
