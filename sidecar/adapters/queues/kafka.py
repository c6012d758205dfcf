"""The queue on Kafka: one topic for each service and namespace, one consumer group on each.

Promise: at-least-once; every call ends within a deadline; a client that failed or stands still
is replaced by a new one, for ever, with a capped and jittered back-off.

    publish ─▶ Publisher ─▶ topic <prefix>.<namespace>.<service> ─▶ Member ─▶ receive … ack

`_tend` owns the receiving side. It keeps one `Member` alive while receiving is wanted:

    wanted ─▶ topic ensured, member started ─▶ watched ─▶ closed ─▶ wanted? from the start
                        │ failed: pause           ends when broken, stalled, or unwanted

While there is no member `receive` waits, and raises `QueueUnavailable` with the last trouble.
Only a wait in vain is suspicious: a member that has waited `stall_s` without anything is asked
whether its topic is there and whether there is something it should have got.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress

import structlog

from sidecar.adapters import doorbells as wire
from sidecar.adapters.kafka import driver
from sidecar.adapters.kafka.member import Member, Token
from sidecar.adapters.kafka.publisher import Publisher
from sidecar.adapters.kafka.settings import KafkaSettings
from sidecar.adapters.kafka.topics import ensure_topics
from sidecar.errors import QueueUnavailable
from sidecar.ports import telemetry as metrics
from sidecar.ports.queue import Delivery, Doorbell, QueueCapabilities, Refused
from sidecar.ports.telemetry import Telemetry

_FIRST_PAUSE_S = 0.1
_LAST_PAUSE_S = 5.0
_LOOK_EVERY_S = 0.5
_SILENT_INSPECTIONS = 2

_log = structlog.get_logger("sidecar.kafka")


class KafkaQueue:
    """The doorbells of `service` in `namespace`."""

    def __init__(
        self, settings: KafkaSettings, *, namespace: str, service: str, telemetry: Telemetry
    ) -> None:
        self._settings = settings
        self._namespace = namespace
        self._service = service
        self._telemetry = telemetry
        self._topic = settings.topic(namespace, service)
        self._publisher = Publisher(settings, telemetry)
        self._member: Member | None = None
        self._there = asyncio.Event()
        self._gone = asyncio.Event()
        self._gone.set()
        self._wanted = asyncio.Event()
        self._unwanted = asyncio.Event()
        self._trouble: QueueUnavailable | None = None
        self._tender: asyncio.Task[None] | None = None

    @property
    def capabilities(self) -> QueueCapabilities:
        """See the port."""
        return QueueCapabilities()

    async def open(self) -> None:
        """See the port. Joining the group goes on after the return."""
        driver.keep_driver_quiet()
        try:
            await self._publisher.open(self._topic)
        except BaseException:
            await self._publisher.close()
            raise
        if self._tender is None:
            self._want(True)
            self._tender = asyncio.create_task(self._tend(), name="kafka-tender")

    async def close(self) -> None:
        """See the port."""
        tender, self._tender = self._tender, None
        self._want(False)
        if tender is not None:
            tender.cancel()
        await asyncio.gather(
            *(() if tender is None else (tender,)), self._publisher.close(), return_exceptions=True
        )

    async def publish(self, doorbells: Sequence[Doorbell]) -> None:
        """See the port."""
        if doorbells:
            topics = {
                service: self._settings.topic(self._namespace, service)
                for service in {doorbell.service for doorbell in doorbells}
            }
            await self._publisher.publish(
                [(topics[doorbell.service], wire.encode(doorbell)) for doorbell in doorbells]
            )

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery | Refused]:
        """See the port."""
        loop = asyncio.get_running_loop()
        end = loop.time() + wait
        try:
            async with asyncio.timeout_at(end):
                await self._there.wait()
        except TimeoutError:
            if self._trouble is not None:
                raise QueueUnavailable(self._trouble.message) from self._trouble
        member = self._member
        if member is None:
            return ()
        return await member.receive(limit, max(0.0, end - loop.time()))

    async def ack(self, deliveries: Sequence[Delivery | Refused]) -> None:
        """See the port. Offsets are committed soon after; a failure shows as repetition."""
        tokens = [one.token for one in deliveries if isinstance(one.token, Token)]
        if self._member is not None and tokens:
            self._member.ack(tokens)

    async def pause(self) -> None:
        """See the port. What was not acknowledged comes again, to whoever is left."""
        self._want(False)
        if self._tender is not None:
            with suppress(TimeoutError):  # one that is being started ends a little later
                async with asyncio.timeout(self._settings.call_s):
                    await self._gone.wait()

    async def resume(self) -> None:
        """See the port."""
        self._want(True)

    def _want(self, wanted: bool) -> None:  # noqa: FBT001
        now, other = (self._wanted, self._unwanted) if wanted else (self._unwanted, self._wanted)
        now.set()
        other.clear()
        if not wanted and self._member is not None:
            self._member.ended.set()

    async def _tend(self) -> None:
        pause = _FIRST_PAUSE_S
        while True:
            self._trouble = None if not self._wanted.is_set() else self._trouble
            await self._wanted.wait()
            why = await self._live_once()
            if why is None:
                pause = _FIRST_PAUSE_S
                continue
            self._telemetry.count(metrics.QUEUE_REBUILDS, part="member", why=why)
            self._telemetry.fact("queue_rebuild", part="member", why=why)
            try:
                async with asyncio.timeout(pause * random.uniform(0.5, 1.0)):  # noqa: S311
                    await self._unwanted.wait()
            except TimeoutError:
                pause = min(pause * 2, _LAST_PAUSE_S)

    async def _live_once(self) -> str | None:
        """One member from start to end; why it has to be replaced, None if it is unwanted."""
        self._gone.clear()
        member = Member(self._settings, topic=self._topic, group=self._topic, service=self._service)
        try:
            await ensure_topics(self._settings, (self._topic,))
            await member.start()
            self._trouble, self._member = None, member
            self._there.set()
            why = await self._watch(member)
        except QueueUnavailable as error:
            self._trouble = error
            _log.warning("kafka_member_failed", why=error.message)
            return "not_started"
        except asyncio.CancelledError:
            if driver.asked_to_end():
                raise
            why = "failed"
        except Exception:  # noqa: BLE001  (nobody else would start another)
            _log.exception("kafka_member_crashed")
            why = "failed"
        finally:
            self._member = None
            self._there.clear()
            try:
                await member.close()
            finally:
                self._gone.set()
        if why is not None:
            _log.warning("kafka_member_replaced", topic=self._topic, why=member.why_broken or why)
        return why

    async def _watch(self, member: Member) -> str | None:
        """Return when the member must end: why, or None if it is only unwanted."""
        inspected_at, silent = 0.0, 0
        while not self._unwanted.is_set():
            try:
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await member.ended.wait()
            except TimeoutError:
                waited = member.waited
                if waited < inspected_at:
                    inspected_at, silent = 0.0, 0
                if waited - inspected_at < self._settings.stall_s:
                    continue
            else:
                return None if self._unwanted.is_set() else "failed"
            inspected_at = waited
            try:
                why = await member.inspect()
            except driver.DRIVER_ERRORS as error:
                silent += 1
                _log.info("kafka_inspection_failed", why=driver.describe(error))
                why = "silent" if silent >= _SILENT_INSPECTIONS else None
            else:
                silent = 0
            if why is not None:
                return why
        return None
