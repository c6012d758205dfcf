"""The queue that is the store: over notices by PostgreSQL, and over their twin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from sidecar.adapters.notices_memory import MemoryNotices, NoticeHub
from sidecar.adapters.postgres.notices import PostgresNotices
from sidecar.adapters.queues.postgres import PostgresQueue
from sidecar.ports.notices import Notices
from sidecar.ports.queue import Queue
from tests.conformance.queue import SHORT_S, SOON_S, SameStoreQueueContract, bell, seconds


class _Bench:
    """Queues whose notices are opened with them and closed at the end of the test."""

    def __init__(self, stack: AsyncExitStack, dsn: str | None) -> None:
        self._stack = stack
        self._dsn = dsn
        self._hub = NoticeHub()

    def make_queue(self, service: str) -> Queue:
        return _Opening(self._notices(service), service, self._stack)

    def _notices(self, service: str) -> Notices:
        if self._dsn is None:
            return MemoryNotices(self._hub, namespace="default", service=service)
        return PostgresNotices(self._dsn, namespace="default", service=service)


class _Opening(PostgresQueue):
    """Opens its notices first, and returns when they hear."""

    def __init__(self, notices: Notices, service: str, stack: AsyncExitStack) -> None:
        super().__init__(notices, service=service)
        self._stack = stack

    async def open(self) -> None:
        hears = asyncio.Event()
        self._notices.subscribe(lambda _: hears.set())
        await self._notices.open()
        self._stack.push_async_callback(self._notices.close)
        self._notices.announce(services=[self._service])
        await hears.wait()
        await super().open()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as made:
        yield made


@pytest.mark.postgres
class TestPostgresQueue(SameStoreQueueContract):
    """The contract, unchanged, with real notices."""

    @pytest.fixture
    def bench(self, database: str, stack: AsyncExitStack) -> _Bench:
        return _Bench(stack, database)


class TestPostgresQueueOnMemoryNotices(SameStoreQueueContract):
    """The contract, unchanged, as the demo and the simulator use it."""

    @pytest.fixture
    def bench(self, stack: AsyncExitStack) -> _Bench:
        return _Bench(stack, None)


async def test_closed_it_hears_nothing(stack: AsyncExitStack) -> None:
    queue = _Bench(stack, None).make_queue("payments")
    await queue.open()
    await queue.receive(1, SHORT_S)
    await queue.close()
    await queue.publish([bell(1)])
    assert await seconds(queue.receive(1, SHORT_S)) >= SHORT_S * 0.9


async def test_a_resume_ends_the_next_wait(stack: AsyncExitStack) -> None:
    queue = _Bench(stack, None).make_queue("payments")
    await queue.open()
    await queue.receive(1, SHORT_S)
    await queue.pause()
    await queue.resume()
    assert await seconds(queue.receive(1, SOON_S)) < SOON_S / 2
