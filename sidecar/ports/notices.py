"""Notices: hints that something was committed.

A notice may be lost, late or repeated. It names services that have steps to claim and
workflows that ended; whoever waits for either also looks for itself from time to time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from sidecar.saga.workflow import WorkflowId


@dataclass(frozen=True, slots=True)
class Notice:
    """What one commit (or several) made true."""

    services: frozenset[str] = frozenset()
    ended: tuple[WorkflowId, ...] = ()


class Notices(Protocol):
    """Sends and hears notices within one namespace."""

    async def open(self) -> None:
        """Start to listen; keeps trying when the backend is away."""
        ...

    async def close(self) -> None:
        """Stop; harmless when repeated."""
        ...

    def announce(self, *, services: Iterable[str] = (), ended: Collection[WorkflowId] = ()) -> None:
        """Send soon, together with whatever else gathers meanwhile. Never raises, never waits."""
        ...

    def subscribe(self, hear: Callable[[Notice], None]) -> Callable[[], None]:
        """Call `hear` for every notice (own ones included); the result unsubscribes."""
        ...
