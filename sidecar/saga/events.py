"""What can happen to a workflow that exists: the machine's input.

An event carries everything that the machine may need and cannot know: which attempt it
speaks of, when that attempt was claimed, and a number between 0 and 1 for the jitter.
"""

from __future__ import annotations

from msgspec import Struct

from sidecar.saga.outcomes import Outcome
from sidecar.saga.states import Action
from sidecar.saga.workflow import StepKey


class Answered(Struct, frozen=True):
    """An attempt came to an end at the sidecar that made it."""

    step: StepKey
    action: Action
    attempt: int
    outcome: Outcome
    chance: float = 0.5
    actor: str = "sidecar"


class LeaseEnded(Struct, frozen=True):
    """The lease of an attempt ended, and nobody has said how the attempt went."""

    step: StepKey
    action: Action
    attempt: int
    chance: float = 0.5
    actor: str = "leader"


class CancelRequested(Struct, frozen=True):
    """Somebody asks that the workflow be undone."""

    actor: str = "api"


class DeadlinePassed(Struct, frozen=True):
    """The workflow's deadline lies in the past."""

    actor: str = "leader"


Event = Answered | LeaseEnded | CancelRequested | DeadlinePassed
