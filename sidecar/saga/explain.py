"""What a workflow waits for, when it moves next, and what went wrong last: in words.

For the person who asks at night why nothing moves. Everything is read off the state.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

from sidecar.saga.bodies import NOT_OFFERED
from sidecar.saga.children import id_of
from sidecar.saga.definition import Definition, JsonText, StepDefinition
from sidecar.saga.states import CLAIMABLE, OPEN, Action, StepStatus, WorkflowStatus
from sidecar.saga.turns import TurnKey, limit_of, turn_of, waits_for_turn
from sidecar.saga.workflow import NO_INDEX, Fan, Step, StepKey, Workflow

_NOTHING_LEFT = frozenset({WorkflowStatus.COMPLETED, WorkflowStatus.ROLLED_BACK})
"""Ends at which no step waits for anything, so that none is looked at."""


def waiting_on(
    definition: Definition,
    workflow: Workflow,
    now: datetime,
    promised: Collection[StepKey] = (),
    holders: Mapping[TurnKey, Sequence[str]] = MappingProxyType({}),
) -> list[str]:
    """Return one line for each thing that has to happen next; empty at an end.

    `promised` are the steps that wait for a turn which a rate limit has given them; `holders` name
    who has the places that others wait for, as far as it is known.
    """
    if workflow.status in _NOTHING_LEFT:
        return []
    if workflow.paused:
        return ["paused: an operator must resume it"]
    turn = turn_of(workflow)
    if workflow.status is WorkflowStatus.QUEUED and turn is not None:
        return [_in_line(turn, limit_of(definition, workflow, turn), holders)]
    lines = [
        line
        for step in _in_order(definition, workflow)
        for line in (
            [_held(step)]
            if step.key in promised and _is_put_off(step, now)
            else _in_turn(definition, workflow, step, holders)
            or _of_step(definition.by_name[step.key.step], workflow, step, now)
        )
    ]
    items = Counter(key.step for key in promised if key.index != NO_INDEX)
    lines += [
        f"{step}: {count} items wait for the rate limit of their action"
        for step, count in sorted(items.items())
    ]
    if workflow.status is WorkflowStatus.ERROR:
        lines.append("error: an operator must act")
    return lines


def may_be_held(step: Step, now: datetime) -> bool:
    """Whether a step, or some of its items, may wait for a turn that a rate limit gives them."""
    return _is_put_off(step, now) or (step.fan is not None and step.status in OPEN)


def _is_put_off(step: Step, now: datetime) -> bool:
    later = step.due_at is not None and step.due_at > now
    return later and step.status in CLAIMABLE and not step.leased


def _held(step: Step) -> str:
    until = step.due_at.isoformat() if step.due_at else "?"
    return f"{step.key}: {step.action} waits for the rate limit of its action until {until}"


def not_offered(step: Step) -> str | None:
    """Say why its call was not made, if the last sidecar that had the step does not offer it."""
    error = step.compensation_error if step.action is Action.COMPENSATE else step.error
    if error is None or NOT_OFFERED not in error:
        return None
    told = json.loads(error)
    return str(told["message"]) if told["code"] == NOT_OFFERED else None


def next_attempt_at(workflow: Workflow) -> datetime | None:
    """Return when the next call may be made, if one is waiting for its time."""
    times = [step.due_at for step in workflow.steps.values() if step.due_at and not step.leased]
    return min(times, default=None)


def last_error(workflow: Workflow) -> JsonText | None:
    """Return the newest error of any step, else the workflow's own."""
    newest: tuple[datetime, JsonText] | None = None
    for step in workflow.steps.values():
        for run, error in (
            (step.execute, step.error),
            (step.compensate, step.compensation_error),
        ):
            moment = run.claimed_at or workflow.created_at
            if error and (newest is None or moment >= newest[0]):
                newest = (moment, error)
    return newest[1] if newest else workflow.error


def _in_order(definition: Definition, workflow: Workflow) -> list[Step]:
    place = {step.name: number for number, step in enumerate(definition.steps)}
    return sorted(
        workflow.steps.values(), key=lambda step: (place.get(step.key.step, 0), step.key.index)
    )


def _of_step(defined: StepDefinition, workflow: Workflow, step: Step, now: datetime) -> list[str]:
    action = step.action
    what = f"{step.key}: {action}"
    if step.awaiting:
        until = step.lease_until.isoformat() if step.lease_until else "?"
        return [f"{what} attempt {step.run.attempt} is to be answered by a callback until {until}"]
    if step.leased:
        return [f"{what} attempt {step.run.attempt} is being made by service {step.service}"]
    if step.status is StepStatus.COMPENSATION_FAILED:
        return [f"{what} failed for good"]
    if step.fan is not None and step.status in OPEN:
        return [f"{what} of {_items(step.fan, step.status)}{_in_turns(defined, step)}"]
    if defined.child is not None and step.status in OPEN:
        undo = " to be undone" if step.status is StepStatus.COMPENSATING else ""
        return [f"{step.key}: waits for its child {id_of(workflow.id, step)}{undo}"]
    if step.status is StepStatus.WAITING:
        return [f"{step.key}: {_waits(defined, step)}"]
    if step.status not in CLAIMABLE:
        return []
    if step.due_at is not None and _is_put_off(step, now):
        due = f"{what} attempt {step.run.attempt + 1} is due at {step.due_at.isoformat()}"
        told = not_offered(step)
        return [f"{due}: {told}" if told else due]
    undo = " to undo it" if action is Action.COMPENSATE else ""
    return [f"{what} waits for a sidecar of service {step.service}{undo}"]


def _in_turn(
    definition: Definition, workflow: Workflow, step: Step, holders: Mapping[TurnKey, Sequence[str]]
) -> list[str]:
    turn = turn_of(workflow, step)
    if turn is None or not waits_for_turn(step):
        return []
    limit = limit_of(definition, workflow, turn)
    return [f"{step.key}: {step.action} {_in_line(turn, limit, holders)}"]


def _in_line(turn: TurnKey, limit: int, holders: Mapping[TurnKey, Sequence[str]]) -> str:
    told = f"waits for its turn: {limit} at a time with the key {turn.key}"
    having = holders.get(turn)
    return f"{told}, now {', '.join(having)}" if having else told


def _in_turns(defined: StepDefinition, step: Step) -> str:
    """What may hold up items besides their service: their own lines tell which it does."""
    if defined.concurrency is None or step.status is StepStatus.COMPENSATING:
        return ""
    return f"; they take turns, {defined.concurrency.limit} at a time with the same key"


def _items(fan: Fan, status: StepStatus) -> str:
    if status is StepStatus.COMPENSATING:
        lost = f", {fan.kept} could not be undone" if fan.kept else ""
        return f"{fan.undoing} items is under way{lost}"
    failed = f", {fan.failed} failed" if fan.failed else ""
    return f"{fan.open} of {fan.total} items is under way, {fan.total - fan.opened} wait{failed}"


def _waits(defined: StepDefinition, step: Step) -> str:
    until = f" until {step.due_at.isoformat()}" if step.due_at else ""
    if defined.wait is not None and defined.wait.signal is not None:
        return f"waits for the signal {defined.wait.signal}{until}"
    return f"waits{until}"
