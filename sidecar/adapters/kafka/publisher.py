"""The publishing side: one producer, replaced whenever it fails.

Messages go to the partitions in turn and without a key, so that doorbells spread evenly.
A call takes all its messages to the producer first and then waits for all of them together.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import structlog
from aiokafka import AIOKafkaProducer

from sidecar.adapters.kafka import driver
from sidecar.adapters.kafka.settings import KafkaSettings
from sidecar.adapters.kafka.topics import ensure_topics
from sidecar.errors import QueueUnavailable
from sidecar.ports import telemetry as metrics
from sidecar.ports.telemetry import Telemetry

_log = structlog.get_logger("sidecar.kafka")


class _InTurn:
    """A partitioner: one partition after the other, from a random one on."""

    def __init__(self) -> None:
        self._next = random.randrange(1 << 16)  # noqa: S311

    def __call__(self, _key: bytes | None, known: list[int], available: list[int]) -> int:
        """Return the partition of the next message."""
        self._next += 1
        choice = available or known
        return choice[self._next % len(choice)]


class Publisher:
    """Takes messages to topics, and makes the topics that are missing."""

    def __init__(self, settings: KafkaSettings, telemetry: Telemetry) -> None:
        self._settings = settings
        self._telemetry = telemetry
        self._producer: AIOKafkaProducer | None = None
        self._known: set[str] = set()
        self._starting = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def open(self, topic: str) -> None:
        """Connect, and make sure that `topic` exists. Raises `QueueUnavailable`."""
        with driver.translated("connecting"):
            async with asyncio.timeout(self._settings.call_s):
                await self._ready()
                await self._ensure({topic})

    async def close(self) -> None:
        """Let go of the producer; harmless when repeated."""
        producer, self._producer = self._producer, None
        if producer is not None:
            self._let_go(producer)
        await asyncio.gather(*self._closing)

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish `(topic, message)` pairs; return once the broker has all of them.

        Raises `QueueUnavailable`; the producer is then replaced by the next call.
        """
        producer: AIOKafkaProducer | None = None
        try:
            with driver.translated("publishing"):
                async with asyncio.timeout(self._settings.call_s):
                    producer = await self._ready()
                    await self._ensure({topic for topic, _ in messages})
                    await driver.apart(producer, _send(producer, messages))
        except QueueUnavailable as error:
            if producer is not None:
                self._discard(producer, error)
            raise

    async def _ready(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    **self._settings.client_options(),
                    acks="all",
                    enable_idempotence=True,
                    partitioner=_InTurn(),
                )
                try:
                    await driver.apart(producer, producer.start())
                except BaseException:
                    self._let_go(producer)
                    raise
                self._producer = producer
            return self._producer

    async def _ensure(self, topics: set[str]) -> None:
        missing = topics - self._known
        if missing:
            await ensure_topics(self._settings, missing)
            self._known |= missing

    def _discard(self, producer: AIOKafkaProducer, error: QueueUnavailable) -> None:
        """Forget a producer that failed, and the topics it was sure of."""
        self._known.clear()
        if self._producer is producer:
            self._producer = None
            self._telemetry.count(metrics.QUEUE_REBUILDS, part="publisher", why="failed")
            self._telemetry.fact("queue_rebuild", part="publisher", why="failed")
            _log.warning("kafka_publisher_replaced", why=error.message)
            self._let_go(producer)

    def _let_go(self, producer: AIOKafkaProducer) -> None:
        task = asyncio.create_task(
            driver.stop(producer, within_s=self._settings.close_s), name="kafka-producer-close"
        )
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


async def _send(producer: AIOKafkaProducer, messages: Sequence[tuple[str, bytes]]) -> None:
    sent = [await producer.send(topic, value) for topic, value in messages]
    await asyncio.gather(*sent)
