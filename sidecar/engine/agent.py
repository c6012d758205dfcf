"""One sidecar as one thing that starts, drains and stops.

Starting: the store answers, the committer writes, the queue and the notices connect in the
background, the gate waits for the service, and only then is anything claimed.

Draining, on SIGTERM: say so (readiness is false, the heartbeat tells), stop receiving, leave the
consumer group, resign; wait for calls under way while the budget lasts; settle them, ring for what
they made claimable; say goodbye. A leader then ends at once the leases of what is not finished.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from sidecar.engine.callbacks import KEY_NAME, Attempt, Tokens
from sidecar.engine.calling import Caller, CallingPorts
from sidecar.engine.commands import Commands
from sidecar.engine.compiled import CompiledDefinitions
from sidecar.engine.courier import Courier
from sidecar.engine.duties import Duties
from sidecar.engine.failpoints import Site, failpoint
from sidecar.engine.gate import Gate
from sidecar.engine.group_commit import CommitLimits, Committer
from sidecar.engine.heartbeat import Heartbeat
from sidecar.engine.identity import Identity
from sidecar.engine.leadership import Leadership
from sidecar.engine.limiting import Limiter
from sidecar.engine.loop_lag import watch_loop
from sidecar.engine.oversight import Oversight
from sidecar.engine.parts import Ports, Settings
from sidecar.engine.publishing import Publishing
from sidecar.engine.queries import Queries
from sidecar.engine.receiving import Receiver
from sidecar.engine.ringing import Ringer, changes_of
from sidecar.engine.slots import Slots
from sidecar.engine.supervision import LongTask
from sidecar.engine.tasks import Tasks
from sidecar.engine.turns import Turns
from sidecar.engine.verbs import Verbs
from sidecar.engine.waiting import WaitHub
from sidecar.errors import GoConductorError, QueueError, StoreUnavailable
from sidecar.ports.store import Batch, BatchResult, Claimed
from sidecar.saga.changes import Changes

__all__ = ["Agent", "Ports", "Settings"]

log = structlog.get_logger("sidecar.agent")

QUEUE_PAUSE_S = 1.0


class Agent:
    """A sidecar without its faces: `commands`, `verbs`, `tasks`, `queries`, `waiting` are for them.

    `callback_base_url` is where callbacks are taken; it is to be set before `start`.
    """

    def __init__(self, identity: Identity, ports: Ports, settings: Settings) -> None:
        self.identity = identity
        self.callback_base_url = "http://127.0.0.1:7400"
        self._tokens: Tokens | None = None
        self._ports = ports
        self._settings = settings
        self._draining = False
        self._tasks: list[asyncio.Task[None]] = []
        self._gate_moved = asyncio.Event()
        self._following = LongTask("follow-gate", self._follow_gate)
        clock, entropy, telemetry = ports.clock, ports.entropy, ports.telemetry
        self.slots = Slots(settings.concurrency)
        self.compiled = CompiledDefinitions(ports.store)
        self.gate = Gate(
            ports.service,
            on_change=self._gate_changed,
            clock=clock,
            entropy=entropy,
            telemetry=telemetry,
        )
        self.committer = Committer(
            ports.store,
            identity,
            CommitLimits(
                lease_margin=settings.lease_margin,
                max_batch=settings.max_batch,
                writers=settings.writers,
            ),
            after=self._after_commit,
            clock=clock,
            entropy=entropy,
            telemetry=telemetry,
        )
        self.courier = Courier(self.committer)
        self.turns = Turns(ports.store, self.committer, ports.clock)
        self.publishing = Publishing(ports.store, identity, settings.catalogue)
        self.caller = self._made_caller()
        self.receiver = Receiver(
            ports.queue,
            self.slots,
            self.committer,
            gate=self.gate,
            entropy=entropy,
            telemetry=telemetry,
            look=settings.look,
        )
        self.ringer = Ringer(
            identity.service, ports.queue, ports.notices, telemetry, self.receiver.retry
        )
        self.heartbeat = self._made_heartbeat()
        self.queries = Queries(ports.store, self.compiled, clock)
        self.waiting = WaitHub(ports.store, ports.notices, telemetry)
        self.commands = self._made_commands()
        self.verbs = Verbs(self.committer, self.queries, entropy)
        self.tasks = self._made_tasks()
        self.oversight = self._made_oversight()
        self.leadership = self._made_leadership()

    def _made_caller(self) -> Caller:
        ports, limits = self._ports, self._settings.rate_limits
        return Caller(
            CallingPorts(ports.service, ports.clock, ports.entropy, ports.telemetry),
            self.committer,
            self.slots,
            self.compiled.get,
            Limiter(ports.store, self.identity, limits, ports.clock, ports.telemetry),
            catalogue=self._settings.catalogue,
            lease_margin=self._settings.lease_margin,
            record=self.gate.record,
            may_take_more=lambda: self.gate.is_open and not self._draining,
            callback_url=self._callback_url,
        )

    def _made_heartbeat(self) -> Heartbeat:
        return Heartbeat(
            self._ports.store,
            self.identity,
            lambda: self.ready,
            lambda: self.publishing.version,
            interval_s=self._settings.heartbeat_s,
        )

    def _made_oversight(self) -> Oversight:
        ports = self._ports
        return Oversight.over(
            ports.store,
            self.compiled,
            self.commands,
            self.queries,
            self.verbs,
            self.identity.incarnation,
            ports.telemetry,
            ports.clock,
            ports.entropy,
            silent_after=self._settings.duties.silent_after,
        )

    def _made_tasks(self) -> Tasks:
        return Tasks(
            self._ports.store,
            self.committer,
            self._ports.entropy,
            self.identity.namespace,
            self._attempts,
            self.compiled.get,
        )

    def _callback_url(self, claimed: Claimed) -> str:
        attempt = Attempt(claimed.workflow, claimed.key, claimed.action, claimed.attempt)
        return self._attempts().url(attempt)

    def _attempts(self) -> Tokens:
        if self._tokens is None:
            raise StoreUnavailable("the key of callbacks has not been read yet")
        return self._tokens

    def _made_commands(self) -> Commands:
        return Commands(
            self._ports.store,
            self.committer,
            self.compiled,
            self._ports.entropy,
            self.slots,
            self.identity.service,
            may_claim=lambda: self.receiver.has_room and not self._draining,
            offered=self._settings.catalogue.actions.keys(),
            silent_after=self._settings.duties.silent_after,
        )

    def _made_leadership(self) -> Leadership:
        ports, times = self._ports, self._settings.duties
        duties = Duties(
            ports.store,
            self.ringer,
            self.identity,
            times,
            compiled=self.compiled,
            take_bulk=self.oversight.bulk.work_on,
            spread=self._spread,
            look=self.turns.look,
            clock=ports.clock,
            entropy=ports.entropy,
            telemetry=ports.telemetry,
        )
        return Leadership(
            ports.election,
            ports.store,
            duties,
            self.identity,
            times,
            clock=ports.clock,
            entropy=ports.entropy,
            telemetry=ports.telemetry,
        )

    @property
    def ready(self) -> bool:
        """Whether this sidecar takes work: the gate is open, it commits, and is not draining."""
        return self.gate.is_open and self.committer.sound and not self._draining

    async def ping_store(self) -> None:
        """Raise `StoreUnavailable` unless the store answers."""
        await self._ports.store.ping()

    async def start(self) -> None:
        """Start everything. Raises `StoreError` when the store is not usable."""
        ports = self._ports
        await ports.store.open()
        key = await ports.store.get_key(self.identity.namespace, KEY_NAME, ports.entropy.key())
        self._tokens = Tokens(key, self.callback_base_url)
        await self.publishing.publish()
        await ports.service.open()
        await ports.notices.open()
        await ports.election.open()
        await self.waiting.open()
        await self.committer.start()
        await self.ringer.start()
        self._following.start()
        await self.gate.start()
        await self.heartbeat.start()
        await self.leadership.start()
        self._tasks = [
            asyncio.create_task(self._open_queue(), name="open-queue"),
            asyncio.create_task(watch_loop(ports.clock, ports.telemetry), name="loop-lag"),
        ]
        log.info("started", service=self.identity.service, incarnation=self.identity.incarnation)

    async def drain(self) -> None:
        """Take no more work, and finish what is under way within the budget."""
        if self._draining:
            return
        self._draining = True
        self.heartbeat.draining = True
        log.info("draining", in_flight=self.slots.used)
        try:
            async with asyncio.timeout(self._settings.drain_s):
                await self._drain_stage(Site.DRAIN_BEGAN, self.oversight.bulk.stop)
                await self._drain_stage(Site.DRAIN_STOPPED_RECEIVING, self.receiver.stop)
                await self._drain_stage(Site.DRAIN_LEFT_QUEUE, self._leave_queue)
                await self._drain_stage(Site.DRAIN_RESIGNED, self.leadership.stop)
                await self._drain_stage(Site.DRAINED, self.slots.wait_unused)
        except TimeoutError:
            log.warning("drain_ended_early", in_flight=self.slots.used)

    async def _drain_stage(
        self, reached: Site, work: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Do one part of the draining; a bug in it keeps no other from being done."""
        try:
            if work is not None:
                await work()
            failpoint(reached)
        except Exception:
            log.exception("drain_stage_failed", stage=reached.value)

    async def stop(self) -> None:
        """Drain, and let go of everything."""
        await self.drain()
        await self.oversight.bulk.stop()
        await self._following.stop()  # the budget may have ended before its turn came
        await self.leadership.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.caller.give_back_from_now_on()
        await self.caller.stop()
        await self.courier.stop()
        await self.turns.stop()
        await self.committer.stop()
        await self.caller.stop()  # what the last commit claimed
        await self.ringer.stop()
        await self.gate.stop()
        await self.waiting.close()
        await self.heartbeat.stop()
        ports = self._ports
        for part in (ports.queue, ports.election, ports.notices, ports.service, ports.store):
            try:
                await part.close()
            except GoConductorError as error:
                log.warning("close_failed", part=type(part).__name__, error=error.message)
            except Exception:
                log.exception("close_failed", part=type(part).__name__)
        log.info("stopped")

    async def _leave_queue(self) -> None:
        await self._following.stop()
        try:
            await self._ports.queue.pause()
        except QueueError as error:
            log.warning("queue_not_left", error=error.message)
        except Exception:
            # The draining must go on to its end.
            log.exception("queue_not_left")

    def _after_commit(self, batch: Batch, result: BatchResult, began: float) -> None:
        for claimed in result.claimed:
            self.caller.take(claimed, began)
        self.ringer.after(batch, result)
        self._spread(changes_of(result))

    def _spread(self, changes: Sequence[Changes]) -> None:
        """Bring what transitions mean for other workflows."""
        self.courier.deliver(changes)
        self.turns.follow(changes)

    def _gate_changed(self, *, is_open: bool, reason: str) -> None:
        log.info("gate_open" if is_open else "gate_closed", reason=reason)
        self._gate_moved.set()

    async def _follow_gate(self) -> None:
        """Take part in the queue while the gate is open, and leave it to others while it is not.

        What the queue refuses is asked of it again: the gate may not move for a long time.
        """
        queue = self._ports.queue
        while True:
            await self._gate_moved.wait()
            is_open = self.gate.is_open
            try:
                await (queue.resume() if is_open else queue.pause())
            except QueueError as error:
                log.warning("queue_did_not_follow_the_gate", error=error.message)
                await asyncio.sleep(QUEUE_PAUSE_S)
                continue
            if is_open is self.gate.is_open:
                self._gate_moved.clear()

    async def _open_queue(self) -> None:
        """Open the queue however long it takes; without it the looks into the store go on."""
        is_open = await self._try_to_open_queue()
        while not self._draining:
            await self.receiver.start()
            if is_open:
                return
            await asyncio.sleep(QUEUE_PAUSE_S)
            is_open = await self._try_to_open_queue()
        await self._leave_queue()

    async def _try_to_open_queue(self) -> bool:
        try:
            await self._ports.queue.open()
        except QueueError as error:
            log.warning("queue_unavailable", error=error.message)
        except Exception:
            # Nobody else would start to receive.
            log.exception("queue_failed_to_open")
        else:
            return True
        return False
