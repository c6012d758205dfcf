"""What can happen to a workflow that exists: the machine's input.

An event carries everything that the machine may need and cannot know: which attempt it
speaks of, when that attempt was claimed, and a number between 0 and 1 for the jitter.
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.saga.outcomes import Outcome
from sidecar.saga.states import Action
from sidecar.saga.workflow import StepKey


@dataclass(frozen=True, slots=True)
class Answered:
    """An attempt came to an end at the sidecar that made it."""

    step: StepKey
    action: Action
    attempt: int
    outcome: Outcome
    chance: float = 0.5
    actor: str = "sidecar"


@dataclass(frozen=True, slots=True)
class LeaseEnded:
    """The lease of an attempt ended, and nobody has said how the attempt went."""

    step: StepKey
    action: Action
    attempt: int
    chance: float = 0.5
    actor: str = "leader"


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody asks that the workflow be undone."""

    actor: str = "api"


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The workflow's deadline lies in the past."""

    actor: str = "leader"


Event = Answered | LeaseEnded | CancelRequested | DeadlinePassed
