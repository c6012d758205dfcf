"""The receiving side: one life of one member of a consumer group.

A member is started once, and closed once. It never mends itself: `ended` says that it failed,
`inspect` whether it makes progress; whoever owns it then starts another.

Offsets are committed only up to the oldest delivery that is still open (`Watermark`), at most
every `commit_every_s`, and once more before partitions are given away. A delivery's token is
its watermark and offset: after a rebalance the watermark is another one, so an ack that comes
late changes nothing, and the delivery comes again to whoever has the partition then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, ConsumerStoppedError, IllegalStateError

from sidecar.adapters import doorbells
from sidecar.adapters.kafka import driver
from sidecar.adapters.kafka.settings import KafkaSettings
from sidecar.adapters.watermarks import Watermark
from sidecar.errors import QueueUnavailable
from sidecar.ports.queue import Delivery, Refused

_FLUSH_WITHIN_S = 1.0
_GRACE_S = 0.05

_log = structlog.get_logger("sidecar.kafka")


class Token(NamedTuple):
    """What acknowledges a delivery."""

    watermark: Watermark
    offset: int


@dataclass(slots=True)
class _Lag:
    """A partition that has more to give than was read: where it stood, and since when."""

    place: int
    waited: float


class Member(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Receives the messages of `topic` as one of `group`."""

    def __init__(self, settings: KafkaSettings, *, topic: str, group: str, service: str) -> None:
        self._settings = settings
        self._topic = topic
        self._service = service
        self._marks: dict[TopicPartition, Watermark] = {}
        self._committing = asyncio.Lock()
        self._dirty = asyncio.Event()
        self._committer: asyncio.Task[None] | None = None
        self._waited = 0.0
        self._waiting_since: float | None = None
        self._lags: dict[TopicPartition, _Lag] = {}
        self.ended = asyncio.Event()
        self.why_broken = ""
        self._consumer = AIOKafkaConsumer(
            **settings.client_options(),
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=int(settings.session_s * 1000),
            heartbeat_interval_ms=int(settings.heartbeat_s * 1000),
            # A member without free slots gives its partitions to others after this long.
            max_poll_interval_ms=int(settings.poll_most_s * 1000),
            # A partition that was drained while a fetch is under way waits for its end.
            fetch_max_wait_ms=int(settings.fetch_wait_s * 1000),
            max_partition_fetch_bytes=settings.partition_fetch_bytes,
        )

    async def start(self) -> None:
        """Connect, and ask to join the group; joining goes on by itself.

        Raises `QueueUnavailable`.
        """
        with driver.translated("joining the group"):
            async with asyncio.timeout(self._settings.call_s):
                # Subscribing after the start, since a start would wait for the group for ever.
                await driver.apart(self._consumer, self._consumer.start())
                self._consumer.subscribe([self._topic], listener=self)
        self._committer = asyncio.create_task(self._commit_for_ever(), name="kafka-committer")

    async def close(self) -> None:
        """Commit what can be committed, leave the group and let go, under a deadline."""
        committer, self._committer = self._committer, None
        try:
            if committer is not None:
                await driver.end([committer])
                await self._commit(_FLUSH_WITHIN_S)
        finally:
            self._marks.clear()
            await driver.stop(self._consumer, within_s=self._settings.close_s)

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery | Refused]:
        """Return what has come in, after `wait` seconds at most. Raises `QueueUnavailable`."""
        loop = asyncio.get_running_loop()
        self._waiting_since = began = loop.time()
        try:
            # Cancelled at any point, getmany has taken nothing from the driver's buffer. Its own
            # time-out does not count while the group is rebalancing, hence ours.
            async with asyncio.timeout(wait + _GRACE_S):
                batches = await self._consumer.getmany(
                    timeout_ms=int(wait * 1000), max_records=limit
                )
        except (TimeoutError, ConsumerStoppedError):
            batches = {}
        except asyncio.CancelledError as error:
            if driver.asked_to_end():
                raise
            self._break("its coordinator was cancelled")  # the driver hands such an end on to us
            raise QueueUnavailable("Kafka: the client ended by itself") from error
        except driver.DRIVER_ERRORS as error:
            self._break(driver.describe(error))
            with driver.translated("receiving"):
                raise
        finally:
            driver.note_that_nobody_fetches(self._consumer)
            self._waiting_since = None
            self._waited += loop.time() - began
        if not batches:
            return ()
        self._waited = 0.0
        self._lags.clear()
        return [
            self._deliver(partition, record.offset, record.value)
            for partition, records in batches.items()
            for record in records
        ]

    def ack(self, tokens: Sequence[Token]) -> None:
        """Close these deliveries; their offsets are committed soon."""
        for watermark, offset in tokens:
            watermark.ack(offset)
        self._dirty.set()

    @property
    def waited(self) -> float:
        """Seconds spent waiting since something was received last."""
        since = self._waiting_since
        now = asyncio.get_running_loop().time()
        return self._waited + (0.0 if since is None else now - since)

    async def inspect(self) -> str | None:
        """Say why this member should be replaced, if it has waited in vain for too long."""
        async with asyncio.timeout(self._settings.call_s):
            if self._topic not in await driver.apart(self._consumer, self._consumer.topics()):
                return "topic_missing"
            if not self._consumer.partitions_for_topic(self._topic):
                return "topic_made_again"  # unseen: the driver would find out minutes later
            assigned = bool(self._consumer.assignment())
            places = await driver.apart(self._consumer, self._unread())
        waited = self.waited
        patience = self._settings.stall_s
        if not assigned:
            patience *= self._settings.unassigned_stalls
        lags: dict[TopicPartition, _Lag] = {}
        for partition, place in places.items():
            before = self._lags.get(partition)
            same = before is not None and before.place == place and before.waited <= waited
            lags[partition] = before if before is not None and same else _Lag(place, waited)
        self._lags = lags
        stalled = any(waited - lag.waited >= patience for lag in lags.values())
        return "stalled" if stalled else None

    async def on_partitions_revoked(
        self,
        revoked: Collection[TopicPartition],  # noqa: ARG002
    ) -> None:
        """Commit what was acknowledged, before others continue from there."""
        if self._marks:
            await self._commit(_FLUSH_WITHIN_S)
        self._marks = {}

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Begin anew: positions are those that were committed."""
        self._marks = {}
        numbers = sorted(partition.partition for partition in assigned)
        _log.info("kafka_assigned", topic=self._topic, partitions=numbers)

    def _deliver(
        self, partition: TopicPartition, offset: int, value: bytes | None
    ) -> Delivery | Refused:
        watermark = self._marks.get(partition)
        if watermark is None or offset <= watermark.newest:  # the log was reset to an older place
            watermark = self._marks[partition] = Watermark()
        watermark.deliver(offset)
        if len(watermark) > self._settings.held_most:
            self._break("held_too_much")
        return doorbells.read(value, self._service, Token(watermark, offset))

    def _break(self, why: str) -> None:
        self.why_broken = self.why_broken or why
        self.ended.set()

    async def _unread(self) -> dict[TopicPartition, int]:
        """Where each partition stands that has more to give; the group's, if we have none."""
        consumer = self._consumer
        assigned: Collection[TopicPartition] = consumer.assignment()
        if assigned:
            ends = await consumer.end_offsets(assigned)
            places = {partition: await consumer.position(partition) for partition in assigned}
        else:
            numbers = consumer.partitions_for_topic(self._topic) or ()
            everything = [TopicPartition(self._topic, number) for number in numbers]
            ends = await consumer.end_offsets(everything)
            begins = await consumer.beginning_offsets(everything)
            places = {
                partition: max(await consumer.committed(partition) or 0, begins[partition])
                for partition in everything
            }
        return {partition: at for partition, at in places.items() if at != ends[partition]}

    async def _commit_for_ever(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            await self._commit(self._settings.call_s)
            await asyncio.sleep(self._settings.commit_every_s)

    async def _commit(self, within_s: float) -> None:
        """Write the positions that moved. A failure costs repeated deliveries, nothing more."""
        try:
            async with asyncio.timeout(within_s), self._committing:
                moved = {
                    partition: (mark, mark.position)
                    for partition, mark in self._marks.items()
                    if mark.moved and mark.position is not None
                }
                if not moved:
                    return
                places = {partition: place for partition, (_, place) in moved.items()}
                await driver.apart(self._consumer, self._consumer.commit(places))
                for mark, place in moved.values():
                    mark.written = place
        except (CommitFailedError, IllegalStateError) as error:
            # The group rebalanced: whoever has the partitions now gets these once more.
            _log.info("kafka_commit_refused", why=driver.describe(error))
        except driver.DRIVER_ERRORS as error:
            _log.warning("kafka_commit_failed", why=driver.describe(error))
            self._dirty.set()
        except asyncio.CancelledError:
            if driver.asked_to_end():
                raise
            _log.warning("kafka_commit_failed", why="its coordinator was cancelled")
            self._dirty.set()
