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
from sidecar.saga.states import UNDOING, Action, Reason, StepStatus, WorkflowStatus

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
    way, `answered` the newest whose answer was applied. `started_at` is the first claim
    that was not given back uncalled, `claimed_at` the newest of all.
    """

    attempt: int = 0
    tries: int = 0
    closed: int = 0
    answered: int = 0
    started_at: datetime | None = None
    claimed_at: datetime | None = None
    ended_at: datetime | None = None


NEVER_RUN = Run()


class Fan(Struct, frozen=True):
    """The counters of a fan-out, kept by the step whose items they count.

    `total` items in all; those below `opened` have a row, or had their turn. `open` of them are
    on their way, `failed` have failed for good, `effects` may have an effect that is owed its
    undoing. On the way back those below `undone` had their turn, `undoing` are being undone, and
    `kept` could not be.
    """

    total: int
    opened: int = 0
    open: int = 0
    failed: int = 0
    effects: bool = False
    undone: int = 0
    undoing: int = 0
    kept: int = 0


class Step(Struct, frozen=True):
    """One step of one workflow.

    A step without a row in the store is `pending` and `stored` is false. `service` and
    `call_ms` (the time-out of the present action's call in milliseconds) stand in the row so
    that a claim needs no definition. `due_at` is when it may be claimed, or when its timer fires;
    `lease_until` is set while a sidecar holds it, and, with `awaiting`, while the service may
    still answer by a callback. `doubt_at` is when it came into doubt. `fan` counts the items of a
    fan-out. `turn` is the key by which it takes turns, if it does: it is kept to the end. `origin`
    is the workflow under whose id its service knows it, if that is not its own: one that was
    terminated, and of which this is the rerun.
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
    awaiting: bool = False
    doubt_at: datetime | None = None
    fan: Fan | None = None
    turn: JsonText | None = None
    input: JsonText | None = None
    output: JsonText | None = None
    error: JsonText | None = None
    compensation_input: JsonText | None = None
    compensation_output: JsonText | None = None
    compensation_error: JsonText | None = None
    origin: WorkflowId | None = None

    @property
    def action(self) -> Action:
        """What the step is doing, or did last."""
        if self.status is StepStatus.IN_DOUBT:
            return Action.STATUS
        return Action.COMPENSATE if self.status in UNDOING else Action.EXECUTE

    @property
    def run(self) -> Run:
        """The attempts at the present action."""
        return self.compensate if self.status in UNDOING else self.execute

    @property
    def leased(self) -> bool:
        """Whether an attempt is under way (its lease may have ended, unnoticed as yet)."""
        return self.lease_until is not None

    @property
    def is_item(self) -> bool:
        """Whether it is an item of a fan-out."""
        return self.key.index != NO_INDEX


class Signal(Struct, frozen=True):
    """A signal that was sent and that no step has taken yet; `number` counts from 1."""

    number: int
    name: str
    payload: JsonText
    actor: str
    reason: str
    sent_at: datetime


class Parent(NamedTuple):
    """The step, of another workflow, that a workflow was started by; `depth` counts from 1."""

    workflow: WorkflowId
    step: StepKey
    root: WorkflowId
    depth: int


class Turn(NamedTuple):
    """What a workflow needs to begin: one of `limit` places that those of its `key` share."""

    key: str
    limit: int


class Workflow(Struct, frozen=True):
    """One run of a definition. `revision` counts its transitions, `last_seq` its events.

    `signals` are those that nobody has taken yet; `last_signal` is the number of the newest;
    `heard` are the ids of those that came, where an event asks for them.
    `elements` are those of the items of fan-outs. `partial` says that some items are missing from
    `steps` and `elements`: all but those that an event speaks of, those to be opened next and
    those to be undone next. `owes_since` is set while it owes effects their undoing (see
    `sidecar.saga.debts`); `taken_over_by` is the rerun that has its results, and owes them instead.
    """

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
    parent: Parent | None = None
    turn: Turn | None = None
    signals: tuple[Signal, ...] = ()
    last_signal: int = 0
    heard: frozenset[str] = frozenset()
    elements: Mapping[StepKey, JsonText] = field(default_factory=dict)
    partial: bool = False
    owes_since: datetime | None = None
    taken_over_by: WorkflowId | None = None
    input: JsonText | None = None
    output: JsonText | None = None
    error: JsonText | None = None

    @property
    def turning_back(self) -> bool:
        """Whether the workflow has turned back, finished with that or not."""
        return self.reason is not None
