"""The queue that needs no broker: the step rows are the queue (capability `same_store`).

There are no messages. Publishing is one notice that names the services rung; receiving waits
for a notice that names the own service, and returns nothing: the engine then claims what is
due. A notice may be lost, so an idle engine looks into the store from time to time anyway.
Nothing here can fail: the connection belongs to the notices, which reconnect by themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from sidecar.ports.notices import Notice, Notices
from sidecar.ports.queue import Delivery, Doorbell, QueueCapabilities, Refused


class PostgresQueue:
    """The doorbells of one service as notices. `notices` is opened and closed by its owner."""

    def __init__(self, notices: Notices, *, service: str) -> None:
        self._notices = notices
        self._service = service
        self._rung = asyncio.Event()
        self._receiving = False
        self._unsubscribe: Callable[[], None] | None = None

    @property
    def capabilities(self) -> QueueCapabilities:
        """See the port."""
        return QueueCapabilities(same_store=True)

    async def open(self) -> None:
        """See the port."""
        if self._unsubscribe is None:
            self._unsubscribe = self._notices.subscribe(self._hear)
        await self.resume()

    async def close(self) -> None:
        """See the port."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        await self.pause()

    async def publish(self, doorbells: Sequence[Doorbell]) -> None:
        """See the port."""
        if doorbells:
            self._notices.announce(services={doorbell.service for doorbell in doorbells})

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery | Refused]:  # noqa: ARG002
        """See the port. Rings heard between two calls end the second one at once."""
        try:
            async with asyncio.timeout(wait):
                await self._rung.wait()
        except TimeoutError:
            return ()
        self._rung.clear()
        return ()

    async def ack(self, deliveries: Sequence[Delivery | Refused]) -> None:
        """Nothing to acknowledge: claiming a step is what takes it from the queue."""

    async def pause(self) -> None:
        """See the port."""
        self._receiving = False
        self._rung.clear()

    async def resume(self) -> None:
        """See the port. Much may have been rung meanwhile, so the next receive ends at once."""
        self._receiving = True
        self._rung.set()

    def _hear(self, notice: Notice) -> None:
        if self._receiving and self._service in notice.services:
            self._rung.set()
