"""What can happen to a workflow that exists: the machine's input.

An event carries everything that the machine may need and cannot know: which attempt it
speaks of, when that attempt was claimed, and a number between 0 and 1 for the jitter.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from sidecar.saga.definition import JsonText
from sidecar.saga.outcomes import Outcome
from sidecar.saga.states import Action, Reason, WorkflowStatus
from sidecar.saga.workflow import StepKey, WorkflowId


class Answered(Struct, frozen=True):
    """An attempt came to an end at the sidecar that made it."""

    step: StepKey
    action: Action
    attempt: int
    outcome: Outcome
    chance: float = 0.5
    actor: str = "sidecar"


class LeaseEnded(Struct, frozen=True):
    """The lease of an attempt ended, and nobody has said how the attempt went.

    `until` is its end as it was seen: one that was made longer since then is not over.
    """

    step: StepKey
    action: Action
    attempt: int
    chance: float = 0.5
    actor: str = "leader"
    until: datetime | None = None


class CancelRequested(Struct, frozen=True):
    """Somebody asks that the workflow be undone."""

    reason: str = ""
    actor: str = "api"


class DeadlinePassed(Struct, frozen=True):
    """The workflow's deadline lies in the past."""

    actor: str = "leader"


class RollbackReviewed(Struct, frozen=True):
    """An open rollback is looked at again, from the state alone: what should have begun begins."""

    actor: str = "leader"


class TimerFired(Struct, frozen=True):
    """A step has waited long enough: for its time, or in vain for its signal."""

    step: StepKey
    actor: str = "leader"


class Heartbeat(Struct, frozen=True):
    """A service is still working on what it will answer by a callback."""

    step: StepKey
    action: Action
    attempt: int
    actor: str = "service"


class SignalSent(Struct, frozen=True):
    """Somebody sends a signal, and may say why; it is kept until a step waits for it.

    `id` is made by whoever sends it: the same one again is the same signal. Without one, every
    signal is another.
    """

    name: str
    payload: JsonText
    reason: str = ""
    actor: str = "api"
    id: str = ""


class PauseRequested(Struct, frozen=True):
    """No more claims and no timers, until it is resumed."""

    reason: str = ""
    actor: str = "api"


class ResumeRequested(Struct, frozen=True):
    """Let a paused workflow go on."""

    reason: str = ""
    actor: str = "api"


class TerminateRequested(Struct, frozen=True):
    """Stop a workflow where it stands, without undoing anything."""

    reason: str
    actor: str = "api"


class RetryRequested(Struct, frozen=True):
    """Try now what waits for its next try or has failed for good: one step, or all there are."""

    step: StepKey | None = None
    reason: str = ""
    actor: str = "api"


class SkipRequested(Struct, frozen=True):
    """Go on without a step: as if it had passed with this output, or without undoing it.

    Which of the two is said, so that neither is ever taken for the other: one that was asked for on
    the way forward, and comes once more when the workflow has turned back, clears no effect.
    """

    step: StepKey
    reason: str
    output: JsonText | None = None
    actor: str = "api"
    action: Action = Action.EXECUTE


class Resolution(StrEnum):
    """What a person found out about a step."""

    SUCCEEDED = "succeeded"
    NO_EFFECT = "no_effect"
    COMPENSATED = "compensated"


class RerunRequested(Struct, frozen=True):
    """A workflow that has ended is run again, as the workflow `new`.

    `same_version` says that the new one runs the same version of the definition. `succeeded` are
    the steps of the first one that did, undone since or not: of one that is to be undone the status
    does not tell.
    """

    new: WorkflowId
    same_version: bool = True
    succeeded: frozenset[StepKey] = frozenset()
    reason: str = ""
    actor: str = "api"


class ResolveRequested(Struct, frozen=True):
    """A person says how it went with a step whose outcome is unknown, and what shows that."""

    step: StepKey
    resolution: Resolution
    reason: str
    evidence: str
    output: JsonText | None = None
    actor: str = "api"


class Admitted(Struct, frozen=True):
    """There is a place for a workflow that waits for its turn, or for a step of it."""

    step: StepKey | None = None
    actor: str = "turns"


class ChildTold(Struct, frozen=True, tag="child_told"):
    """A child tells its parent's step how it stands: at its end, or in need of a person.

    `kept` says that it was to be undone and cannot be. `child` is its id: a step that has begun
    another child since does not listen to it any more.
    """

    step: StepKey
    status: WorkflowStatus
    output: JsonText | None = None
    error: JsonText | None = None
    kept: bool = False
    actor: str = "child"
    child: WorkflowId | None = None


class ParentTurnedBack(Struct, frozen=True, tag="parent_turned_back"):
    """The parent wants its child undone, finished or not."""

    reason: Reason
    actor: str = "parent"


class ParentTerminated(Struct, frozen=True, tag="parent_terminated"):
    """The parent was stopped where it stood."""

    reason: str
    actor: str = "parent"


Event = (
    Answered
    | LeaseEnded
    | Heartbeat
    | TimerFired
    | SignalSent
    | CancelRequested
    | DeadlinePassed
    | RollbackReviewed
    | PauseRequested
    | ResumeRequested
    | TerminateRequested
    | RetryRequested
    | SkipRequested
    | ResolveRequested
    | RerunRequested
    | Admitted
    | ChildTold
    | ParentTurnedBack
    | ParentTerminated
)

Told = ChildTold | ParentTurnedBack | ParentTerminated
"""The events that one workflow brings about in another."""

Attempted = Answered | LeaseEnded | Heartbeat
"""The events that speak of an attempt of a step."""


def step_of(event: Event) -> StepKey | None:
    """Return the step that an event names, if it names one."""
    match event:
        case Answered() | LeaseEnded() | Heartbeat() | TimerFired() | ChildTold():
            return event.step
        case RetryRequested() | SkipRequested() | ResolveRequested() | Admitted():
            return event.step
        case _:
            return None
