"""Small stand-ins for the ports beside the store: clock, entropy, telemetry and notices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime, timedelta

from sidecar.ports.notices import Notice
from sidecar.saga.workflow import WorkflowId

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


class TickingClock:
    """A clock that moves a millisecond with every look."""

    def __init__(self) -> None:
        self.moment = NOON

    def now(self) -> datetime:
        self.moment += timedelta(milliseconds=1)
        return self.moment

    def monotonic(self) -> float:
        return (self.moment - NOON).total_seconds()


class CountingEntropy:
    """Ids in a row."""

    def __init__(self) -> None:
        self.made = 0

    def workflow_id(self) -> WorkflowId:
        self.made += 1
        return WorkflowId(f"00000000-0000-7000-8000-{self.made:012x}")

    def incarnation(self) -> str:
        return "one"

    def chance(self) -> float:
        return 0.5

    def key(self) -> bytes:
        return b"key"


class Facts:
    """Telemetry that remembers the names of facts."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.one_told = asyncio.Event()

    def count(self, *args: object, **labels: object) -> None: ...
    def gauge(self, *args: object, **labels: object) -> None: ...
    def observe(self, *args: object, **labels: object) -> None: ...

    def fact(self, name: str, **fields: object) -> None:
        self.told.append(name)
        self.one_told.set()


class LocalNotices:
    """Notices within this process; `deaf` loses all of them."""

    def __init__(self) -> None:
        self.hearers: list[Callable[[Notice], None]] = []
        self.deaf = False

    def announce(self, *, services: Iterable[str] = (), ended: Collection[WorkflowId] = ()) -> None:
        for hear in [] if self.deaf else list(self.hearers):
            hear(Notice(frozenset(services), tuple(ended)))

    def subscribe(self, hear: Callable[[Notice], None]) -> Callable[[], None]:
        self.hearers.append(hear)
        return lambda: self.hearers.remove(hear)
