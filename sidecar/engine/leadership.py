"""Leadership: campaign, mint an epoch, do the duties until the term is over, and again.

        ┌────────────▶ campaigning ──won──▶ minting an epoch ──▶ leading ───┐
        │                                                          │        │
        └──────────── term lost, epoch stale, store away ◀─────────┘◀───────┘

The election says who may try; the epoch says whose writes count. A leader stops its duties
the moment it can no longer trust its term. It ends no lease until the store has answered it
for one whole silence span without a break: when the store was away, no sidecar could be seen.
An answer that was long in coming is a break as well.
"""

from __future__ import annotations

import asyncio

import structlog

from sidecar.engine.duties import Duties, DutyTimes
from sidecar.engine.failpoints import Site, failpoint
from sidecar.engine.identity import Identity
from sidecar.engine.supervision import LongTask
from sidecar.errors import GoConductorError, StaleEpoch, StoreConflict, StoreUnavailable
from sidecar.ports import telemetry as metrics
from sidecar.ports.clock import Clock
from sidecar.ports.election import Election, Term
from sidecar.ports.entropy import Entropy
from sidecar.ports.store import Store
from sidecar.ports.telemetry import Telemetry

log = structlog.get_logger("sidecar.leadership")

PAUSE_AFTER_FAULT_S = 1.0
ROUND_WITHIN_S = 15.0


class Leadership:
    """One candidate."""

    def __init__(
        self,
        election: Election,
        store: Store,
        duties: Duties,
        identity: Identity,
        times: DutyTimes,
        *,
        clock: Clock,
        entropy: Entropy,
        telemetry: Telemetry,
    ) -> None:
        self._election = election
        self._store = store
        self._duties = duties
        self._identity = identity
        self._times = times
        self._clock = clock
        self._entropy = entropy
        self._telemetry = telemetry
        self._task = LongTask("leadership", self._campaign_for_ever)
        self.leading = False

    async def start(self) -> None:
        """Begin to campaign."""
        self._task.start()

    async def stop(self) -> None:
        """Resign if leading, and stop."""
        await self._task.stop()

    async def _campaign_for_ever(self) -> None:
        while True:
            term = await self._election.campaign()
            try:
                await self._lead(term)
            except GoConductorError as error:
                log.warning("leadership_interrupted", error=error.message, code=error.code)
            finally:
                try:
                    self._set_leading(leading=False)
                    self._duties.stand_down()
                    failpoint(Site.RESIGN)
                finally:  # a term that is not given back would keep everybody from leading
                    await term.resign()
            await asyncio.sleep(PAUSE_AFTER_FAULT_S * (0.5 + self._entropy.chance()))

    async def _lead(self, term: Term) -> None:
        failpoint(Site.AFTER_ELECTION)
        epoch = await self._store.mint_epoch(self._identity.namespace, self._identity.incarnation)
        failpoint(Site.AFTER_MINT_EPOCH)
        self._set_leading(leading=True)
        log.info("leading", epoch=epoch.number)
        self._telemetry.fact("leading", epoch=epoch.number)
        unbroken_since = self._clock.monotonic()
        silence = self._times.silent_after.total_seconds()
        pause = every = self._times.every.total_seconds()
        while term.trusted():
            began = self._clock.monotonic()
            sure = began - unbroken_since >= silence
            try:
                async with asyncio.timeout(ROUND_WITHIN_S):
                    done = await self._duties.round(epoch, may_end_leases=sure)
                pause = every if done else self._times.longer_pause(pause)
            except StaleEpoch:
                raise
            except StoreConflict as error:
                # Nothing was written; the next round finds the same work.
                self._round_failed("conflict", error)
                pause = every
            except (StoreUnavailable, TimeoutError) as error:
                self._round_failed("unavailable", error)
                unbroken_since = self._clock.monotonic()
                pause = every
            if self._clock.monotonic() - began > self._times.prompt_s:
                # It may have waited for a store that was away, and was answered in the end.
                unbroken_since = self._clock.monotonic()
            await self._pause(term, pause)

    def _round_failed(self, result: str, error: Exception) -> None:
        self._telemetry.count(metrics.DUTY_RUNS, duty="round", result=result)
        log.warning("duties_interrupted", result=result, error=str(error) or "no answer in time")

    async def _pause(self, term: Term, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await term.lost()
        except TimeoutError:
            return

    def _set_leading(self, *, leading: bool) -> None:
        self.leading = leading
        self._telemetry.gauge(metrics.LEADING, 1 if leading else 0)
