"""From the saga's values to what is written.

It goes over as one JSON array of records for each table: a whole batch is one parameter. Bodies
are strings in it, so that they arrive as they were and a bad one is an error of its own value.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import asdict

from sidecar.errors import StoreDataError
from sidecar.ports.store import LetterId
from sidecar.saga.changes import HistoryEvent, Letter, NewItems
from sidecar.saga.definition import JsonText
from sidecar.saga.states import Action, Reason, StepStatus, WorkflowStatus
from sidecar.saga.turns import Stand, Standing, TurnKey
from sidecar.saga.workflow import NO_INDEX, Parent, Signal, Step, StepKey, Workflow, WorkflowId

_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class NewRow(NamedTuple):
    """What only the first row of a workflow is told.

    Of those that wait for their turn, those of a higher `priority` come first.

    `renders` says that its transitions need bodies; `central` that its rollback is looked at again
    and again; `reserve` that its start key is to be taken with it, and that it is not to be written
    without; `checks` that it is not to be written if its version must not be started, and `latest`
    nor if another is the latest.
    """

    renders: bool
    central: bool
    input_hash: str
    reserve: bool
    checks: bool
    latest: bool
    priority: int = 0


def new_workflow_record(workflow: Workflow, new: NewRow) -> dict[str, Any]:
    """Return what the row of a new workflow is to hold."""
    return {
        **asdict(moved_workflow_record(workflow)),
        "namespace": workflow.definition.namespace,
        "definition": workflow.definition.name,
        "version": workflow.definition.version,
        "created_at": workflow.created_at,
        "labels": dict(workflow.labels),
        "start_key": workflow.start_key,
        "trace": workflow.trace,
        "input": body(workflow.input),
        "turn": workflow.turn.key if workflow.turn else None,
        "turn_limit": workflow.turn.limit if workflow.turn else None,
        **_parent(workflow.parent),
        **new._asdict(),
    }


def _parent(parent: Parent | None) -> dict[str, Any]:
    if parent is None:
        return {}
    return {
        "parent_id": parent.workflow,
        "parent_step": parent.step.step,
        "parent_idx": parent.step.index,
        "root_id": parent.root,
        "depth": parent.depth,
    }


def letter_record(workflow: Workflow, letter: Letter) -> dict[str, Any]:
    """Return what the row of a letter is to hold."""
    return {
        "recipient": letter.to,
        "sender": workflow.id,
        "revision": workflow.revision,
        "event": body(JsonText(msgspec.json.encode(letter.event).decode())),
    }


def turn_record(turn: TurnKey) -> dict[str, Any]:
    """Return what names those who share places; `step` is empty for workflows as such."""
    return {
        "namespace": turn.namespace,
        "definition": turn.definition,
        "turn_step": turn.step,
        "turn": turn.key,
    }


def stand_record(stand: Stand) -> dict[str, Any]:
    """Return what the row is to hold of one that waits for a place, or has one."""
    return {
        **stand_key_record(stand),
        **turn_record(stand.turn),
        "turn_limit": stand.limit,
        "priority": stand.priority,
        "since": stand.since,
        "placed": stand.standing is Standing.HAS_PLACE,
    }


def stand_key_record(stand: Stand) -> dict[str, Any]:
    """Return what names one that waits for a place, or has one."""
    step = stand.who.step or StepKey("", NO_INDEX)
    return {"workflow_id": stand.who.workflow, "step": step.step, "idx": step.index}


def letter_id_record(letter: LetterId) -> dict[str, Any]:
    """Return what names a letter."""
    return {"recipient": letter.to, "sender": letter.sender, "revision": letter.revision}


class Record(msgspec.Struct, omit_defaults=True):
    """What one row is told. Fields that hold what they hold by default are left out."""


class WorkflowRecord(Record):
    """What a transition may change in a workflow's row; a body of None stays as it was.

    `expected` and `was_paused` are what was decided on.
    """

    id: WorkflowId
    status: WorkflowStatus
    revision: int
    last_seq: int
    expected: int | None = None
    was_paused: bool = False
    paused: bool = False
    reason: Reason | None = None
    deadline_at: datetime | None = None
    ended_at: datetime | None = None
    kept_signals: int = 0
    last_signal: int = 0
    owes_since: datetime | None = None
    output: JsonText | None = None
    error: JsonText | None = None


def moved_workflow_record(workflow: Workflow, before: Workflow | None = None) -> WorkflowRecord:
    """Return what a transition may change in a workflow's row; `before` is what it started from."""
    return WorkflowRecord(
        id=workflow.id,
        status=workflow.status,
        revision=workflow.revision,
        last_seq=workflow.last_seq,
        expected=before.revision if before else None,
        was_paused=before is not None and before.paused,
        paused=workflow.paused,
        reason=workflow.reason,
        deadline_at=workflow.deadline_at,
        ended_at=workflow.ended_at,
        kept_signals=len(workflow.signals),
        last_signal=workflow.last_signal,
        owes_since=workflow.owes_since,
        output=body(workflow.output),
        error=body(workflow.error),
    )


