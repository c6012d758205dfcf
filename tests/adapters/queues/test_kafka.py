"""The queue on a real Kafka broker keeps the contract through cuts, freezes and rebalances."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from sidecar.adapters.kafka.member import Member, Token
from sidecar.adapters.kafka.settings import KafkaSettings
from sidecar.adapters.kafka.topics import ensure_topics
from sidecar.adapters.queues.kafka import KafkaQueue
from sidecar.adapters.telemetry.memory import MemoryTelemetry
from sidecar.errors import ConfigError, QueueUnavailable
from sidecar.ports import telemetry as metrics
from tests.conformance.queue import (
    MessageQueueContract,
    bell,
    bells,
    opened,
    rung,
    take,
    take_all,
)
from tests.conformance.queue_faults import MessageQueueFaultContract, publish_until_taken
from tests.servers.kafka import KafkaServer
from tests.servers.processes import freeze

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


class Bench:
    """Queues in a namespace of their own, on a broker that may be hurt."""

    def __init__(self, server: KafkaServer) -> None:
        self.server = server
        self.namespace = f"n{uuid.uuid4().hex}"
        self.telemetry = MemoryTelemetry()
        self.settings = KafkaSettings(
            (server.bootstrap_servers,),
            prefix="goconductor",
            partitions=4,
            replication_factor=1,
            call_s=2.0,
            close_s=1.0,
            stall_s=1.0,
            session_s=1.5,
            heartbeat_s=0.3,
            fetch_wait_s=0.1,
        )

    def make_queue(self, service: str) -> KafkaQueue:
        return KafkaQueue(
            self.settings, namespace=self.namespace, service=service, telemetry=self.telemetry
        )

    def topic(self, service: str) -> str:
        return self.settings.topic(self.namespace, service)

    async def put_raw(self, service: str, payload: bytes) -> None:
        async with AIOKafkaProducer(bootstrap_servers=self.server.bootstrap_servers) as producer:
            await producer.send_and_wait(self.topic(service), payload)

    async def cut(self) -> None:
        await asyncio.to_thread(self.server.kill)

    async def restore(self) -> None:
        if not self.server.alive:
            await asyncio.to_thread(self.server.restart)

    async def freeze(self) -> None:
        freeze(self.server.pid)

    async def thaw(self) -> None:
        os.kill(self.server.pid, signal.SIGCONT)

    async def remove_destination(self, service: str) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.server.bootstrap_servers)
        await admin.start()
        try:
            await admin.delete_topics([self.topic(service)])
        finally:
            await admin.close()

    async def committed(self, queue: KafkaQueue) -> int:
        """The sum of the group's committed offsets."""
        member = await self.member(queue)
        found = [
            await member._consumer.committed(TopicPartition(self.topic("payments"), number))
            for number in range(self.settings.partitions)
        ]
        return sum(offset or 0 for offset in found)

    async def member(self, queue: KafkaQueue) -> Member:
        """The member that receives for `queue` now."""
        await queue._there.wait()
        assert queue._member is not None
        return queue._member


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaServer]:
    """A broker of this module's own, since it is killed and stopped."""
    with KafkaServer() as server:
        yield server


@pytest.fixture
async def bench(
    kafka_server: KafkaServer, broker: KafkaServer, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Bench]:
    """The bench; afterwards the broker is as it was, and nothing was logged as an error."""
    made = Bench(broker)
    yield made
    await made.thaw()
    await made.restore()
    assert [one for one in caplog.records if one.levelno >= logging.ERROR] == []


async def until(happens: Callable[[], Awaitable[bool]]) -> None:
    """Return when it is so."""
    async with asyncio.timeout(20):
        while not await happens():  # noqa: ASYNC110  (the broker has no event for it)
            await asyncio.sleep(0)


class TestKafkaQueue(MessageQueueContract, MessageQueueFaultContract):
    """The contract, unchanged."""


@pytest.mark.fault(52)
async def test_no_offset_is_committed_past_an_open_delivery(bench: Bench) -> None:
    async with opened(bench.make_queue("payments")) as queue:
        assert isinstance(queue, KafkaQueue)
        await queue.publish(bells(range(40)))
        held = await take(queue, 40, ack=False)
        first_of_each = {id(one.token.watermark): one for one in reversed(held)}.values()
        later = [one for one in held if one not in first_of_each]
        await queue.ack(later)
        await (await bench.member(queue))._commit(5.0)
        assert await bench.committed(queue) == 0
        await queue.ack(list(first_of_each)[:-1])
        await until(lambda: _is_positive(bench.committed(queue)))
        kept_open = list(first_of_each)[-1]
    async with opened(bench.make_queue("payments")) as queue:
        seen = await take_all(queue, rung([kept_open]))
        assert len(seen) < 40


async def _is_positive(number: Awaitable[int]) -> bool:
    return await number > 0


async def test_doorbells_spread_over_all_partitions(bench: Bench) -> None:
    async with opened(bench.make_queue("payments")) as queue:
        await queue.publish(bells(range(40)))
        held = await take(queue, 40, ack=False)
        tokens: list[Token] = [one.token for one in held]
        per_partition = {token.watermark: len(token.watermark) for token in tokens}
        assert sorted(per_partition.values()) == [10, 10, 10, 10]


