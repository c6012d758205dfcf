"""The queue: doorbells between sidecars.

A doorbell says "look at step S of workflow W" and nothing else. Losing, repeating, delaying
or reordering doorbells never changes how a workflow ends, so an adapter owes at-least-once
delivery as a courtesy and correctness to nobody. What it does owe: every call ends within a
deadline, a delivery that was not acknowledged comes back after a reconnect or restart, and a
client that makes no progress is rebuilt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sidecar.saga.workflow import StepKey, WorkflowId


@dataclass(frozen=True, slots=True)
class Doorbell:
    """Names a step to look at. `trace` is a W3C traceparent, if there is one."""

    workflow: WorkflowId
    key: StepKey
    service: str
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A doorbell that came in, and what the adapter needs to acknowledge it."""

    doorbell: Doorbell
    token: Any = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that is no doorbell: why, and its first bytes, for the log and the metric."""

    reason: str
    sample: bytes
    token: Any = None


@dataclass(frozen=True, slots=True)
class QueueCapabilities:
    """How this queue differs from the others.

    `same_store`: the step rows are the queue. There are no messages: `publish` is a hint, and
    `receive` returns nothing but wakes up when it is time to claim.
    """

    same_store: bool = False


class Queue(Protocol):
    """The doorbells of one service in one namespace."""

    @property
    def capabilities(self) -> QueueCapabilities:
        """What this adapter can do; constant."""
        ...

    async def open(self) -> None:
        """Connect and make sure that the own destination exists. Raises `QueueUnavailable`."""
        ...

    async def close(self) -> None:
        """Let go of everything within 5 seconds, broker or no broker; harmless when repeated."""
        ...

    async def publish(self, doorbells: Sequence[Doorbell]) -> None:
        """Ring at the services named, creating their destinations if missing.

        Returns once the broker has taken all of them; raises `QueueUnavailable` if it did not
        within the adapter's deadline (some may have been taken).
        """
        ...

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery | Refused]:
        """Return up to `limit` doorbells, as soon as there is at least one.

        Returns an empty sequence after `wait` seconds without any, or earlier as a hint that
        it is time to look into the store. Raises `QueueUnavailable`. Being cancelled loses
        nothing.
        """
        ...

    async def ack(self, deliveries: Sequence[Delivery | Refused]) -> None:
        """Say that these need not come again. Raises `QueueUnavailable`."""
        ...

    async def pause(self) -> None:
        """Stop receiving and leave the consumer group, so that other replicas get the work."""
        ...

    async def resume(self) -> None:
        """Receive again after `pause`."""
        ...
