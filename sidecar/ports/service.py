"""The service: the microservice beside this sidecar, and what a call of it looks like."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from sidecar.saga.definition import JsonText
from sidecar.saga.outcomes import Outcome
from sidecar.saga.states import Action
from sidecar.saga.workflow import DefinitionRef, StepKey, WorkflowId


class Call(Struct, frozen=True):
    """One attempt at one action. `timeout` is seconds for the whole call, connect to last byte.

    `body` is sent unchanged on every attempt. `deadline` is when the service may stop working
    on it: the end of the time-out in wall time, as a courtesy to the service. `callback` is the
    URL by which it may finish the attempt later. `origin` is the workflow whose id stands in the
    key, if that is not its own: this one is its rerun.
    """

    workflow: WorkflowId
    definition: DefinitionRef
    key: StepKey
    action: Action
    attempt: int
    path: str
    body: JsonText
    timeout: float
    deadline: datetime
    method: str = "POST"
    on_status: Mapping[int, str] | None = None
    trace: str | None = None
    callback: str | None = None
    origin: WorkflowId | None = None

    @property
    def keyed_action(self) -> Action:
        """The action that it is about: a question is about an execute."""
        return Action.EXECUTE if self.action is Action.STATUS else self.action

    @property
    def owner(self) -> WorkflowId:
        """The workflow whose id stands in the key."""
        return self.origin or self.workflow

    @property
    def idempotency_key(self) -> str:
        """`<workflow>/<step>/<action>`: the same for every attempt."""
        return f"{self.owner}/{self.key}/{self.keyed_action}"


class Service(Protocol):
    """Makes calls, and says whether the service is there at all."""

    async def open(self) -> None:
        """Make ready to call."""
        ...

    async def close(self) -> None:
        """Let go of all connections; harmless when repeated."""
        ...

    async def call(self, call: Call) -> Outcome:
        """Make the call. Whatever happens is an outcome: only cancellation raises."""
        ...

    async def ready(self) -> bool:
        """Whether the service says that it can take calls; answers within 2 seconds."""
        ...
