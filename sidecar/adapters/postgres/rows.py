"""From rows to the saga's values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec
import orjson

from sidecar.ports.records import StoredLetter
from sidecar.ports.store import Claimed
from sidecar.saga.changes import HistoryEvent, Letter
from sidecar.saga.events import Told
from sidecar.saga.states import Action, Reason, StepStatus, WorkflowStatus
from sidecar.saga.turns import InLine, TurnKey
from sidecar.saga.workflow import (
    DefinitionRef,
    Fan,
    Parent,
    Run,
    Signal,
    Step,
    StepKey,
    Turn,
    Workflow,
    WorkflowId,
)

Row = Mapping[str, Any]
Answered = tuple[Any, ...]
"""A row of the block `answer` in `writing.sql`; its columns go by their places, since there are
many and each claim brings two or three."""


def step_of(row: Row) -> Step:
    """Return the step of a row; bodies only where the row has them."""
    return Step(
        key=StepKey(row["step"], row["idx"]),
        service=row["service"],
        status=StepStatus(row["status"]),
        execute=Run(
            row["attempt"],
            row["tries"],
            row["closed"],
            row["answered"],
            row["started_at"],
            row["claimed_at"],
            row["ended_at"],
        ),
        compensate=Run(
            row["comp_attempt"],
            row["comp_tries"],
            row["comp_closed"],
            row["comp_answered"],
            row["comp_started_at"],
            row["comp_claimed_at"],
            row["comp_ended_at"],
        ),
        may_have_effect=row["may_have_effect"],
        due_at=row["due_at"],
        lease_until=row["lease_until"],
        call_ms=row["call_ms"],
        stored=True,
        awaiting=row["awaiting"],
        doubt_at=row["doubt_at"],
        fan=_fan(row["fan"]),
        turn=row["turn"],
        input=row.get("input"),
        output=row.get("output"),
        error=row.get("error"),
        compensation_input=row.get("comp_input"),
        compensation_output=row.get("comp_output"),
        compensation_error=row.get("comp_error"),
        origin=row.get("origin"),
    )


def item_of(row: Row) -> Step:
    """Return an item, pending if it has only an element as yet."""
    if row["status"] is None:
        return Step(StepKey(row["step"], row["idx"]), "", input=row["input"])
    return step_of(row)


def workflow_of(row: Row, steps: Iterable[Step] = ()) -> Workflow:
    """Return the workflow of a row."""
    reason = row["reason"]
    return Workflow(
        id=WorkflowId(row["id"]),
        definition=DefinitionRef(row["namespace"], row["definition"], row["version"]),
        status=WorkflowStatus(row["status"]),
        created_at=row["created_at"],
        steps={step.key: step for step in steps},
        reason=Reason(reason) if reason else None,
        paused=row["paused"],
        revision=row["revision"],
        last_seq=row["last_seq"],
        deadline_at=row["deadline_at"],
        ended_at=row["ended_at"],
        labels=row.get("labels") or {},
        start_key=row.get("start_key"),
        trace=row["trace"],
        parent=_parent(
            row["parent_id"], row["parent_step"], row["parent_idx"], row["root_id"], row["depth"]
        ),
        turn=_turn(row["turn"], row["turn_limit"]),
        last_signal=row["last_signal"],
        owes_since=row["owes_since"],
        taken_over_by=row["taken_over_by"],
        input=row.get("input"),
        output=row.get("output"),
        error=row.get("error"),
    )


def event_of(row: Row) -> HistoryEvent:
    """Return one line of history."""
    action = row["action"]
    return HistoryEvent(
        seq=row["seq"],
        time=row["time"],
        kind=row["kind"],
        cause=row["cause"],
        actor=row["actor"],
        step=row["step"],
        index=row["idx"],
        action=Action(action) if action else None,
        before=row["before"],
        after=row["after"],
        attempt=row["attempt"],
        details=row["details"],
    )


def signal_of(row: Row) -> Signal:
    """Return a signal that was kept."""
    return Signal(
        row["number"], row["name"], row["payload"], row["actor"], row["reason"], row["sent_at"]
    )


def _parent(known: str | None, step: str, index: int, root: str, depth: int) -> Parent | None:
    if known is None:
        return None
    return Parent(WorkflowId(known), StepKey(step, index), WorkflowId(root), depth)


def _turn(key: str | None, limit: int) -> Turn | None:
    return None if key is None else Turn(key, limit)


def in_line_of(row: Row) -> InLine:
    """Return who waits for a place, or has one."""
    step = StepKey(row["step"], row["idx"]) if row["step"] else None
    return InLine(WorkflowId(row["id"]), step)


def turn_key_of(row: Row) -> TurnKey:
    """Return who share places."""
    return TurnKey(row["namespace"], row["definition"], row["turn"], row["turn_step"])


def letter_of(row: Row) -> StoredLetter:
    """Return a letter that was kept."""
    event = msgspec.json.decode(row["event"], type=Told)
    letter = Letter(WorkflowId(row["recipient"]), event)
    return StoredLetter(WorkflowId(row["sender"]), row["revision"], letter)


def _fan(text: str | None) -> Fan | None:
    return None if text is None else msgspec.json.decode(text, type=Fan)


def held_step(row: Answered) -> Step:
    """Return the step of a row of the block `answer`: one that is held, or one beside it."""
    return Step(
        key=StepKey(row[4], row[5]),
        service=row[6],
        status=StepStatus(row[7]),
        execute=Run(*row[12:19]),
        compensate=Run(*row[19:26]),
        may_have_effect=row[8],
        due_at=row[10],
        lease_until=row[11],
        call_ms=row[9],
        stored=True,
        awaiting=row[44],
        doubt_at=row[45],
        fan=_fan(row[46]),
        turn=row[57],
        output=row[26],
        origin=row[58],
    )


def held_workflow(row: Answered, steps: Collection[Step]) -> Workflow:
    """Return the workflow of a row that tells of a step held."""
    return Workflow(
        id=WorkflowId(row[3]),
        definition=DefinitionRef(row[30], row[31], row[32]),
        status=WorkflowStatus(row[33]),
        created_at=row[38],
        steps={step.key: step for step in steps},
        reason=Reason(row[34]) if row[34] else None,
        paused=row[35],
        revision=row[36],
        last_seq=row[37],
        deadline_at=row[39],
        ended_at=row[40],
        trace=row[41],
        parent=_parent(*row[49:54]),
        turn=_turn(*row[54:56]),
        last_signal=row[48],
        owes_since=row[56],
        partial=any(step.fan is not None for step in steps),
        input=row[43],
    )


def whole_workflows(found: Iterable[Answered]) -> dict[WorkflowId, Workflow]:
    """Return the workflows of the rows of `get_workflows`, with their steps and all bodies."""
    heads: dict[WorkflowId, Answered] = {}
    steps: dict[WorkflowId, dict[StepKey, Step]] = {}
    for row in found:
        known = WorkflowId(row[0])
        mine = steps.setdefault(known, {})
        if known not in heads or row[43] is not None:
            heads[known] = row
        if row[1] is not None:
            step = _whole_step(row)
            mine[step.key] = step
    return {known: _whole_workflow(row, steps[known]) for known, row in heads.items()}


def _whole_step(row: Answered) -> Step:
    return Step(
        StepKey(row[1], row[2]),
        row[3],
        StepStatus(row[4]),
        Run(*row[9:16]),
        Run(*row[16:23]),
        row[5],
        row[7],
        row[8],
        row[6],
        True,
        row[46],
        row[47],
        _fan(row[48]),
        row[58],
        row[23],
        row[24],
        row[25],
        row[26],
        row[27],
        row[28],
        row[60],
    )


def _whole_workflow(row: Answered, steps: Mapping[StepKey, Step]) -> Workflow:
    return Workflow(
        WorkflowId(row[0]),
        DefinitionRef(row[29], row[30], row[31]),
        WorkflowStatus(row[32]),
        row[33],
        steps,
        reason=Reason(row[34]) if row[34] else None,
        paused=row[35],
        revision=row[36],
        last_seq=row[37],
        deadline_at=row[38],
        ended_at=row[39],
        labels=orjson.loads(row[40]),
        start_key=row[41],
        trace=row[42],
        parent=_parent(*row[50:55]),
        turn=_turn(*row[55:57]),
        last_signal=row[49],
        owes_since=row[57],
        taken_over_by=row[59],
        partial=any(step.fan is not None for step in steps.values()),
        input=row[43],
        output=row[44],
        error=row[45],
    )


def claimed_of(row: Answered, step: Step, workflow: Workflow) -> Claimed:
    """Return a claim from the row of the step that is held."""
    undoing = step.status is StepStatus.COMPENSATING
    run = step.run
    text = row[29] if row[29] is not None else workflow.input
    if run.claimed_at is None or text is None:
        raise AssertionError(f"step {step.key} is held and was never claimed")
    return Claimed(
        workflow=workflow.id,
        definition=workflow.definition,
        key=step.key,
        action=step.action,
        attempt=run.attempt,
        tries=run.tries,
        call_ms=step.call_ms,
        claimed_at=run.claimed_at,
        input=text,
        output=step.output if undoing else None,
        succeeded=undoing and row[28],
        compensation_input=row[27] if undoing else None,
        reason=workflow.reason,
        trace=workflow.trace,
        origin=step.origin,
    )
