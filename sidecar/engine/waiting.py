"""Waiting for workflows to end, without asking the store once for each.

Whoever waits is woken by a notice. Notices may be lost, so while anybody waits, one query
every second and a half asks for the statuses of all workflows waited for; while nobody waits,
nothing is asked at all.

    watch ──▶ (start it, or read it) ──▶ until_ended ──▶ read it
      │                                      ▲
      └── from here on no end is missed ─────┘
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice

from sidecar.errors import Overloaded, StoreError
from sidecar.ports.notices import Notice, Notices
from sidecar.ports.store import Store
from sidecar.ports.telemetry import Telemetry
from sidecar.saga.states import WAIT_RETURNS
from sidecar.saga.workflow import WorkflowId

MAX_WAITERS = 10_000
LOOK_EVERY = 1.5
"""Seconds between two looks for ends whose notice was lost."""

LEAVE_WITHIN_S = 1.0
"""How long the end of a process waits for those who wait to be gone."""

_LOOK_AT_ONCE = 1000
"""How many workflows one query names."""


class Watch:
    """One waiter's interest in one workflow."""

    __slots__ = ("_ended",)

    def __init__(self) -> None:
        self._ended = asyncio.Event()

    async def until_ended(self, seconds: float) -> bool:
        """Wait at most so long; whether the workflow is said to have ended since the watch began.

        The workflow is to be read afterwards either way: a notice is a hint.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    def wake(self) -> None:
        """End the waiting."""
        self._ended.set()


class WaitHub:
    """Everybody in this process who waits for a workflow."""

    def __init__(
        self,
        store: Store,
        notices: Notices,
        telemetry: Telemetry,
        *,
        max_waiters: int = MAX_WAITERS,
        look_every: float = LOOK_EVERY,
    ) -> None:
        self._store = store
        self._notices = notices
        self._telemetry = telemetry
        self._max_waiters = max_waiters
        self._look_every = look_every
        self._watches: dict[WorkflowId, set[Watch]] = {}
        self._waiters = 0
        self._looker: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._closed = False
        self._nobody = asyncio.Event()
        self._nobody.set()

    async def open(self) -> None:
        """Begin to hear notices; harmless when repeated."""
        if self._unsubscribe is None:
            self._unsubscribe = self._notices.subscribe(self._hear)

    async def close(self) -> None:
        """Send everybody who waits back with what is known now; harmless when repeated.

        Returns when they are gone, or after a second: each reads what it waited for once more,
        and what comes next may be the end of the store.
        """
        self._closed = True
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        for workflow in list(self._watches):
            self._wake(workflow)
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_WITHIN_S):
                await self._nobody.wait()
        if self._looker is not None:
            self._looker.cancel()
            await asyncio.gather(self._looker, return_exceptions=True)
            self._looker = None

    @property
    def closed(self) -> bool:
        """Whether nobody should wait any more: this process is going."""
        return self._closed

    @property
    def waiters(self) -> int:
        """How many are waiting."""
        return self._waiters

    @contextmanager
    def watch(self, workflow: WorkflowId) -> Iterator[Watch]:
        """Miss no end of `workflow` from here on. Raises `Overloaded`."""
        if self._waiters >= self._max_waiters:
            raise Overloaded("Too many requests are waiting for workflows already.")
        watch = Watch()
        if self._closed:
            watch.wake()
        watches = self._watches.setdefault(workflow, set())
        watches.add(watch)
        self._waiters += 1
        self._nobody.clear()
        self._keep_looking()
        try:
            yield watch
        finally:
            self._waiters -= 1
            if not self._waiters:
                self._nobody.set()
            watches.discard(watch)
            if not watches:
                self._watches.pop(workflow, None)

    async def wait(self, workflow: WorkflowId, seconds: float) -> bool:
        """Wait until `workflow` needs no more waiting for, at most so long; whether it does not.

        Looks into the store first. Raises `Overloaded`, `StoreError`.
        """
        with self.watch(workflow) as watch:
            found = await self._store.statuses([workflow])
            if found.get(workflow) in WAIT_RETURNS:
                return True
            return await watch.until_ended(seconds)

    def _hear(self, notice: Notice) -> None:
        """Wake those whom a notice speaks to."""
        for workflow in notice.ended:
            self._wake(workflow)

    def _wake(self, workflow: WorkflowId) -> None:
        """Wake all who wait for one workflow."""
        for watch in self._watches.get(workflow, ()):
            watch.wake()

    def _keep_looking(self) -> None:
        """Make sure that somebody looks for lost notices while anybody waits."""
        if (self._looker is None or self._looker.done()) and not self._closed:
            self._looker = asyncio.create_task(self._look(), name="look for ended workflows")

    async def _look(self) -> None:
        """Look from time to time, until nobody waits any more."""
        while True:
            await asyncio.sleep(self._look_every)
            waited = iter(list(self._watches))
            if not self._watches:
                return
            while some := list(islice(waited, _LOOK_AT_ONCE)):
                try:
                    found = await self._store.statuses(some)
                except StoreError as error:
                    self._telemetry.fact("waiting.look_failed", error=error.message)
                    break
                for workflow, status in found.items():
                    if status in WAIT_RETURNS:
                        self._wake(workflow)
