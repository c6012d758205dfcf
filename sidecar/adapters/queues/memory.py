"""The queue in this process: the twin for tests, the simulator and trials.

A `MemoryBroker` stands for the broker and is shared by the `MemoryQueue` of each sidecar.
Delivery is at least once: what a queue has not acknowledged goes back to the front of the
line when that queue closes or pauses, when the broker is cut, or after the visibility time.
Nothing here asks the wall clock or chance; time is the event loop's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from sidecar.adapters import doorbells
from sidecar.errors import QueueUnavailable
from sidecar.ports.queue import Delivery, Doorbell, QueueCapabilities, Refused

Message = Doorbell | bytes
"""Bytes are what somebody else put on the queue."""


@dataclass(slots=True)
class _Held:
    message: Message
    holder: MemoryQueue
    until: float


@dataclass(slots=True)
class _Line:
    """The messages of one service."""

    ready: deque[Message] = field(default_factory=deque)
    held: dict[int, _Held] = field(default_factory=dict)
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class MemoryBroker:
    """What the sidecars of one process share. `visibility_s`: how long an ack may take."""

    def __init__(self, *, visibility_s: float = 30.0) -> None:
        self._visibility_s = visibility_s
        self._lines: dict[tuple[str, str], _Line] = {}
        self._tags = count(1)
        self._up = True

    def cut(self) -> None:
        """Go down: every call raises `QueueUnavailable`, what is unacknowledged comes back."""
        self._up = False
        for line in self._lines.values():
            self._give_back(line, list(line.held))
            line.woken.set()

    def restore(self) -> None:
        """Come back with all that was there."""
        self._up = True

    def purge(self) -> None:
        """Lose everything, as a broker that lost its disks."""
        for line in self._lines.values():
            line.ready.clear()
            line.held.clear()

    def put(self, namespace: str, service: str, message: Message) -> None:
        """Add a message at the end of a line."""
        self.check()
        line = self.line(namespace, service)
        line.ready.append(message)
        line.woken.set()

    def depth(self, namespace: str, service: str) -> int:
        """Messages of a service that are not acknowledged."""
        line = self.line(namespace, service)
        return len(line.ready) + len(line.held)

    def check(self) -> None:
        """Raise `QueueUnavailable` while the broker is down."""
        if not self._up:
            raise QueueUnavailable("the memory broker is down")

    def line(self, namespace: str, service: str) -> _Line:
        """The line of a service, made when it is first named."""
        return self._lines.setdefault((namespace, service), _Line())

    def take(self, line: _Line, holder: MemoryQueue, limit: int) -> list[tuple[int, Message]]:
        """Hand out up to `limit` messages, and note who holds them."""
        self.check()
        now = asyncio.get_running_loop().time()
        self._give_back(line, [tag for tag, held in line.held.items() if held.until <= now])
        taken: list[tuple[int, Message]] = []
        while line.ready and len(taken) < limit:
            message, tag = line.ready.popleft(), next(self._tags)
            line.held[tag] = _Held(message, holder, now + self._visibility_s)
            taken.append((tag, message))
        return taken

    def next_return(self, line: _Line) -> float | None:
        """When the next held message comes back by itself, by the event loop's time."""
        return min((held.until for held in line.held.values()), default=None)

    def release(self, holder: MemoryQueue) -> None:
        """Give back all that a queue holds."""
        for line in self._lines.values():
            self._give_back(line, [tag for tag, held in line.held.items() if held.holder is holder])

    @staticmethod
    def _give_back(line: _Line, tags: list[int]) -> None:
        messages = [line.held.pop(tag).message for tag in sorted(tags)]
        if messages:
            line.ready.extendleft(reversed(messages))
            line.woken.set()


class MemoryQueue:
    """One sidecar's end of a `MemoryBroker`."""

    def __init__(self, broker: MemoryBroker, *, namespace: str, service: str) -> None:
        self._broker = broker
        self._namespace = namespace
        self._service = service
        self._receiving = False

    @property
    def capabilities(self) -> QueueCapabilities:
        """See the port."""
        return QueueCapabilities()

    async def open(self) -> None:
        """See the port."""
        self._broker.check()
        self._receiving = True

    async def close(self) -> None:
        """See the port."""
        self._stop_receiving()

    async def pause(self) -> None:
        """See the port."""
        self._stop_receiving()

    async def resume(self) -> None:
        """See the port."""
        self._receiving = True
        self._line.woken.set()

    async def publish(self, doorbells: Sequence[Doorbell]) -> None:
        """See the port."""
        for doorbell in doorbells:
            self._broker.put(self._namespace, doorbell.service, doorbell)

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery | Refused]:
        """See the port."""
        loop = asyncio.get_running_loop()
        line, end = self._line, loop.time() + wait
        while True:
            if self._receiving:
                taken = self._broker.take(line, self, limit)
                if taken:
                    return [self._delivery(tag, message) for tag, message in taken]
            if loop.time() >= end:
                return ()
            line.woken.clear()
            # Who has paused takes nothing that comes back: `resume` wakes it.
            due = self._broker.next_return(line) if self._receiving else None
            try:
                async with asyncio.timeout_at(end if due is None else min(due, end)):
                    await line.woken.wait()
            except TimeoutError:
                continue  # it is due, or the end: the head of the loop looks which

    async def ack(self, deliveries: Sequence[Delivery | Refused]) -> None:
        """See the port."""
        self._broker.check()
        held = self._line.held
        for delivery in deliveries:
            held.pop(delivery.token, None)

    @property
    def _line(self) -> _Line:
        return self._broker.line(self._namespace, self._service)

    def _stop_receiving(self) -> None:
        self._receiving = False
        self._broker.release(self)

    def _delivery(self, tag: int, message: Message) -> Delivery | Refused:
        if isinstance(message, bytes):
            return doorbells.read(message, self._service, tag)
        return Delivery(message, tag)
