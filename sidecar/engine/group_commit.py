"""Group commit: whatever gathers while one transaction is under way shares the next.

There are no timers. A lone member finds the writer idle and goes at once; under load the
duration of one commit is the window of the next, so a thousand members share one fsync. Before
it takes a batch the writer lets the loop turn, so that answers which stand in the sockets already
come along: nothing is waited for, and what a statement costs by itself is shared by more.

What can go wrong with a batch, and what is done about it:

- serialization failure, deadlock: the same batch again
- the store is away or has another schema, or the answer to COMMIT was lost: the same batch
  again, with the same ticket; members are fenced, so those that had taken effect are recognised
- data that cannot be stored, a bug, an error that nobody knows: the batch is split in halves
  until the member that is at fault stands alone and fails alone
- a settlement that fails alone is offered again, ever more rarely: its answer is all there is
  of a call that was made, and only data that can never be stored is given back to be settled
  otherwise. Its slot stays taken, so such answers cannot pile up
- a locked workflow row: that member rides in the next batch; after three rides it waits, apart
  from all that does not. Its row may be held for long: who waited in vain rides again
- a locked key of turns: nobody waits for it in the database. That member rides in the next batch,
  too, and after three rides it rests before each
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, overload

import structlog

from sidecar.engine.commit_line import (
    Key,
    Line,
    Waiting,
    claiming_nothing_for,
    without_waiting,
)
from sidecar.engine.failpoints import Site, failpoint
from sidecar.engine.identity import Identity
from sidecar.engine.supervision import LongTask
from sidecar.errors import (
    Overloaded,
    SchemaMismatch,
    StoreConflict,
    StoreDataError,
    StoreError,
    StoreUnavailable,
)
from sidecar.ports import telemetry as metrics
from sidecar.ports.clock import Clock
from sidecar.ports.entropy import Entropy
from sidecar.ports.store import (
    Batch,
    BatchResult,
    ClaimDue,
    Claimed,
    ClaimKeys,
    Missing,
    Start,
    StartResult,
    Store,
    Transition,
    TransitionResult,
)
from sidecar.ports.telemetry import Telemetry
from sidecar.saga.events import Answered

log = structlog.get_logger("sidecar.group_commit")

TURNS = 2
"""In the first turn of the loop an answer is read, in the second its task submits it."""
CONFLICT_PAUSE_S = 0.01
UNAVAILABLE_PAUSE_S = 0.1
UNAVAILABLE_PAUSE_MAX_S = 2.0
REFUSED_PAUSE_S = 1.0
REFUSED_PAUSE_MAX_S = 60.0


@dataclass(frozen=True, slots=True)
class CommitLimits:
    """`max_batch` members share a transaction, `writers` write.

    Starts are refused while `max_waiting` members wait, or starts of `max_waiting_bytes`.
    """

    lease_margin: timedelta
    max_batch: int = 500
    max_waiting: int = 20_000
    max_waiting_bytes: int = 64 << 20
    writers: int = 1


class Committer:
    """Turns members into batches, and batches into results.

    `after(batch, result, began)` is called after each commit, before any waiter learns of it;
    `began` is the monotonic time before the transaction, from which its claims' leases count.
    """

    def __init__(
        self,
        store: Store,
        identity: Identity,
        limits: CommitLimits,
        *,
        clock: Clock,
        entropy: Entropy,
        telemetry: Telemetry,
        after: Callable[[Batch, BatchResult, float], None],
    ) -> None:
        self._store = store
        self._identity = identity
        self._limits = limits
        self._clock = clock
        self._entropy = entropy
        self._telemetry = telemetry
        self._after = after
        self._line = Line()
        self._behind: set[Waiting] = set()
        self._resting: dict[Waiting, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()
        self._writers = [
            LongTask(f"writer-{number}", self._write) for number in range(limits.writers)
        ]
        self._ticket = 0

    @property
    def sound(self) -> bool:
        """Whether no writer has failed lately."""
        return all(writer.sound for writer in self._writers)

    async def start(self) -> None:
        """Start the writers."""
        for writer in self._writers:
            writer.start()

    async def stop(self) -> None:
        """Stop the writers; whoever still waits gets `StoreUnavailable`."""
        await asyncio.gather(*(writer.stop() for writer in self._writers))
        for one, timer in self._resting.items():
            timer.cancel()
            one.fail(_stopping())
        self._resting.clear()
        while waiting := self._line.take(self._limits.max_batch):
            for one in waiting:
                one.fail(_stopping())

    @overload
    async def submit(self, member: Start, *, within: float | None = None) -> StartResult: ...
    @overload
    async def submit(
        self, member: Transition, *, within: float | None = None
    ) -> TransitionResult: ...
    async def submit(
        self, member: Start | Transition, *, within: float | None = None
    ) -> StartResult | TransitionResult:
        """Commit one start or transition, and return what became of it.

        `within` seconds without a commit raise `StoreUnavailable`; the member may then still
        take effect. A transition without a limit is a settlement: it is offered until the
        store takes it. Raises `Overloaded` when too much waits already, `StoreDataError` when
        this member's data cannot be stored, and whatever else it is refused with.
        """
        if isinstance(member, Start) and self._is_full():
            raise Overloaded("too many commits are waiting for the store; try again later")
        return await self._enqueue(member, within)  # type: ignore[no-any-return]

    async def claim(self, keys: Sequence[Key]) -> list[Claimed | Missing]:
        """Claim these steps; the answers are in the order of `keys`.

        A key that the store refuses with an error is `Missing.LOCKED`: offer it again.
        """
        waits = [self._enqueue(key, None) for key in keys]
        answers = await asyncio.gather(*waits, return_exceptions=True)
        return [Missing.LOCKED if isinstance(one, BaseException) else one for one in answers]

    async def claim_due(self, limit: int) -> int:
        """Claim whatever is due, up to `limit` steps; return how many it were."""
        return await self._enqueue(ClaimDue(limit), None)  # type: ignore[no-any-return]

    def _is_full(self) -> bool:
        limits = self._limits
        return len(self._line) >= limits.max_waiting or self._line.weight > limits.max_waiting_bytes

    def _enqueue(
        self, member: Start | Transition | Key | ClaimDue, within: float | None
    ) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        give_up_at = None if within is None else self._clock.monotonic() + within
        self._offer(Waiting(member, future, give_up_at))
        return future

    def _offer(self, one: Waiting) -> None:
        self._line.add(one)
        self._wake.set()

    async def _write(self) -> None:
        while True:
            while not self._line:
                self._wake.clear()
                await self._wake.wait()
            for _ in range(TURNS):
                await asyncio.sleep(0)
            members = self._line.take(self._limits.max_batch)
            self._telemetry.gauge(metrics.COMMIT_WAITING, len(self._line))
            try:
                patient = {one for one in members if one.waits_for_lock}
                self._behind |= patient
                try:
                    await self._commit([one for one in members if one not in patient])
                finally:
                    self._behind -= patient
                await self._commit([o for o in members if o in patient and not o.future.done()])
            except asyncio.CancelledError:
                for one in members:
                    one.fail(_stopping())
                raise
            except Exception as error:
                for one in members:
                    self._refused(one, error)
                raise

    async def _commit(self, members: list[Waiting]) -> None:
        if not members:
            return
        batch = self._compose(members)
        try:
            began, result = await self._until_durable(batch, members)
        except Exception as error:  # noqa: BLE001 - whoever stands alone is told
            if len(members) == 1:
                self._refused(members[0], error)
                return
            log.warning("batch_split", members=len(members), error=repr(error))
            middle = len(members) // 2
            await self._commit(members[:middle])
            await self._commit(members[middle:])
        else:
            self._conclude(batch, result, began)
            self._settle(members, result)

    def _conclude(self, batch: Batch, result: BatchResult, began: float) -> None:
        try:
            _pass_sites(batch, result)
            self._after(batch, result, began)
        except Exception:
            # The commit is durable: whoever waits for it must not pay for what comes after it.
            log.exception("conclusions_failed")

    def _refused(self, one: Waiting, error: Exception) -> None:
        """Tell a member that failed alone, or let it rest if it is a settlement."""
        if one.future.done():
            return
        settles = isinstance(one.member, Transition) and one.give_up_at is None
        if not settles or isinstance(error, StoreDataError):
            if not isinstance(error, StoreError):
                log.error("commit_refused", member=type(one.member).__name__, exc_info=error)
            one.fail(error)
            return
        self._telemetry.count(metrics.COMMIT_RETRIES, why="refused")
        pause = min(REFUSED_PAUSE_S * 2.0 ** min(one.refusals, 32), REFUSED_PAUSE_MAX_S)
        pause *= 0.5 + self._entropy.chance()
        one.refusals += 1
        log.error("settlement_refused", refusals=one.refusals, again_in_s=pause, exc_info=error)
        self._rest(one, pause)

    def _offer_again(self, one: Waiting) -> None:
        del self._resting[one]
        self._offer(one)

    async def _until_durable(
        self, batch: Batch, members: list[Waiting]
    ) -> tuple[float, BatchResult]:
        """Commit `batch`, as often as it takes. The same one again: its ticket counts."""
        pause = UNAVAILABLE_PAUSE_S
        began = self._clock.monotonic()
        while True:
            try:
                failpoint(Site.BEFORE_COMMIT)
                result = await self._store.commit(batch)
            except StoreConflict as error:
                self._telemetry.count(metrics.COMMIT_RETRIES, why="conflict")
                self._give_up(members, error)
                batch = without_waiting(batch)
                await asyncio.sleep(CONFLICT_PAUSE_S * (1 + self._entropy.chance()))
            except (StoreUnavailable, SchemaMismatch) as error:
                self._telemetry.count(metrics.COMMIT_RETRIES, why="unavailable")
                log.warning("store_unavailable", error=error.message, members=len(members))
                self._give_up(members, error)
                batch = claiming_nothing_for(batch, members)
                await asyncio.sleep(pause * (0.5 + self._entropy.chance()))
                pause = min(pause * 2, UNAVAILABLE_PAUSE_MAX_S)
            else:
                self._telemetry.count(metrics.COMMITS)
                self._telemetry.observe(metrics.COMMIT_MEMBERS, len(members))
                self._telemetry.observe(metrics.COMMIT_SECONDS, self._clock.monotonic() - began)
                return began, result

    def _give_up(self, members: list[Waiting], error: StoreError) -> None:
        now = self._clock.monotonic()
        for one in (*members, *self._behind):
            if one.give_up_at is not None and one.give_up_at <= now:
                one.fail(error)
        self._line.give_up(now, error)

    def _compose(self, members: list[Waiting]) -> Batch:
        self._ticket += 1
        starts: list[Start] = []
        transitions: list[Transition] = []
        keys: dict[Key, None] = {}
        due = 0
        for one in members:
            match one.member:
                case Start() as start:
                    starts.append(start)
                case Transition() as transition:
                    transitions.append(transition)
                case ClaimDue(limit):
                    due += limit
                case key:
                    keys[key] = None
        return Batch(
            namespace=self._identity.namespace,
            service=self._identity.service,
            incarnation=self._identity.incarnation,
            ticket=self._ticket,
            lease_margin=self._limits.lease_margin,
            starts=tuple(starts),
            transitions=tuple(transitions),
            claim_keys=ClaimKeys(tuple(keys)) if keys else None,
            claim_due=ClaimDue(due) if due else None,
        )

    def _settle(self, members: list[Waiting], result: BatchResult) -> None:
        starts, transitions = iter(result.starts), iter(result.transitions)
        claimed = {(one.workflow, one.key): one for one in result.claimed}
        for one in members:
            match one.member:
                case Start():
                    one.answer(next(starts))
                case Transition():
                    answer = next(transitions)
                    if answer is Missing.LOCKED:
                        self._ride_again(one)
                    elif isinstance(answer, Exception):
                        one.fail(answer)
                    else:
                        one.answer(answer)
                case ClaimDue():
                    one.answer(len(claimed))
                case key:
                    found = claimed.get(key) or result.refused_keys.get(key, Missing.LOCKED)
                    one.answer(found)

    def _ride_again(self, one: Waiting) -> None:
        pause = one.ride_again()
        if not pause:
            self._offer(one)
        elif one.give_up_at is None or self._clock.monotonic() < one.give_up_at:
            self._rest(one, pause)
        else:
            one.fail(StoreConflict("its workflow or its key is locked by somebody else"))

    def _rest(self, one: Waiting, pause: float) -> None:
        timer = asyncio.get_running_loop().call_later(pause, self._offer_again, one)
        self._resting[one] = timer


def _pass_sites(batch: Batch, result: BatchResult) -> None:
    """Pass the failpoints of a batch that is durable, by what there was in it."""
    failpoint(Site.AFTER_COMMIT)
    if batch.starts:
        failpoint(Site.AFTER_COMMIT_OF_STARTS)
    if any(isinstance(one.event, Answered) for one in batch.transitions):
        failpoint(Site.AFTER_COMMIT_OF_SETTLEMENTS)
    if result.claimed:
        failpoint(Site.AFTER_COMMIT_OF_CLAIMS)


def _stopping() -> StoreUnavailable:
    return StoreUnavailable("the sidecar is stopping")
