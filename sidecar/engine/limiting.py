"""Turns for calls of actions whose rate is limited.

    claimed ─▶ ask, together with whoever asks meanwhile ─▶ granted: wait for the moment, then call
                                                         └▶ not: give the claim back until then

Like commits, questions gather while one is under way, so a batch of calls costs one statement,
and one of actions that are not limited costs none. Nobody calls without having been granted a
moment, and a moment is good for `GOOD_FOR_S`: whoever was kept longer (the process stood still, the
answer of the store was slow) asks again. So in any span W the calls that are begun are at most
those of the algorithm in W + `GOOD_FOR_S`. A moment that is not used is lost; that only leaves room
unused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.engine.identity import Identity
from sidecar.errors import StoreUnavailable
from sidecar.ports import telemetry as metrics
from sidecar.ports.clock import Clock
from sidecar.ports.rates import RateAnswer, RateAsk, Rates
from sidecar.ports.store import Claimed
from sidecar.ports.telemetry import Telemetry
from sidecar.saga.pacing import RateLimit

GOOD_FOR_S = 1.0
"""For how long a granted moment may be used."""
MOST_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Grant:
    """A call may begin from `begins` until `ends`, by the monotonic clock, if it is `granted`.

    Otherwise its turn comes `wait_s` after the store was asked.
    """

    begins: float
    ends: float
    wait_s: float
    granted: bool


@dataclass(frozen=True, slots=True)
class _Waiting:
    ask: RateAsk
    future: asyncio.Future[Grant]


class Limiter:
    """Asks the store for turns; `limits` are those of paths of the own service."""

    def __init__(
        self,
        store: Rates,
        identity: Identity,
        limits: Mapping[str, RateLimit],
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._store = store
        self._identity = identity
        self._limits = limits
        self._clock = clock
        self._telemetry = telemetry
        self._waiting: list[_Waiting] = []
        self._asking: asyncio.Task[None] | None = None
        self._stopped = False

    def limits(self, path: str) -> bool:
        """Whether calls of `path` need a turn."""
        return path in self._limits

    async def ask(self, claimed: Claimed, path: str, patience_s: float) -> Grant:
        """Return when a claimed step may call `path`; it can wait for so many seconds.

        Raises `StoreError`, and then nothing is granted.
        """
        if self._stopped:
            raise _stopping()
        limit = self._limits[path]
        patience = int(patience_s * 1_000_000)
        ask = RateAsk(
            path, limit, claimed.workflow, claimed.key, claimed.action, patience, claimed.tries
        )
        future: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(ask, future))
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_for_all(), name="ask-rates")
        grant = await future
        self._telemetry.observe(metrics.RATE_WAIT_SECONDS, grant.wait_s, path=path)
        if not grant.granted:
            self._telemetry.count(metrics.RATE_HELD, path=path)
        return grant

    async def stop(self) -> None:
        """Ask no more; whoever waits is told `StoreUnavailable`."""
        self._stopped = True
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        left, self._waiting = self._waiting, []
        for one in left:
            _fail(one, _stopping())

    async def _ask_for_all(self) -> None:
        while self._waiting:
            together = self._waiting[:MOST_AT_ONCE]
            del self._waiting[:MOST_AT_ONCE]
            await self._ask_for(together)
        self._asking = None  # before anyone else runs: whoever waits from now on begins anew

    async def _ask_for(self, together: list[_Waiting]) -> None:
        asks = [one.ask for one in together]
        before = self._clock.monotonic()
        try:
            answers = await self._store.ask_rates(
                self._identity.namespace, self._identity.service, asks
            )
            after = self._clock.monotonic()
            for one, answer in zip(together, answers, strict=True):
                if not one.future.done():
                    one.future.set_result(_grant(answer, before, after))
        except asyncio.CancelledError:
            self._waiting[:0] = together
            raise
        except Exception as error:  # noqa: BLE001 - whoever waits is told
            for one in together:
                _fail(one, error)


def _grant(answer: RateAnswer, before: float, after: float) -> Grant:
    """Never too early: the store's clock was read some time before its answer came."""
    wait_s = answer.wait / 1_000_000
    return Grant(after + wait_s, before + wait_s + GOOD_FOR_S, wait_s, answer.granted)


def _fail(one: _Waiting, error: Exception) -> None:
    if not one.future.done():
        one.future.set_exception(error)


def _stopping() -> StoreUnavailable:
    return StoreUnavailable("the sidecar is stopping")
