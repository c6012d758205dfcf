"""Rate limits: turns for calls of one action, over all sidecars of a service.

The store keeps two moments for each limited path of a service, and for each step that was sent
away what it was promised. Nothing is kept for actions that are not limited.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from sidecar.saga.pacing import RateLimit
from sidecar.saga.states import Action
from sidecar.saga.workflow import StepKey, WorkflowId


class RateAsk(NamedTuple):
    """A claimed step that wants to call `path`; it can wait for `patience` microseconds.

    What was promised to it is for one of its tries: `tries` is how many it has spent.
    """

    path: str
    limit: RateLimit
    workflow: WorkflowId
    key: StepKey
    action: Action
    patience: int
    tries: int


class RateAnswer(NamedTuple):
    """The call has its turn in `wait` microseconds, counted from when the store answered.

    If it is `granted` it may be made then. Otherwise the claim is to be given back until then, and
    the turn is kept for the step, whichever sidecar comes back with it.
    """

    wait: int
    granted: bool


class Rates(Protocol):
    """The part of the store that is about rate limits."""

    async def ask_rates(
        self, namespace: str, service: str, asks: Sequence[RateAsk]
    ) -> Sequence[RateAnswer]:
        """Give each its turn, in their order, by the store's clock (see `sidecar.saga.pacing`).

        Asked again after a lost answer it may count calls that are not made, never the opposite.
        Raises `StoreUnavailable`.
        """
        ...

    async def promised_steps(self, workflow: WorkflowId) -> Collection[StepKey]:
        """Return the steps of a workflow that were sent away until their turn."""
        ...
