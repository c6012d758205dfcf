"""The edge of Kafka's driver: what it will not end is ended, or left behind; without a broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any

import pytest
from structlog.testing import capture_logs

from sidecar.adapters.kafka import driver
from tests.servers.facts import until

SOON_S = 5.0


async def test_a_client_whose_own_task_was_cancelled_is_closed_all_the_same() -> None:
    class Client:
        async def stop(self) -> None:
            part = asyncio.create_task(asyncio.Event().wait())
            part.cancel()
            await part

    with capture_logs() as lines:
        await driver.stop(Client(), within_s=1.0)
    (told,) = lines
    assert (told["event"], told["why"]) == ("kafka_client_abandoned", "its own end was cancelled")


class HungClient:
    """A client whose `stop` hangs, with one task that runs on."""

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        self._coordination_task = asyncio.create_task(work)
        self._coordinator = self

    async def stop(self) -> None:
        await asyncio.Event().wait()


async def test_a_task_that_takes_its_end_for_that_of_another_is_asked_again() -> None:
    """It is cancelled while it awaits a task that takes this for its own end, and goes on."""
    awaits = asyncio.Event()

    async def beat() -> None:
        awaits.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async def coordinate() -> None:
        await asyncio.create_task(beat())
        await asyncio.Event().wait()

    client = HungClient(coordinate())
    await awaits.wait()
    async with asyncio.timeout(30):
        await driver.stop(client, within_s=0.01)
    assert client._coordination_task.cancelled()


async def test_a_task_that_never_ends_is_left_behind() -> None:
    begun, over = asyncio.Event(), asyncio.Event()

    async def stay() -> None:
        begun.set()
        while not over.is_set():
            with suppress(asyncio.CancelledError):
                await over.wait()

    client = HungClient(stay())
    await begun.wait()
    with capture_logs() as lines:
        async with asyncio.timeout(30):
            await driver.stop(client, within_s=0.01)
    assert [line["event"] for line in lines][-1] == "kafka_client_left_behind"
    over.set()
    await client._coordination_task


class Stubborn:
    """A client with a call that takes no notice of so many cancellations, and ends when told to."""

    def __init__(self, *, ignores: int) -> None:
        self.cancelled = 0
        self.over = asyncio.Event()
        self.begun = asyncio.Event()
        self._closed = False
        self._ignores = ignores
        self._coordination_task: asyncio.Task[Any] | None = None
        self._coordinator = self

    async def call(self) -> str:
        self.begun.set()
        while not self.over.is_set():
            try:
                await self.over.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                if self.cancelled > self._ignores:
                    raise
        self._coordination_task = asyncio.create_task(asyncio.Event().wait())
        return "done"


@pytest.fixture(autouse=True)
async def quick(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Pieces are given little time, and what is left behind ends with the test."""
    monkeypatch.setattr(driver, "_PIECES_WITHIN_S", 0.05)
    yield
    async with asyncio.timeout(SOON_S):
        while driver._background:
            await asyncio.wait(driver._background)


async def test_a_call_gives_what_it_gives_and_raises_what_it_raises() -> None:
    client = Stubborn(ignores=0)
    client.over.set()
    assert await driver.apart(client, client.call()) == "done"

    async def fail() -> None:
        raise OSError("no broker")

    with pytest.raises(OSError, match="no broker"):
        await driver.apart(client, fail())
    assert client._coordination_task is not None
    client._coordination_task.cancel()


async def test_a_call_that_takes_one_cancellation_for_anothers_is_asked_again() -> None:
    client = Stubborn(ignores=1)

    async def call_within() -> None:
        async with asyncio.timeout(0.01):
            await driver.apart(client, client.call())

    with capture_logs() as lines:
        caller = asyncio.create_task(call_within())
        await asyncio.wait({caller}, timeout=SOON_S)
        assert caller.done()
    with pytest.raises(TimeoutError):
        caller.result()
    assert (client.cancelled, lines) == (2, [])


async def test_whoever_is_cancelled_twice_gets_on_and_the_call_is_ended_all_the_same() -> None:
    """As a committer is that is told to end, and then waited for no more."""
    client = Stubborn(ignores=1)
    caller = asyncio.create_task(driver.apart(client, client.call()))
    await client.begun.wait()
    caller.cancel()
    await until(lambda: client.cancelled == 1, within_s=SOON_S)
    caller.cancel()
    await asyncio.wait({caller}, timeout=0.02)
    assert caller.cancelled()
    await until(lambda: client.cancelled == 2, within_s=SOON_S)


@pytest.mark.parametrize("closed", [True, False])
async def test_a_call_that_is_left_behind_revives_no_client_that_was_closed(
    *, closed: bool
) -> None:
    """A start that gets through after all makes tasks that nobody else would end."""
    client = Stubborn(ignores=1_000)
    with capture_logs() as lines, pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await driver.apart(client, client.call())
    assert [line["event"] for line in lines] == ["kafka_call_left_behind"]
    client._closed = closed
    client.over.set()
    await until(lambda: not driver._background, within_s=SOON_S)
    assert client._coordination_task is not None
    assert client._coordination_task.cancelled() is closed
    client._coordination_task.cancel()
