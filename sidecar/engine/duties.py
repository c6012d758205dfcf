"""The leader's duties: healing what nobody else will.

Each duty is a bounded, idempotent batch under the leader's epoch. None of them is needed while
all is well; all of them may be done twice, or by two leaders, without harm: every write goes
through the machine, and a leader whose epoch is void has its whole transaction refused. A duty
that fails keeps no other from being done, and a workflow that cannot be moved keeps no other
from being moved: its batch is halved until it stands alone, and it is put off. One question at
the beginning of a round tells which of them have anything to do, since mostly none has.

- `leases`: ends the leases that ran out, and at once those of sidecars that fell silent
- `timers`: lets steps go on that have waited long enough
- `letters`: brings what one workflow tells another and its sidecar did not bring
- `turns`: looks who can begin where a place was given back and nobody looked
- `deadlines`: turns workflows back whose time is over
- `reviews`, `debts`, `bulk`, `catalogues`: see `sidecar.engine.overseeing`
- `ring_again`: rings for steps that have long been claimable, each one ever more rarely
- `sidecars`: forgets sidecars that have been silent for long
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import timedelta

import structlog

from sidecar.engine.backing_off import BackingOff
from sidecar.engine.compiled import CompiledDefinitions
from sidecar.engine.debt import DebtBook
from sidecar.engine.duty_times import DutyTimes
from sidecar.engine.failpoints import Site, failpoint
from sidecar.engine.identity import Identity
from sidecar.engine.overseeing import Overseer
from sidecar.engine.ringing import Ringer, changes_of, full_pages
from sidecar.errors import (
    SchemaMismatch,
    StaleEpoch,
    StoreConflict,
    StoreError,
    StoreUnavailable,
)
from sidecar.ports import telemetry as metrics
from sidecar.ports.clock import Clock
from sidecar.ports.entropy import Entropy
from sidecar.ports.queue import Doorbell
from sidecar.ports.records import Ringable
from sidecar.ports.store import Batch, Epoch, LetterId, Moved, Store, Transition
from sidecar.ports.telemetry import Telemetry
from sidecar.saga.changes import Changes
from sidecar.saga.events import DeadlinePassed, LeaseEnded, TimerFired
from sidecar.saga.turns import TurnKey
from sidecar.saga.workflow import WorkflowId

__all__ = ["Duties", "DutyTimes"]

log = structlog.get_logger("sidecar.duties")

BATCH_MAX = 200
RING_PER_SERVICE = 200
"""How many steps of one service are looked at in one round; the next round takes the next page."""

WORK_KNOWN_WITHIN_S = 3.0
"""A question that takes longer does not hold up the duties that it should save."""

_AFTER = {
    "leases": Site.AFTER_LEASES,
    "timers": Site.AFTER_TIMERS,
    "letters": Site.AFTER_LETTERS,
    "turns": Site.AFTER_TURNS,
    "deadlines": Site.AFTER_DEADLINES,
    "reviews": Site.AFTER_REVIEWS,
    "debts": Site.AFTER_DEBTS,
    "bulk": Site.AFTER_BULK,
    "catalogues": Site.AFTER_CATALOGUES,
    "ring_again": Site.AFTER_RING_AGAIN,
    "sidecars": Site.AFTER_SIDECARS,
}

PUT_OFF_S = 5.0
PUT_OFF_MAX_S = 300.0
"""How long a workflow that could not be moved is left alone: at first, and at last."""


class Duties:
    """All duties of one leader; `round` does each of them once."""

    def __init__(
        self,
        store: Store,
        ringer: Ringer,
        identity: Identity,
        times: DutyTimes,
        *,
        compiled: CompiledDefinitions | None = None,
        take_bulk: Callable[[str], None] | None = None,
        spread: Callable[[Sequence[Changes]], None],
        look: Callable[[TurnKey], None],
        clock: Clock,
        entropy: Entropy,
        telemetry: Telemetry,
    ) -> None:
        self._spread = spread
        self._look = look
        self._store = store
        self._ringer = ringer
        self._identity = identity
        self._times = times
        self._clock = clock
        self._entropy = entropy
        self._telemetry = telemetry
        self._ticket = 0
        self._stuck: BackingOff[WorkflowId] = BackingOff(PUT_OFF_S, PUT_OFF_MAX_S)
        self._rung: BackingOff[Doorbell] = BackingOff(
            times.ring_after.total_seconds(), times.ring_at_most_every.total_seconds()
        )
        self._pages: dict[str, Ringable] = {}
        self._turns_seen: TurnKey | None = None
        self._periods = {
            "ring_again": times.ring_every.total_seconds(),
            "reviews": times.review_every.total_seconds(),
            "debts": times.debt_every.total_seconds(),
            "bulk": times.bulk_every.total_seconds(),
            "catalogues": times.catalogues_every.total_seconds(),
            "sidecars": times.forget_every.total_seconds(),
        }
        self._overseer = Overseer(
            store,
            DebtBook(store, compiled or CompiledDefinitions(store), clock),
            telemetry,
            identity.namespace,
            silent_after=times.silent_after,
            apply=self._apply,
            take_bulk=take_bulk,
        )
        self._done_at: dict[str, float] = {}
        self._round_began = 0.0
        self._duties: dict[str, Callable[[Epoch], Awaitable[int]]] = {
            "leases": self._end_leases,
            "timers": self._fire_timers,
            "letters": self._bring_letters,
            "turns": self._look_at_turns,
            "deadlines": self._end_overdue,
            **self._overseer.duties,
            "ring_again": self._ring_again,
            "sidecars": self._forget_sidecars,
        }

    async def round(self, epoch: Epoch, *, may_end_leases: bool) -> int:
        """Do each duty that is due, whatever becomes of the others; return how much was done.

        Raises `StaleEpoch` at once, and in the end the `StoreUnavailable` or `StoreConflict` for
        which some duty could not be done.
        """
        self._round_began = self._clock.monotonic()
        skipped = set() if may_end_leases else {"leases"}
        due = [name for name in self._duties if name not in skipped and self._is_due(name)]
        wanted = await self._with_work(rings="ring_again" in due)
        interrupted: StoreError | None = None
        done = 0
        for name in due:
            try:
                duty = self._duties[name] if name in wanted else _nothing
                done += await self._do(name, duty, epoch)
            except StoreConflict as error:
                interrupted = interrupted or error
            except StoreUnavailable as error:
                interrupted = error
        if interrupted is not None:
            raise interrupted
        return done

    def stand_down(self) -> None:
        """Tell nothing any more of what only a leader tells."""
        self._overseer.stand_down()

    def _is_due(self, name: str) -> bool:
        """Whether the duty's period is over; it begins anew then, whatever becomes of the duty."""
        now = self._clock.monotonic()
        if now - self._done_at.get(name, -math.inf) < self._periods.get(name, 0.0):
            return False
        self._done_at[name] = now
        return True

    async def _with_work(self, *, rings: bool) -> Collection[str]:
        """Return the duties that have something to do; all of them if that cannot be told."""
        times = self._times
        try:
            async with asyncio.timeout(WORK_KNOWN_WITHIN_S):
                work = await self._store.leader_work(
                    self._identity.namespace,
                    times.silent_after,
                    times.ring_after if rings else None,
                )
        except StoreError:
            return self._duties  # each of them finds out for itself, and says so
        except TimeoutError:
            log.warning("leader_work_unknown", error="no answer in time")
            return self._duties
        except Exception:
            log.exception("leader_work_unknown")
            return self._duties
        asked = {
            "leases": work.ended_leases,
            "timers": work.due_timers,
            "letters": work.waiting_letters,
            "turns": work.free_turns,
            "deadlines": work.overdue_workflows,
            "ring_again": work.ringable_steps,
            **self._overseer.asked(work),
        }
        if rings and not work.ringable_steps:
            self._pages = {}
        return [name for name in self._duties if asked.get(name, True)]

    async def _do(self, name: str, duty: Callable[[Epoch], Awaitable[int]], epoch: Epoch) -> int:
        try:
            failpoint(Site.BEFORE_DUTY)
            done = await duty(epoch)
            failpoint(_AFTER[name])
        except (StaleEpoch, StoreConflict, StoreUnavailable):
            raise
        except Exception:
            self._telemetry.count(metrics.DUTY_RUNS, duty=name, result="failed")
            log.exception("duty_failed", duty=name)
            return 0
        self._telemetry.count(metrics.DUTY_RUNS, duty=name, result="done")
        if done:
            self._telemetry.count(metrics.DUTY_DONE, done, duty=name)
            self._telemetry.fact(f"duty.{name}", items=done)
            log.info("duty_done", duty=name, items=done)
        return done

    async def _end_leases(self, epoch: Epoch) -> int:
        namespace, silent = self._identity.namespace, self._times.silent_after
        leases = await self._store.ended_leases(namespace, silent, self._most)
        if self._clock.monotonic() - self._round_began > self._times.prompt_s:
            # The store was away meanwhile: whoever seems silent may have been waiting for it, too.
            raise StoreUnavailable("the answer came too late to tell who is silent")
        events = [
            Transition(
                one.workflow,
                LeaseEnded(
                    one.key,
                    one.action,
                    one.attempt,
                    self._entropy.chance(),
                    until=one.lease_until,
                ),
            )
            for one in leases
        ]
        return await self._apply(epoch, events)

    async def _fire_timers(self, epoch: Epoch) -> int:
        due = await self._store.due_timers(self._identity.namespace, self._most)
        return await self._apply(epoch, [Transition(one, TimerFired(key)) for one, key in due])

    async def _bring_letters(self, epoch: Epoch) -> int:
        found = await self._store.waiting_letters(
            self._identity.namespace, self._times.letters_after, self._most
        )
        return await self._apply(
            epoch,
            [
                Transition(
                    one.letter.to,
                    one.letter.event,
                    letter=LetterId(one.sender, one.revision, one.letter.to),
                )
                for one in found
            ],
        )

    async def _look_at_turns(self, epoch: Epoch) -> int:
        del epoch  # whoever looks takes a place only if there is one
        namespace, after = self._identity.namespace, self._turns_seen
        free = await self._store.free_turns(namespace, BATCH_MAX, after)
        self._turns_seen = free[-1] if len(free) >= BATCH_MAX else None
        for turn in free:
            self._look(turn)
        return len(free)

    async def _end_overdue(self, epoch: Epoch) -> int:
        overdue = await self._store.overdue_workflows(self._identity.namespace, self._most)
        return await self._apply(epoch, [Transition(one, DeadlinePassed()) for one in overdue])

    @property
    def _most(self) -> int:
        """How many to ask for, so that those that are put off do not hide all others."""
        return BATCH_MAX + len(self._stuck)

    async def _ring_again(self, epoch: Epoch) -> int:
        """Ring for each step again, at most twice as late every time; a page of each service."""
        del epoch  # doorbells change nothing, so they need no fence
        found = await self._store.ringable_steps(
            self._identity.namespace,
            self._times.silent_after,
            self._times.ring_after,
            RING_PER_SERVICE,
            self._pages,
        )
        self._pages = full_pages(found, RING_PER_SERVICE)
        now = self._clock.monotonic()
        due = [one.doorbell for one in found if not self._rung.waits(one.doorbell, now)]
        for doorbell in due:
            self._rung.put_off(doorbell, now)
        if due:
            self._ringer.ring(due)
        return len(due)

    async def _forget_sidecars(self, epoch: Epoch) -> int:
        return await self._store.forget_sidecars(
            self._identity.namespace, self._times.forget_after, epoch
        )

    async def _apply(self, epoch: Epoch, transitions: list[Transition]) -> int:
        now = self._clock.monotonic()
        ready = [one for one in transitions if not self._stuck.waits(one.workflow, now)]
        return await self._commit(epoch, ready[:BATCH_MAX])

    async def _commit(self, epoch: Epoch, transitions: list[Transition]) -> int:
        """Return how many were moved. Raises what says nothing about any one of them."""
        if not transitions:
            return 0
        try:
            failpoint(Site.BEFORE_DUTY_COMMIT)
            result = await self._store.commit(self._batch(epoch, transitions))
        except (StaleEpoch, StoreConflict, StoreUnavailable, SchemaMismatch):
            raise
        except Exception as error:  # noqa: BLE001 - told of whoever stands alone
            if len(transitions) == 1:
                self._put_off(transitions[0], error)
                return 0
            middle = len(transitions) // 2
            done = await self._commit(epoch, transitions[:middle])
            return done + await self._commit(epoch, transitions[middle:])
        failpoint(Site.AFTER_DUTY_COMMIT)
        for one, answer in zip(transitions, result.transitions, strict=True):
            if isinstance(answer, Exception):
                self._put_off(one, answer)
            else:
                self._stuck.forget(one.workflow)
        moved = [one for one in result.transitions if isinstance(one, Moved)]
        changes = changes_of(result)
        self._ringer.conclude(changes, result.now)
        self._spread(changes)
        return sum(1 for one in moved if one.changes.writes)

    def _put_off(self, one: Transition, error: Exception) -> None:
        pause = self._stuck.put_off(one.workflow, self._clock.monotonic())
        event = type(one.event).__name__
        log.error(
            "duty_refused",
            workflow=one.workflow,
            event_kind=event,
            again_in_s=pause,
            exc_info=error,
        )

    def _batch(self, epoch: Epoch, transitions: list[Transition]) -> Batch:
        self._ticket += 1
        return Batch(
            namespace=self._identity.namespace,
            service="",
            incarnation=f"{self._identity.incarnation}/leader",
            ticket=self._ticket,
            lease_margin=timedelta(),
            transitions=tuple(transitions),
            epoch=epoch,
        )


async def _nothing(epoch: Epoch) -> int:
    """A duty for which there is nothing to do."""
    del epoch
    return 0