class StepRecord(Record):
    """What a step's row is to hold; a body of None stays as it was.

    `claim` says that the batch holds the step from now on; the database sets its lease.
    """

    workflow_id: WorkflowId
    step: str
    idx: int
    service: str
    status: StepStatus
    call_ms: int
    may_have_effect: bool = False
    due_at: datetime | None = None
    lease_until: datetime | None = None
    claim: bool = False
    awaiting: bool = False
    doubt_at: datetime | None = None
    turn: JsonText | None = None
    fan: str | None = None
    attempt: int = 0
    tries: int = 0
    closed: int = 0
    answered: int = 0
    started_at: datetime | None = None
    claimed_at: datetime | None = None
    ended_at: datetime | None = None
    succeeded: bool = False
    comp_attempt: int = 0
    comp_tries: int = 0
    comp_closed: int = 0
    comp_answered: int = 0
    comp_started_at: datetime | None = None
    comp_claimed_at: datetime | None = None
    comp_ended_at: datetime | None = None
    input: JsonText | None = None
    output: JsonText | None = None
    error: JsonText | None = None
    comp_input: JsonText | None = None
    comp_output: JsonText | None = None
    comp_error: JsonText | None = None
    origin: WorkflowId | None = None
    priority: int = 0


def step_record(
    workflow: WorkflowId, step: Step, *, succeeded: bool, claim: bool, priority: int = 0
) -> StepRecord:
    """Return what a step's row is to hold; only a new row is told its `priority`."""
    run, undo = step.execute, step.compensate
    return StepRecord(
        workflow_id=workflow,
        step=step.key.step,
        idx=step.key.index,
        service=step.service,
        status=step.status,
        call_ms=step.call_ms,
        may_have_effect=step.may_have_effect,
        due_at=step.due_at,
        lease_until=step.lease_until,
        claim=claim,
        awaiting=step.awaiting,
        doubt_at=step.doubt_at,
        turn=step.turn,
        fan=None if step.fan is None else msgspec.json.encode(step.fan).decode(),
        attempt=run.attempt,
        tries=run.tries,
        closed=run.closed,
        answered=run.answered,
        started_at=run.started_at,
        claimed_at=run.claimed_at,
        ended_at=run.ended_at,
        succeeded=succeeded,
        comp_attempt=undo.attempt,
        comp_tries=undo.tries,
        comp_closed=undo.closed,
        comp_answered=undo.answered,
        comp_started_at=undo.started_at,
        comp_claimed_at=undo.claimed_at,
        comp_ended_at=undo.ended_at,
        input=body(step.input),
        output=body(step.output),
        error=body(step.error),
        comp_input=body(step.compensation_input),
        comp_output=body(step.compensation_output),
        comp_error=body(step.compensation_error),
        origin=step.origin,
        priority=priority,
    )


class EventRecord(Record):
    """What an event's row is to hold."""

    workflow_id: WorkflowId
    seq: int
    time: datetime
    kind: str
    cause: str
    actor: str
    idx: int
    step: str | None = None
    action: Action | None = None
    before: str | None = None
    after: str | None = None
    attempt: int | None = None
    details: JsonText | None = None


def event_record(workflow: WorkflowId, event: HistoryEvent) -> EventRecord:
    """Return what an event's row is to hold."""
    return EventRecord(
        workflow_id=workflow,
        seq=event.seq,
        time=event.time,
        kind=event.kind,
        cause=event.cause,
        actor=event.actor,
        idx=event.index,
        step=event.step,
        action=event.action,
        before=event.before,
        after=event.after,
        attempt=event.attempt,
        details=body(event.details),
    )


def signal_record(workflow: WorkflowId, signal: Signal) -> dict[str, Any]:
    """Return what the row of a signal that is kept is to hold."""
    return {
        "workflow_id": workflow,
        "number": signal.number,
        "name": signal.name,
        "payload": body(signal.payload),
        "actor": signal.actor,
        "reason": signal.reason,
        "sent_at": signal.sent_at,
    }


def items_record(workflow: WorkflowId, new: NewItems) -> dict[str, Any]:
    """Return what the rows of the elements of a fan-out are made from."""
    return {"workflow_id": workflow, "step": new.step, "elements": body(new.elements)}


def body(text: JsonText | None) -> JsonText | None:
    """Return a body that can be kept. Raises `StoreDataError` for NUL, which JSON may escape."""
    if text is not None and "\\u0000" in text and _ESCAPED_NUL.search(text):
        raise StoreDataError("the character NUL cannot be stored")
    return text


def packed(records: Sequence[Record | dict[str, Any]]) -> str:
    """Return records as the JSON array that the writing statements take.

    Fields that hold nothing, zero or false are left out: most do, and reading them is a good part
    of what a batch costs the database.
    """
    kept = [
        one
        if isinstance(one, Record)
        else {name: value for name, value in one.items() if value or value == ""}
        for one in records
    ]
    try:
        return msgspec.json.encode(kept).decode()
    except (TypeError, UnicodeEncodeError) as error:
        raise StoreDataError(f"a record cannot be encoded: {error}") from error
