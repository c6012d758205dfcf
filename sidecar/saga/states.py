"""The statuses, and the literal tables of the transitions between them.

Two rules for this file. Everything that decides whether a transition is legal stands here, and
nothing here knows why a transition is asked for: policies, graphs and attempts live elsewhere.

A key that is missing from a table is an illegal transition: `IllegalTransition` is raised and
nothing changes. The diagrams in the documentation are generated from these tables.
"""

from __future__ import annotations

from enum import StrEnum

from sidecar.errors import IllegalTransition


class WorkflowStatus(StrEnum):
    """Where a workflow stands as a whole."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    ERROR = "error"
    TERMINATED = "terminated"


class StepStatus(StrEnum):
    """Where one step stands; a step that is `compensating` may be waiting, called or retried."""

    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    """For a callback, a timer, a signal, its turn, or the items of its fan-out."""
    RETRYING = "retrying"
    IN_DOUBT = "in_doubt"
    """The outcome is unknown, and the service is asked how it went."""
    SUCCEEDED = "succeeded"
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELLED = "cancelled"
    COMPENSATING = "compensating"
    COMPENSATED = "compensated"
    COMPENSATION_FAILED = "compensation_failed"


class Action(StrEnum):
    """What a step asks of its service."""

    EXECUTE = "execute"
    COMPENSATE = "compensate"
    STATUS = "status"
    """How an execute went whose outcome is unknown; its attempts are the execute's."""


class Reason(StrEnum):
    """Why a workflow turned back."""

    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"


class WorkflowSignal(StrEnum):
    """What can happen to a workflow's status."""

    ADMIT = "admit"
    COMPLETE = "complete"
    TURN_BACK = "turn_back"
    UNWIND = "unwind"
    BREAK = "break"
    MEND = "mend"
    """What a person did lets a workflow in `error` go on: back, or past a pivot forward."""
    MEND_AHEAD = "mend_ahead"
    TERMINATE = "terminate"


class StepSignal(StrEnum):
    """What can happen to a step's status."""

    QUEUE = "queue"
    CLAIM = "claim"
    RELEASE = "release"
    AWAIT = "await"
    SUCCEED = "succeed"
    RETRY = "retry"
    DOUBT = "doubt"
    SKIP = "skip"
    FAIL = "fail"
    CANCEL = "cancel"
    COMPENSATE = "compensate"
    UNDO = "undo"
    GIVE_UP = "give_up"


_W, _WS = WorkflowStatus, WorkflowSignal
_S, _SS = StepStatus, StepSignal

WORKFLOW_TABLE: dict[WorkflowStatus, dict[WorkflowSignal, WorkflowStatus]] = {
    _W.QUEUED: {
        _WS.ADMIT: _W.IN_PROGRESS,
        _WS.TURN_BACK: _W.ROLLING_BACK,
        _WS.TERMINATE: _W.TERMINATED,
    },
    _W.IN_PROGRESS: {
        _WS.COMPLETE: _W.COMPLETED,
        _WS.TURN_BACK: _W.ROLLING_BACK,
        _WS.BREAK: _W.ERROR,
        _WS.TERMINATE: _W.TERMINATED,
    },
    _W.ROLLING_BACK: {
        _WS.UNWIND: _W.ROLLED_BACK,
        _WS.BREAK: _W.ERROR,
        _WS.TERMINATE: _W.TERMINATED,
    },
    _W.ERROR: {
        _WS.MEND: _W.ROLLING_BACK,
        _WS.MEND_AHEAD: _W.IN_PROGRESS,
        _WS.TERMINATE: _W.TERMINATED,
    },
    _W.COMPLETED: {
        _WS.TURN_BACK: _W.ROLLING_BACK,
    },
    _W.ROLLED_BACK: {},
    _W.TERMINATED: {},
}

