"""From doorbells to claims.

A sidecar takes only what it has free slots for, and nothing while the gate is closed. Doorbells
are acknowledged once the claim is durable, or once it is certain that there is nothing to do, or
given up after a bug; a step whose row is locked is asked for again. A sidecar that has heard
nothing for a while looks into the store for itself, so a lost doorbell costs seconds and needs no
leader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from sidecar.engine.failpoints import Site, failpoint
from sidecar.engine.gate import Gate
from sidecar.engine.group_commit import Committer
from sidecar.engine.slots import Slots
from sidecar.engine.supervision import LongTask
from sidecar.errors import GoConductorError, QueueError
from sidecar.ports import telemetry as metrics
from sidecar.ports.entropy import Entropy
from sidecar.ports.queue import Delivery, Queue, Refused
from sidecar.ports.store import Missing
from sidecar.ports.telemetry import Telemetry
from sidecar.saga.workflow import StepKey, WorkflowId

log = structlog.get_logger("sidecar.receiving")

T = TypeVar("T")

LOOK_BATCH_MAX = 200
QUEUE_PAUSE_S = 0.5
ASK_AGAIN_S = 0.05
ASK_AGAIN_TIMES = 20
CLAIMS_END_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class LookInterval:
    """How long without a doorbell before looking into the store, in seconds; backs off."""

    first_s: float = 2.0
    last_s: float = 5.0


class Receiver:
    """The intake of one sidecar."""

    def __init__(
        self,
        queue: Queue,
        slots: Slots,
        committer: Committer,
        *,
        gate: Gate,
        entropy: Entropy,
        telemetry: Telemetry,
        look: LookInterval,
    ) -> None:
        self._queue = queue
        self._slots = slots
        self._committer = committer
        self._gate = gate
        self._entropy = entropy
        self._telemetry = telemetry
        self._look = look
        self._interval = look.first_s
        self._task = LongTask("receiver", self._receive_for_ever)
        self._claims: set[asyncio.Task[Any]] = set()
        self._hesitating: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Start to receive."""
        self._task.start()

    async def stop(self) -> None:
        """Take nothing any more; claims under way are finished, if the store answers in time."""
        for one in self._hesitating:  # for room that may never come
            one.cancel()
        await self._task.stop()
        try:
            async with asyncio.timeout(CLAIMS_END_WITHIN_S):
                await asyncio.gather(*self._claims, return_exceptions=True)
        except TimeoutError:
            log.warning("claims_given_up", count=len(self._claims))

    def retry(self, workflow: WorkflowId, key: StepKey) -> None:
        """Claim one step as soon as there is room: the local timer of a retry."""
        if self._task.running:
            self._hesitating.add(self._spawn(self._claim_one(workflow, key)))

    @property
    def has_room(self) -> bool:
        """Whether a step may be claimed now: it receives, the gate lets it, and a slot is free.

        Never with a queue of messages: the slots that are free now are promised to those that it
        is about to deliver.
        """
        receives = self._task.running and self._queue.capabilities.same_store
        return receives and self._room_now() > 0

    async def _receive_for_ever(self) -> None:
        await (self._looking() if self._queue.capabilities.same_store else self._hearing())

    # -- a queue that is the store: receiving is claiming ---------------------------------------

    async def _looking(self) -> None:
        while True:
            wanted = await self._room()
            found = await self._look_into_store(wanted)
            if found < wanted:
                wait = 0.0 if found else self._patience()
                await self._receive(wanted, wait or self._look.first_s)

    # -- a queue with messages --------------------------------------------------------------------

    async def _hearing(self) -> None:
        while True:
            wanted = await self._room()
            deliveries = await self._receive(wanted, self._patience())
            if deliveries:
                self._interval = self._look.first_s
                self._slots.take(len(deliveries))
                self._spawn(self._answer(deliveries))
            else:
                await self._look_into_store(self._room_now())  # it may have shrunk meanwhile

    async def _answer(self, deliveries: Sequence[Delivery | Refused]) -> None:
        try:
            await self._claim(deliveries)
        except Exception:
            # What hangs unacknowledged holds up all that comes after it; the steps stand in the
            # store, where a look or the leader finds them.
            log.exception("claim_failed", count=len(deliveries))
            await self._ack(deliveries)
        finally:
            self._slots.give_back(len(deliveries))

    async def _claim(self, deliveries: Sequence[Delivery | Refused]) -> None:
        refused = [one for one in deliveries if isinstance(one, Refused)]
        for one in refused:
            self._telemetry.count(metrics.DOORBELLS_RECEIVED, result="undecodable")
            log.error("doorbell_undecodable", reason=one.reason)
        await self._ack(refused)
        waiting = [one for one in deliveries if isinstance(one, Delivery)]
        for _ in range(ASK_AGAIN_TIMES):
            if not waiting:
                break
            keys = [(one.doorbell.workflow, one.doorbell.key) for one in waiting]
            failpoint(Site.BEFORE_CLAIM)
            answers = await self._committer.claim(keys)
            done: list[Delivery] = []
            again: list[Delivery] = []
            for delivery, answer in zip(waiting, answers, strict=True):
                if answer in (Missing.LOCKED, Missing.UNKNOWN):
                    again.append(delivery)
                else:
                    result = answer.value if isinstance(answer, Missing) else "claimed"
                    self._telemetry.count(metrics.DOORBELLS_RECEIVED, result=result)
                    done.append(delivery)
            await self._ack(done)
            waiting = again
            if waiting:
                await asyncio.sleep(ASK_AGAIN_S * (0.5 + self._entropy.chance()))
        for delivery in waiting:
            self._telemetry.count(metrics.DOORBELLS_RECEIVED, result="given_up")
            log.warning("doorbell_names_nothing", workflow=delivery.doorbell.workflow)
        await self._ack(waiting)

    async def _ack(self, deliveries: Sequence[Delivery | Refused]) -> None:
        if not deliveries:
            return
        try:
            failpoint(Site.BEFORE_ACK)
            await self._queue.ack(deliveries)
            failpoint(Site.AFTER_ACK)
        except QueueError as error:
            log.warning("ack_failed", count=len(deliveries), error=error.message)
        except Exception:
            # They come again; what was not claimed yet must still be.
            log.exception("ack_failed", count=len(deliveries))

    # -- both -------------------------------------------------------------------------------------

    async def _room(self) -> int:
        """Wait until work may be taken; return how much. In a trial of the gate it is one."""
        while True:
            await self._gate.wait_open()
            await self._slots.wait_free()
            room = self._room_now()
            if room > 0:
                return room
            if self._gate.is_open:
                await self._slots.wait_change()

    def _room_now(self) -> int:
        return min(self._slots.free, LOOK_BATCH_MAX, self._gate.limit - self._slots.used)

    def _patience(self) -> float:
        wait = self._interval * (0.8 + 0.4 * self._entropy.chance())
        self._interval = min(self._interval * 1.5, self._look.last_s)
        return wait

    async def _receive(self, limit: int, wait: float) -> Sequence[Delivery | Refused]:
        try:
            deliveries = await self._queue.receive(limit, wait)
            if deliveries:
                failpoint(Site.AFTER_RECEIVE)
        except QueueError as error:
            log.warning("queue_unavailable", error=error.message)
        except Exception:
            # A receiver that died would never take anything again.
            log.exception("receive_failed")
        else:
            return deliveries
        await asyncio.sleep(QUEUE_PAUSE_S * (0.5 + self._entropy.chance()))
        return ()

    async def _look_into_store(self, limit: int) -> int:
        if limit <= 0:
            return 0
        self._slots.take(limit)
        # Apart, since a claim that is given up may be durable all the same: `stop` waits for it.
        look = self._spawn(self._claim_due(limit))
        found = await asyncio.shield(look)
        if found is None:
            await asyncio.sleep(QUEUE_PAUSE_S)
            return 0
        self._telemetry.count(metrics.LOOKS, found="some" if found else "none")
        if found:
            self._interval = self._look.first_s
        return found

    async def _claim_due(self, limit: int) -> int | None:
        """Return how many steps were claimed, None if that could not be asked."""
        try:
            failpoint(Site.LOOK)
            return await self._committer.claim_due(limit)
        except GoConductorError as error:
            log.warning("look_failed", error=error.message)
        except Exception:
            log.exception("look_failed")
        finally:
            self._slots.give_back(limit)
        return None

    async def _claim_one(self, workflow: WorkflowId, key: StepKey) -> None:
        await self._room()
        self._slots.take()
        if (mine := asyncio.current_task()) is not None:
            self._hesitating.discard(mine)
        try:
            failpoint(Site.BEFORE_CLAIM)
            await self._committer.claim([(workflow, key)])
        finally:
            self._slots.give_back()

    def _spawn(self, work: Coroutine[None, None, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._claims.add(task)
        task.add_done_callback(self._claimed)
        return task

    def _claimed(self, task: asyncio.Task[Any]) -> None:
        self._claims.discard(task)
        self._hesitating.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("claim_failed", error=str(error))
