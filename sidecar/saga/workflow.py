"""The state of one workflow, and of its steps: what the machine reads and returns.

All of it is frozen. Bodies (inputs, outputs, errors) are JSON text and are mostly not loaded:
in a state read from a store, None means "not loaded"; in a state to be written, None means
"as it was".
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple, NewType

from msgspec import Struct, field

from sidecar.saga.definition import JsonText
from sidecar.saga.states import (
    Action,
    Reason,
    StepStatus,
    WorkflowStatus,
)

WorkflowId = NewType("WorkflowId", str)
"""A UUID in its canonical lower-case text form; made by whoever starts the workflow."""


NO_INDEX = -1
"""The index of a step that is not an item of a fan-out."""


class StepKey(NamedTuple):
    """Names one step of a workflow; `index` is the item of a fan-out, from 0, or `NO_INDEX`."""

    step: str
    index: int = NO_INDEX  # type: ignore[assignment]  # hides tuple.index, on purpose

    def __str__(self) -> str:
        """`charge` or, for an item of a fan-out, `charge[3]`."""
        return self.step if self.index == NO_INDEX else f"{self.step}[{self.index}]"


class DefinitionRef(NamedTuple):
    """Names one version of a definition."""

    namespace: str
    name: str
    version: int


class Run(Struct, frozen=True):
    """One action of one step: the attempts at it so far.

    `attempt` rises with every claim and never falls: with step and action it is the fence.
    `tries` is what the retry policy counts. `closed` is the newest attempt that ended in any
    way, `answered` the newest whose answer was applied. `started_at` is the first claim,
    `claimed_at` the newest.
    """

    attempt: int = 0
    tries: int = 0
    closed: int = 0
    answered: int = 0
    started_at: datetime | None = None
    claimed_at: datetime | None = None
    ended_at: datetime | None = None


NEVER_RUN = Run()


class Step(Struct, frozen=True):
    """One step of one workflow.

    A step without a row in the store is `pending` and `stored` is false. `service` and
    `call_ms` (the time-out of the present action's call in milliseconds) stand in the row so
    that a claim needs no definition. `due_at` is when it may be claimed, `lease_until` is set
    while a sidecar holds it.
    """

    key: StepKey
    service: str
    status: StepStatus = StepStatus.PENDING
    execute: Run = NEVER_RUN
    compensate: Run = NEVER_RUN
    may_have_effect: bool = False
    due_at: datetime | None = None
    lease_until: datetime | None = None
    call_ms: int = 30_000
    stored: bool = False
    input: JsonText | None = None
    output: JsonText | None = None
    error: JsonText | None = None
    compensation_input: JsonText | None = None
    compensation_output: JsonText | None = None
    compensation_error: JsonText | None = None

    @property
    def action(self) -> Action:
        """What the step is doing, or did last."""
        return Action.COMPENSATE if self.status in _UNDOING else Action.EXECUTE

    @property
    def run(self) -> Run:
        """The attempts at the present action."""
        return self.compensate if self.status in _UNDOING else self.execute

    @property
    def leased(self) -> bool:
        """Whether a sidecar holds the step (its lease may have ended, unnoticed as yet)."""
        return self.lease_until is not None


_UNDOING = frozenset(
    {StepStatus.COMPENSATING, StepStatus.COMPENSATED, StepStatus.COMPENSATION_FAILED}
)


class Workflow(Struct, frozen=True):
    """One run of a definition. `revision` counts its transitions, `last_seq` its events."""

    id: WorkflowId
    definition: DefinitionRef
    status: WorkflowStatus
    created_at: datetime
    steps: Mapping[StepKey, Step] = field(default_factory=dict)
    reason: Reason | None = None
    paused: bool = False
    revision: int = 0
    last_seq: int = 0
    deadline_at: datetime | None = None
    ended_at: datetime | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    start_key: str | None = None
    trace: str | None = None
    input: JsonText | None = None
    output: JsonText | None = None
    error: JsonText | None = None

    @property
    def turning_back(self) -> bool:
        """Whether the workflow has turned back, finished with that or not."""
        return self.reason is not None