STEP_TABLE: dict[StepStatus, dict[StepSignal, StepStatus]] = {
    _S.PENDING: {
        _SS.QUEUE: _S.QUEUED,
        _SS.AWAIT: _S.WAITING,
        _SS.SUCCEED: _S.SUCCEEDED,
        _SS.SKIP: _S.SKIPPED,
        _SS.CANCEL: _S.CANCELLED,
        _SS.FAIL: _S.FAILED,
    },
    _S.QUEUED: {
        _SS.CLAIM: _S.RUNNING,
        _SS.SKIP: _S.SKIPPED,
        _SS.CANCEL: _S.CANCELLED,
    },
    _S.RUNNING: {
        _SS.RELEASE: _S.RETRYING,
        _SS.AWAIT: _S.WAITING,
        _SS.SUCCEED: _S.SUCCEEDED,
        _SS.RETRY: _S.RETRYING,
        _SS.DOUBT: _S.IN_DOUBT,
        _SS.FAIL: _S.FAILED,
        _SS.CANCEL: _S.CANCELLED,
    },
    _S.WAITING: {
        _SS.QUEUE: _S.QUEUED,
        _SS.SUCCEED: _S.SUCCEEDED,
        _SS.RETRY: _S.RETRYING,
        _SS.DOUBT: _S.IN_DOUBT,
        _SS.SKIP: _S.SKIPPED,
        _SS.FAIL: _S.FAILED,
        _SS.CANCEL: _S.CANCELLED,
    },
    _S.RETRYING: {
        _SS.CLAIM: _S.RUNNING,
        _SS.RELEASE: _S.RETRYING,
        _SS.AWAIT: _S.WAITING,
        _SS.SUCCEED: _S.SUCCEEDED,
        _SS.RETRY: _S.RETRYING,
        _SS.DOUBT: _S.IN_DOUBT,
        _SS.SKIP: _S.SKIPPED,
        _SS.FAIL: _S.FAILED,
        _SS.CANCEL: _S.CANCELLED,
    },
    _S.IN_DOUBT: {
        _SS.CLAIM: _S.IN_DOUBT,
        _SS.RELEASE: _S.IN_DOUBT,
        _SS.AWAIT: _S.WAITING,
        _SS.RETRY: _S.IN_DOUBT,
        _SS.DOUBT: _S.IN_DOUBT,
        _SS.SUCCEED: _S.SUCCEEDED,
        _SS.SKIP: _S.SKIPPED,
        _SS.FAIL: _S.FAILED,
    },
    _S.SUCCEEDED: {
        _SS.COMPENSATE: _S.COMPENSATING,
        _SS.GIVE_UP: _S.COMPENSATION_FAILED,
    },
    _S.SKIPPED: {
        _SS.COMPENSATE: _S.COMPENSATING,
        _SS.GIVE_UP: _S.COMPENSATION_FAILED,
    },
    _S.FAILED: {
        _SS.RETRY: _S.RETRYING,
        _SS.AWAIT: _S.WAITING,
        _SS.SUCCEED: _S.SUCCEEDED,
        _SS.SKIP: _S.SKIPPED,
        _SS.COMPENSATE: _S.COMPENSATING,
        _SS.GIVE_UP: _S.COMPENSATION_FAILED,
    },
    _S.CANCELLED: {},
    _S.COMPENSATING: {
        _SS.CLAIM: _S.COMPENSATING,
        _SS.RELEASE: _S.COMPENSATING,
        _SS.AWAIT: _S.COMPENSATING,
        _SS.RETRY: _S.COMPENSATING,
        _SS.UNDO: _S.COMPENSATED,
        _SS.GIVE_UP: _S.COMPENSATION_FAILED,
    },
    _S.COMPENSATED: {},
    _S.COMPENSATION_FAILED: {
        _SS.RETRY: _S.COMPENSATING,
        _SS.UNDO: _S.COMPENSATED,
    },
}

WORKFLOW_ENDS = frozenset({_W.COMPLETED, _W.ROLLED_BACK, _W.TERMINATED})
"""Statuses that never change again, but that a child may be turned back by its parent. `error` is
not one: a person must act."""

WAIT_RETURNS = WORKFLOW_ENDS | {_W.ERROR}
"""Statuses at which waiting for a workflow returns."""

CLAIMABLE = frozenset({_S.QUEUED, _S.RETRYING, _S.IN_DOUBT, _S.COMPENSATING})
"""Statuses in which a step without a lease, and whose `due_at` has passed, may be claimed."""

OPEN = CLAIMABLE | {_S.RUNNING, _S.WAITING}
"""Statuses in which a step is still on its way to an answer."""

UNDOING = frozenset({_S.COMPENSATING, _S.COMPENSATED, _S.COMPENSATION_FAILED})
"""Statuses of a step that is being undone, or was."""


def workflow_after(status: WorkflowStatus, signal: WorkflowSignal) -> WorkflowStatus:
    """Return the status after `signal`, or raise `IllegalTransition`."""
    try:
        return WORKFLOW_TABLE[status][signal]
    except KeyError:
        raise IllegalTransition("workflow", status, signal) from None


def step_after(name: str, status: StepStatus, signal: StepSignal) -> StepStatus:
    """Return the status of step `name` after `signal`, or raise `IllegalTransition`."""
    try:
        return STEP_TABLE[status][signal]
    except KeyError:
        raise IllegalTransition(f"step {name}", status, signal) from None
