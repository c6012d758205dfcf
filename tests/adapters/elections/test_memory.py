"""The election in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sidecar.adapters.elections.memory import Booth, MemoryElection
from tests.conformance.election import Candidate, Cut, ElectionConformance


@pytest.fixture
def booth() -> Booth:
    """One contest."""
    return Booth()


@pytest.fixture
async def candidate(booth: Booth) -> AsyncIterator[Candidate]:
    """Candidates at the booth."""
    made: list[MemoryElection] = []

    async def make() -> MemoryElection:
        made.append(MemoryElection(booth))
        await made[-1].open()
        return made[-1]

    yield make
    for one in made:
        await one.close()


@pytest.fixture
def cut(booth: Booth) -> Cut:
    """The leader is deposed without a word."""

    async def depose() -> None:
        booth.depose()

    return depose


class TestMemoryElection(ElectionConformance):
    """The shared suite."""


async def test_the_booth_can_let_two_lead_at_once(booth: Booth, candidate: Candidate) -> None:
    first = await (await candidate()).campaign()
    booth.grant_again()
    second = await (await candidate()).campaign()
    assert first.trusted()
    assert second.trusted()
