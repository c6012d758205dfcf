"""Between rows and the saga's values.

What is written goes over as one JSON array of records for each table: a whole batch is one
parameter. Bodies are strings in it, so that they arrive as they were and a bad one is an error
of its own value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from sidecar.errors import StoreDataError
from sidecar.ports.store import Claimed
from sidecar.saga.changes import HistoryEvent
from sidecar.saga.definition import JsonText
from sidecar.saga.states import Action, Reason, StepStatus, WorkflowStatus
from sidecar.saga.workflow import DefinitionRef, Run, Step, StepKey, Workflow, WorkflowId

Row = Mapping[str, Any]
Answered = tuple[Any, ...]
"""A row of the block `answer` in `writing.sql`; its columns go by their places, since there are
many and each claim brings two or three."""


class NewRow(NamedTuple):
    """What only the first row of a workflow is told.

    `renders` says that its transitions need bodies; `reserve` that its start key is to be taken
    with it, and that it is not to be written without; `latest` that it is not to be written if a
    later version of its definition exists.
    """

    renders: bool
    input_hash: str
    reserve: bool
    latest: bool


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
        output=row[26],
    )


def held_workflow(row: Answered, steps: Iterable[Step]) -> Workflow:
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
        *row[23:29],
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
        input=row[43],
        output=row[44],
        error=row[45],
    )


def claimed_of(row: Answered, step: Step, workflow: Workflow) -> Claimed:
    """Return a claim from the row of the step that is held."""
    undoing = step.status is StepStatus.COMPENSATING
    run = step.compensate if undoing else step.execute
    text = row[29] if row[29] is not None else workflow.input
    if run.claimed_at is None or text is None:
        raise AssertionError(f"step {step.key} is held and was never claimed")
    return Claimed(
        workflow=workflow.id,
        definition=workflow.definition,
        key=step.key,
        action=Action.COMPENSATE if undoing else Action.EXECUTE,
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
    )


def new_workflow_record(workflow: Workflow, new: NewRow) -> dict[str, Any]:
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
        **new._asdict(),
    }


def moved_workflow_record(workflow: Workflow, expected: int | None = None) -> dict[str, Any]:
    """Return what a transition may change in a workflow's row; a body of None stays as it was.

    `expected` is the revision that was decided on.
    """
    return {
        "id": workflow.id,
        "expected": expected,
        "paused": workflow.paused,
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
    workflow: WorkflowId, step: Step, *, succeeded: bool, claim: bool
) -> dict[str, Any]:
    """Return what a step's row is to hold; a body that is None stays as it was.

    `claim` says that the batch holds the step from now on; the database sets its lease.
    """
    run, undo = step.execute, step.compensate
    return {
        "workflow_id": workflow,
        "step": step.key.step,
        "idx": step.key.index,
        "service": step.service,
        "status": step.status,
        "may_have_effect": step.may_have_effect,
        "call_ms": step.call_ms,
        "due_at": step.due_at,
        "lease_until": step.lease_until,
        "claim": claim,
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


def event_record(workflow: WorkflowId, event: HistoryEvent) -> dict[str, Any]:
    """Return what an event's row is to hold."""
    return {
        "workflow_id": workflow,
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
    """Return records as the JSON array that the writing statements take.

    Fields that hold nothing, zero or false are left out: most do, and reading them is a good part
    of what a batch costs the database.
    """
    kept = [{name: value for name, value in one.items() if value or value == ""} for one in records]
    try:
        return orjson.dumps(kept).decode()
    except (TypeError, UnicodeEncodeError) as error:
        raise StoreDataError(f"a record cannot be encoded: {error}") from error
