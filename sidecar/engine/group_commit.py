"""Group commit: whatever gathers while one transaction is under way shares the next.

There are no timers. A lone member finds the writer idle and goes at once; under load the
duration of one commit is the window of the next, so a thousand members share one fsync.

What can go wrong with a batch, and what is done about it:

- serialization failure, deadlock: the same batch again
- the store is away, or the answer to COMMIT was lost: the same batch again, with the same
  ticket; members are fenced, so those that had taken effect are recognised
- data that cannot be stored: the batch is split in halves until the member that is at fault
  stands alone and fails alone
- a locked workflow row: that member rides in the next batch; after three rides it waits
- a bug: the members of that batch get the exception, the writer goes on
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, overload

import structlog
from msgspec.structs import replace

from sidecar.engine.identity import Identity
from sidecar.errors import (
    GoConductorError,
    Overloaded,
    StoreConflict,
    StoreDataError,
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
from sidecar.saga.workflow import StepKey, WorkflowId

log = structlog.get_logger("sidecar.group_commit")

RIDES_BEFORE_WAITING = 3
CONFLICT_PAUSE_S = 0.01
UNAVAILABLE_PAUSE_S = 0.1
UNAVAILABLE_PAUSE_MAX_S = 2.0

Key = tuple[WorkflowId, StepKey]


@dataclass(frozen=True, slots=True)
class CommitLimits:
    """`max_batch` members share a transaction, `max_waiting` may wait, `writers` write."""

    lease_margin: timedelta
    max_batch: int = 500
    max_waiting: int = 20_000
    writers: int = 1


@dataclass(slots=True, eq=False)
class _Waiting:
    member: Start | Transition | Key | ClaimDue
    future: asyncio.Future[Any]
    give_up_at: float | None = None
    rides: int = 0


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
        self._waiting: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._ticket = 0

    async def start(self) -> None:
        """Start the writers."""
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._write(), name=f"writer-{number}")
                for number in range(self._limits.writers)
            ]

    async def stop(self) -> None:
        """Stop the writers; whoever still waits gets `StoreUnavailable`."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while self._waiting:
            _fail(self._waiting.popleft(), StoreUnavailable("the sidecar is stopping"))

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

        `within` seconds without a commit raise `StoreUnavailable` (None: wait for ever); the
        member may then still take effect. Raises `Overloaded` when too much waits already,
        and `StoreDataError` when this member's data cannot be stored.
        """
        if len(self._waiting) >= self._limits.max_waiting and isinstance(member, Start):
            raise Overloaded("too many commits are waiting for the store; try again later")
        return await self._enqueue(member, within)  # type: ignore[no-any-return]

    async def claim(self, keys: Sequence[Key]) -> list[Claimed | Missing]:
        """Claim these steps; the answers are in the order of `keys`."""
        waits = [self._enqueue(key, None) for key in keys]
        return list(await asyncio.gather(*waits))

    async def claim_due(self, limit: int) -> int:
        """Claim whatever is due, up to `limit` steps; return how many it were."""
        return await self._enqueue(ClaimDue(limit), None)  # type: ignore[no-any-return]

    def _enqueue(
        self, member: Start | Transition | Key | ClaimDue, within: float | None
    ) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        give_up_at = None if within is None else self._clock.monotonic() + within
        self._waiting.append(_Waiting(member, future, give_up_at))
        self._wake.set()
        return future

    async def _write(self) -> None:
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            count = min(len(self._waiting), self._limits.max_batch)
            members = [self._waiting.popleft() for _ in range(count)]
            self._telemetry.gauge(metrics.COMMIT_WAITING, len(self._waiting))
            try:
                await self._commit([one for one in members if not one.future.done()])
            except asyncio.CancelledError:
                for one in members:
                    _fail(one, StoreUnavailable("the sidecar is stopping"))
                raise

    async def _commit(self, members: list[_Waiting]) -> None:
        if not members:
            return
        batch = self._compose(members)
        try:
            began, result = await self._until_durable(batch, members)
        except StoreDataError as error:
            if len(members) == 1:
                _fail(members[0], error)
                return
            middle = len(members) // 2
            await self._commit(members[:middle])
            await self._commit(members[middle:])
        except Exception as error:
            log.exception("batch_failed", members=len(members))
            for one in members:
                _fail(one, error)
        else:
            self._after(batch, result, began)
            self._settle(members, result)

    async def _until_durable(
        self, batch: Batch, members: list[_Waiting]
    ) -> tuple[float, BatchResult]:
        """Commit `batch`, as often as it takes. The same object again: its ticket counts."""
        pause = UNAVAILABLE_PAUSE_S
        began = self._clock.monotonic()
        while True:
            try:
                result = await self._store.commit(batch)
            except StoreConflict:
                self._telemetry.count(metrics.COMMIT_RETRIES, why="conflict")
                await asyncio.sleep(CONFLICT_PAUSE_S * (1 + self._entropy.chance()))
            except StoreUnavailable as error:
                self._telemetry.count(metrics.COMMIT_RETRIES, why="unavailable")
                log.warning("store_unavailable", error=error.message, members=len(members))
                self._give_up(members, error)
                await asyncio.sleep(pause * (0.5 + self._entropy.chance()))
                pause = min(pause * 2, UNAVAILABLE_PAUSE_MAX_S)
            else:
                self._telemetry.count(metrics.COMMITS)
                self._telemetry.observe(metrics.COMMIT_MEMBERS, len(members))
                self._telemetry.observe(metrics.COMMIT_SECONDS, self._clock.monotonic() - began)
                return began, result

    def _give_up(self, members: list[_Waiting], error: GoConductorError) -> None:
        now = self._clock.monotonic()
        for one in [*members, *self._waiting]:
            if one.give_up_at is not None and one.give_up_at <= now:
                _fail(one, error)

    def _compose(self, members: list[_Waiting]) -> Batch:
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

    def _settle(self, members: list[_Waiting], result: BatchResult) -> None:
        starts, transitions = iter(result.starts), iter(result.transitions)
        claimed = {(one.workflow, one.key): one for one in result.claimed}
        for one in members:
            match one.member:
                case Start():
                    _answer(one, next(starts))
                case Transition() as transition:
                    answer = next(transitions)
                    if answer is Missing.LOCKED:
                        self._ride_again(one, transition)
                    elif isinstance(answer, Exception):
                        _fail(one, answer)
                    else:
                        _answer(one, answer)
                case ClaimDue():
                    _answer(one, len(claimed))
                case key:
                    found = claimed.get(key) or result.refused_keys.get(key, Missing.LOCKED)
                    _answer(one, found)

    def _ride_again(self, waiting: _Waiting, transition: Transition) -> None:
        waiting.rides += 1
        if waiting.rides >= RIDES_BEFORE_WAITING:
            waiting.member = replace(transition, wait=True)
        self._waiting.append(waiting)
        self._wake.set()


def _answer(waiting: _Waiting, answer: object) -> None:
    if not waiting.future.done():
        waiting.future.set_result(answer)


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.future.done():
        waiting.future.set_exception(error)
