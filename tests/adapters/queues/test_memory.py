"""The queue in memory keeps the contract, and has a visibility time of its own."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from sidecar.adapters.queues import memory
from sidecar.adapters.queues.memory import MemoryBroker, MemoryQueue
from tests.conformance.queue import MessageQueueContract, bell, opened, rung, take
from tests.conformance.queue_faults import MessageQueueFaultContract


class Bench:
    """Queues on one broker in memory."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()

    def make_queue(self, service: str) -> MemoryQueue:
        return MemoryQueue(self.broker, namespace="default", service=service)

    async def put_raw(self, service: str, payload: bytes) -> None:
        self.broker.put("default", service, payload)

    async def cut(self) -> None:
        self.broker.cut()

    async def restore(self) -> None:
        self.broker.restore()

    async def freeze(self) -> None:
        self.broker.cut()

    async def thaw(self) -> None:
        self.broker.restore()

    async def remove_destination(self, service: str) -> None:
        self.broker.purge()


@pytest.fixture
def bench() -> Bench:
    return Bench()


class TestMemoryQueue(MessageQueueContract, MessageQueueFaultContract):
    """The contract, unchanged."""


async def test_a_delivery_held_too_long_comes_back_by_itself() -> None:
    broker = MemoryBroker(visibility_s=0.05)
    holder = MemoryQueue(broker, namespace="default", service="payments")
    other = MemoryQueue(broker, namespace="default", service="payments")
    async with opened(holder), opened(other):
        await holder.publish([bell(1)])
        late = await take(holder, 1, ack=False)
        assert rung(await other.receive(1, 5.0)) == [bell(1)]
        await holder.ack(late)
        assert broker.depth("default", "payments") == 1


async def test_order_is_that_of_publishing() -> None:
    broker = MemoryBroker()
    queue = MemoryQueue(broker, namespace="default", service="payments")
    async with opened(queue):
        await queue.publish([bell(number) for number in range(5)])
        first = await take(queue, 2, limit=2, ack=False)
        await queue.pause()
        await queue.resume()
        assert rung(first) == [bell(0), bell(1)]
        assert rung(await take(queue, 5)) == [bell(number) for number in range(5)]


async def test_a_message_wakes_one_of_several_who_wait() -> None:
    broker = MemoryBroker()
    queues = [MemoryQueue(broker, namespace="default", service="payments") for _ in range(3)]
    for queue in queues:
        await queue.open()
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(queue.receive(10, 0.3)) for queue in queues]
        await asyncio.sleep(0)
        await queues[0].publish([bell(1)])
    assert sum(len(task.result()) for task in waiting) == 1


async def test_who_has_paused_does_not_turn_around_what_has_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = MemoryBroker(visibility_s=0.02)
    holder = MemoryQueue(broker, namespace="default", service="payments")
    paused = MemoryQueue(broker, namespace="default", service="payments")
    looked = 0

    def counted(*given: object) -> object:
        nonlocal looked
        looked += 1
        return asyncio.timeout_at(*given)  # type: ignore[arg-type]

    async with opened(holder), opened(paused):
        await holder.publish([bell(1)])
        await take(holder, 1, ack=False)
        await paused.pause()
        monkeypatch.setattr(memory, "asyncio", SimpleNamespace(**vars(asyncio)))
        monkeypatch.setattr(memory.asyncio, "timeout_at", counted)
        assert await paused.receive(1, 0.1) == ()
    assert looked == 1
