"""The leader's duties: healing what nobody else will.

Each duty is a bounded, idempotent batch under the leader's epoch. None of them is needed while
all is well; all of them may be done twice, or by two leaders, without harm: every write goes
through the machine, and a leader whose epoch is void has its whole transaction refused.

- `leases`: ends the leases that ran out, and at once those of sidecars that fell silent
- `deadlines`: turns workflows back whose time is over
- `ring_again`: rings for steps that have long been claimable, each one ever more rarely
- `sidecars`: forgets sidecars that have been silent for long
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import structlog

from sidecar.engine.identity import Identity
from sidecar.engine.ringing import Ringer
from sidecar.ports import telemetry as metrics
from sidecar.ports.clock import Clock
from sidecar.ports.entropy import Entropy
from sidecar.ports.queue import Doorbell
from sidecar.ports.store import Batch, Epoch, Moved, Store, Transition
from sidecar.ports.telemetry import Telemetry
from sidecar.saga.events import DeadlinePassed, LeaseEnded

log = structlog.get_logger("sidecar.duties")

BATCH_MAX = 200
RUNG_REMEMBERED = 10_000
RING_PER_SERVICE = 500


@dataclass(frozen=True, slots=True)
class DutyTimes:
    """`every` is the pause between rounds; the others say how long is too long."""

    every: timedelta = timedelta(seconds=1)
    silent_after: timedelta = timedelta(seconds=20)
    ring_after: timedelta = timedelta(seconds=10)
    ring_at_most_every: timedelta = timedelta(minutes=5)
    forget_after: timedelta = timedelta(hours=1)


class Duties:
    """All duties of one leader; `round` does each of them once."""

    def __init__(
        self,
        store: Store,
        ringer: Ringer,
        identity: Identity,
        times: DutyTimes,
        *,
        clock: Clock,
        entropy: Entropy,
        telemetry: Telemetry,
    ) -> None:
        self._store = store
        self._ringer = ringer
        self._identity = identity
        self._times = times
        self._clock = clock
        self._entropy = entropy
        self._telemetry = telemetry
        self._ticket = 0
        self._rung: OrderedDict[Doorbell, tuple[float, float]] = OrderedDict()
        self._duties: dict[str, Callable[[Epoch], Awaitable[int]]] = {
            "leases": self._end_leases,
            "deadlines": self._end_overdue,
            "ring_again": self._ring_again,
            "sidecars": self._forget_sidecars,
        }

    async def round(self, epoch: Epoch, *, may_end_leases: bool) -> None:
        """Do each duty once. Raises `StoreError`; what was done before stays done."""
        for name, duty in self._duties.items():
            if name == "leases" and not may_end_leases:
                continue
            done = await duty(epoch)
            self._telemetry.count(metrics.DUTY_RUNS, duty=name, result="done")
            if done:
                self._telemetry.count(metrics.DUTY_DONE, done, duty=name)
                self._telemetry.fact(f"duty.{name}", items=done)
                log.info("duty_done", duty=name, items=done)

    async def _end_leases(self, epoch: Epoch) -> int:
        namespace = self._identity.namespace
        leases = await self._store.ended_leases(namespace, self._times.silent_after, BATCH_MAX)
        events = [
            Transition(
                one.workflow,
                LeaseEnded(one.key, one.action, one.attempt, self._entropy.chance()),
            )
            for one in leases
        ]
        return await self._apply(epoch, events)

    async def _end_overdue(self, epoch: Epoch) -> int:
        overdue = await self._store.overdue_workflows(self._identity.namespace, BATCH_MAX)
        return await self._apply(epoch, [Transition(one, DeadlinePassed()) for one in overdue])

    async def _ring_again(self, epoch: Epoch) -> int:
        """Ring for each step again, at most twice as late every time; bounded per service."""
        del epoch  # doorbells change nothing, so they need no fence
        found = await self._store.ringable_steps(
            self._identity.namespace, self._times.ring_after, BATCH_MAX
        )
        now = self._clock.monotonic()
        per_service: dict[str, int] = {}
        due: list[Doorbell] = []
        for one in found:
            doorbell = one.doorbell
            next_at, pause = self._rung.get(doorbell, (now, 0.0))
            used = per_service.get(doorbell.service, 0)
            if next_at > now or used >= RING_PER_SERVICE:
                continue
            per_service[doorbell.service] = used + 1
            longest = self._times.ring_at_most_every.total_seconds()
            pause = min(max(pause * 2, self._times.ring_after.total_seconds()), longest)
            self._rung[doorbell] = (now + pause, pause)
            self._rung.move_to_end(doorbell)
            due.append(doorbell)
        while len(self._rung) > RUNG_REMEMBERED:
            self._rung.popitem(last=False)
        if due:
            self._ringer.ring(due)
        return len(due)

    async def _forget_sidecars(self, epoch: Epoch) -> int:
        return await self._store.forget_sidecars(
            self._identity.namespace, self._times.forget_after, epoch
        )

    async def _apply(self, epoch: Epoch, transitions: list[Transition]) -> int:
        if not transitions:
            return 0
        self._ticket += 1
        batch = Batch(
            namespace=self._identity.namespace,
            service="",
            incarnation=f"{self._identity.incarnation}/leader",
            ticket=self._ticket,
            lease_margin=timedelta(),
            transitions=tuple(transitions),
            epoch=epoch,
        )
        result = await self._store.commit(batch)
        moved = [one for one in result.transitions if isinstance(one, Moved)]
        for answer in result.transitions:
            if isinstance(answer, Exception):
                log.warning("duty_refused", error=str(answer))
        self._ringer.conclude((one.changes for one in moved), result.now)
        return sum(1 for one in moved if one.changes.writes)
