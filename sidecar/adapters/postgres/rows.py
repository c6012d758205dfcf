"""Between rows and the saga's values.

What is written goes over as one JSON array of records for each table: a whole batch is one
parameter. Bodies are strings in it, so that they arrive as they were and a bad one is an error
of its own value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from sidecar.errors import StoreDataError
from sidecar.ports.store import Batch, Claimed
from sidecar.saga.changes import HistoryEvent
from sidecar.saga.definition import JsonText
from sidecar.saga.states import Action, Reason, StepStatus, WorkflowStatus
from sidecar.saga.workflow import DefinitionRef, Run, Step, StepKey, Workflow, WorkflowId

Row = Mapping[str, Any]

_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


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
        input=row.get("input"),
        output=row.get("output"),
        error=row.get("error"),
        compensation_input=row.get("comp_input"),
        compensation_output=row.get("comp_output"),
        compensation_error=row.get("comp_error"),
    )


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
    )


def claimed_of(row: Row) -> Claimed:
    """Return a claim from what claiming returned."""
    undoing = row["status"] == StepStatus.COMPENSATING
    reason = row["reason"]
    return Claimed(
        workflow=WorkflowId(row["workflow_id"]),
        definition=DefinitionRef(row["namespace"], row["definition"], row["version"]),
        key=StepKey(row["step"], row["idx"]),
        action=Action.COMPENSATE if undoing else Action.EXECUTE,
        attempt=row["comp_attempt"] if undoing else row["attempt"],
        tries=row["comp_tries"] if undoing else row["tries"],
        call_ms=row["call_ms"],
        claimed_at=row["comp_claimed_at"] if undoing else row["claimed_at"],
        input=row["input"],
        output=row["output"] if undoing else None,
        succeeded=undoing and row["succeeded"],
        compensation_input=row["comp_input"] if undoing else None,
        reason=Reason(reason) if reason else None,
        trace=row["trace"],
    )


def new_workflow_record(workflow: Workflow) -> dict[str, Any]:
    """Return what the row of a new workflow is to hold."""
    return {
        **moved_workflow_record(workflow),
        "namespace": workflow.definition.namespace,
        "definition": workflow.definition.name,
        "version": workflow.definition.version,
        "created_at": workflow.created_at,
        "labels": dict(workflow.labels),
        "start_key": workflow.start_key,
        "trace": workflow.trace,
        "input": body(workflow.input),
    }


def moved_workflow_record(workflow: Workflow) -> dict[str, Any]:
    """Return what a transition may change in a workflow's row; a body of None stays as it was."""
    return {
        "id": workflow.id,
        "status": workflow.status,
        "reason": workflow.reason,
        "revision": workflow.revision,
        "last_seq": workflow.last_seq,
        "deadline_at": workflow.deadline_at,
        "ended_at": workflow.ended_at,
        "output": body(workflow.output),
        "error": body(workflow.error),
    }


def step_record(
    workflow: Workflow, step: Step, *, succeeded: bool, holder: Batch | None
) -> dict[str, Any]:
    """Return what a step's row is to hold; a body that is None stays as it was.

    `holder` is the batch that has just claimed the step, if one has.
    """
    run, undo = step.execute, step.compensate
    return {
        "workflow_id": workflow.id,
        "step": step.key.step,
        "idx": step.key.index,
        "namespace": workflow.definition.namespace,
        "service": step.service,
        "status": step.status,
        "may_have_effect": step.may_have_effect,
        "call_ms": step.call_ms,
        "due_at": step.due_at,
        "lease_until": step.lease_until,
        "owner": holder.incarnation if holder else None,
        "ticket": holder.ticket if holder else None,
        "attempt": run.attempt,
        "tries": run.tries,
        "closed": run.closed,
        "answered": run.answered,
        "started_at": run.started_at,
        "claimed_at": run.claimed_at,
        "ended_at": run.ended_at,
        "succeeded": succeeded,
        "comp_attempt": undo.attempt,
        "comp_tries": undo.tries,
        "comp_closed": undo.closed,
        "comp_answered": undo.answered,
        "comp_started_at": undo.started_at,
        "comp_claimed_at": undo.claimed_at,
        "comp_ended_at": undo.ended_at,
        "input": body(step.input),
        "output": body(step.output),
        "error": body(step.error),
        "comp_input": body(step.compensation_input),
        "comp_output": body(step.compensation_output),
        "comp_error": body(step.compensation_error),
    }


def event_record(workflow: Workflow, event: HistoryEvent) -> dict[str, Any]:
    """Return what an event's row is to hold."""
    return {
        "workflow_id": workflow.id,
        "seq": event.seq,
        "time": event.time,
        "kind": event.kind,
        "cause": event.cause,
        "actor": event.actor,
        "step": event.step,
        "idx": event.index,
        "action": event.action,
        "before": event.before,
        "after": event.after,
        "attempt": event.attempt,
    }


def body(text: JsonText | None) -> JsonText | None:
    """Return a body that can be kept. Raises `StoreDataError` for NUL, which JSON may escape."""
    if text is not None and "\\u0000" in text and _ESCAPED_NUL.search(text):
        raise StoreDataError("the character NUL cannot be stored")
    return text


def packed(records: list[dict[str, Any]]) -> str:
    """Return records as the JSON array that the writing statements take."""
    try:
        return orjson.dumps(records).decode()
    except (TypeError, UnicodeEncodeError) as error:
        raise StoreDataError(f"a record cannot be encoded: {error}") from error