async def test_a_topic_that_was_just_made_can_be_used_at_once(bench: Bench) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bench.server.bootstrap_servers)
    await admin.start()
    try:
        for topic in [bench.topic(f"new{number}") for number in range(40)]:
            await ensure_topics(bench.settings, [topic])
            (shown,) = await admin.describe_topics([topic])
            assert [one["leader"] for one in shown["partitions"]] == [1, 1, 1, 1]
    finally:
        await admin.close()


@pytest.mark.fault(60)
async def test_a_fetcher_that_died_silently_is_noticed(bench: Bench) -> None:
    queue = bench.make_queue("payments")
    async with opened(queue):
        await queue.publish([bell(1)])
        await take(queue, 1)
        member = await bench.member(queue)
        member._consumer._fetcher._fetch_task.cancel()
        await queue.publish([bell(2)])
        assert rung(await take(queue, 1)) == [bell(2)]
        assert await bench.member(queue) is not member
        key = (metrics.QUEUE_REBUILDS.name, ("member", "stalled"))
        assert bench.telemetry.counts[key] == 1


@pytest.mark.fault(60)
async def test_a_coordinator_that_died_silently_is_noticed(bench: Bench) -> None:
    queue = bench.make_queue("payments")
    async with opened(queue):
        await queue.publish([bell(1)])
        await take(queue, 1)
        member = await bench.member(queue)
        member._consumer._coordinator._coordination_task.cancel()
        await until(lambda: _is_other(bench, queue, member))
        await queue.publish([bell(2)])
        assert await take_all(queue, [bell(2)])


async def _is_other(bench: Bench, queue: KafkaQueue, before: Member) -> bool:
    try:
        await queue.receive(1, 0.2)
    except QueueUnavailable:
        return False
    return await bench.member(queue) is not before


@pytest.mark.fault(56)
async def test_a_broker_that_was_away_for_long_is_heard_again(bench: Bench) -> None:
    """Long enough for the member to be given up while nobody answers."""
    queue = bench.make_queue("payments")
    async with opened(queue):
        await queue.publish([bell(1)])
        await take(queue, 1)
        await bench.cut()
        member = await bench.member(queue)
        await until(lambda: _is_given_up(queue, member))
        await bench.restore()
        await publish_until_taken(queue, [bell(2)])
        assert await take_all(queue, [bell(2)])


async def _is_given_up(queue: KafkaQueue, member: Member) -> bool:
    with suppress(QueueUnavailable):
        await queue.receive(1, 0.2)
    return queue._member is not member


async def test_a_quiet_queue_is_left_alone(bench: Bench) -> None:
    queue = bench.make_queue("payments")
    async with opened(queue):
        await queue.publish([bell(1)])
        await take(queue, 1)
        member = await bench.member(queue)
        while member.waited < 4 * bench.settings.stall_s:
            await queue.receive(10, 0.5)
        assert await bench.member(queue) is member
        assert bench.telemetry.total(metrics.QUEUE_REBUILDS) == 0


async def test_a_member_that_holds_too_much_is_replaced(bench: Bench) -> None:
    queue = KafkaQueue(
        dataclasses.replace(
            bench.settings, partitions=1, held_most=5, session_s=1.5, call_s=5.0, stall_s=5.0
        ),
        namespace=bench.namespace,
        service="payments",
        telemetry=bench.telemetry,
    )
    async with opened(queue):
        await queue.publish(bells(range(10)))
        await take(queue, 10, ack=False)
        assert (await bench.telemetry.wait_for_fact("queue_rebuild"))["why"] == "failed"
        assert await take_all(queue, bells(range(10)))


@pytest.mark.fault(53)
async def test_a_member_without_free_slots_leaves_its_work_to_others(bench: Bench) -> None:
    bench.settings = dataclasses.replace(bench.settings, poll_most_s=1.0)
    async with opened(bench.make_queue("payments")) as busy:
        await busy.publish(bells(range(10)))
        await take(busy, 10)
        await busy.publish(bells(range(10, 20)))  # and now it does not ask any more
        async with opened(bench.make_queue("payments")) as idle:
            assert await take_all(idle, bells(range(10, 20)))
        await idle.close()
        await busy.publish([bell(99)])
        assert await take_all(busy, [bell(99)])


@pytest.mark.fault(53)
async def test_a_wait_that_was_cut_short_keeps_no_partitions(bench: Bench) -> None:
    bench.settings = dataclasses.replace(bench.settings, poll_most_s=1.0)
    async with opened(bench.make_queue("payments")) as busy:
        await busy.publish(bells(range(10)))
        await take(busy, 10)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await busy.receive(1, 10.0)
        await busy.publish(bells(range(10, 20)))  # and now it does not ask any more
        async with opened(bench.make_queue("payments")) as idle:
            assert await take_all(idle, bells(range(10, 20)))


@pytest.mark.parametrize("name", ["", "a.b", "a b", "ä", "x" * 250])
def test_a_name_that_makes_no_topic_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        KafkaSettings(
            ("127.0.0.1:1",), prefix="goconductor", partitions=1, replication_factor=1
        ).topic("default", name)
