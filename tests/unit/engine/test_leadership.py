"""A leader in its term: when it may end leases, and when it must stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from sidecar.adapters.elections.memory import Booth, MemoryElection
from sidecar.adapters.telemetry.memory import MemoryTelemetry
from sidecar.engine import leadership
from sidecar.engine.duties import DutyTimes
from sidecar.engine.leadership import Leadership
from sidecar.errors import StoreConflict, StoreUnavailable
from sidecar.ports.store import Epoch
from tests.unit.engine.faces import until
from tests.unit.engine.parts import ME, Parts, turns

SILENCE_S = 20
PROMPT_S = 5


class HeardDuties:
    """Notes each round and whether it may end leases; each waits until the test lets it go."""

    def __init__(self) -> None:
        self.rounds: list[bool] = []
        self.faults: list[Exception] = []
        self._next = asyncio.Semaphore(0)

    async def round(self, epoch: Epoch, *, may_end_leases: bool) -> None:
        """One round of duties."""
        self.rounds.append(may_end_leases)
        await self._next.acquire()
        if self.faults:
            raise self.faults.pop()

    async def next_round(self) -> bool:
        """End the round under way, and say whether the next one may end leases."""
        before = len(self.rounds)
        self._next.release()
        await until(lambda: len(self.rounds) > before)
        return self.rounds[-1]


class Candidate:
    """A candidate at a booth of its own."""

    def __init__(self) -> None:
        parts = Parts()
        self.clock, self.store = parts.clock, parts.store
        self.booth = Booth()
        self.duties = HeardDuties()
        self.leadership = Leadership(
            MemoryElection(self.booth),
            self.store,
            self.duties,  # type: ignore[arg-type]
            ME,
            DutyTimes(every=timedelta(), silent_after=timedelta(seconds=SILENCE_S)),
            clock=self.clock,
            entropy=parts.entropy,
            telemetry=MemoryTelemetry(),
        )

    async def after(self, seconds: int) -> bool:
        """Let time pass in prompt rounds, and say whether the one after it may end leases."""
        may_end = False
        for passed in range(0, seconds, PROMPT_S):
            self.clock.advance(min(PROMPT_S, seconds - passed))
            may_end = await self.duties.next_round()
        return may_end

    async def lead(self) -> None:
        """Win, and begin the first round."""
        await self.store.open()
        await self.leadership.start()
        await until(lambda: self.duties.rounds)


@pytest.fixture
async def candidate() -> AsyncIterator[Candidate]:
    made = Candidate()
    yield made
    await made.leadership.stop()


async def test_it_ends_no_lease_before_it_has_had_the_store_for_a_whole_silence(
    candidate: Candidate,
) -> None:
    await candidate.lead()
    assert candidate.duties.rounds == [False]
    assert not await candidate.after(SILENCE_S - 1)
    assert await candidate.after(1)


async def test_a_store_that_was_away_begins_the_silence_anew(candidate: Candidate) -> None:
    await candidate.lead()
    assert await candidate.after(SILENCE_S)
    candidate.duties.faults = [StoreUnavailable("away")]
    assert not await candidate.duties.next_round()
    assert await candidate.after(SILENCE_S)


async def test_a_conflict_is_an_answer_of_the_store(candidate: Candidate) -> None:
    await candidate.lead()
    candidate.duties.faults = [StoreConflict("deadlock")]
    assert await candidate.after(SILENCE_S)


async def test_a_round_that_was_long_in_coming_begins_the_silence_anew(
    candidate: Candidate,
) -> None:
    await candidate.lead()
    assert await candidate.after(SILENCE_S)
    candidate.clock.advance(SILENCE_S)
    assert not await candidate.duties.next_round()
    assert await candidate.after(SILENCE_S)


async def test_it_does_no_more_once_its_term_is_over(
    candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leadership, "PAUSE_AFTER_FAULT_S", 3600)
    await candidate.lead()
    candidate.booth.depose()
    candidate.duties._next.release()
    await turns()
    assert candidate.duties.rounds == [False]
    assert not candidate.leadership.leading
