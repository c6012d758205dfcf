"""What every election must do.

A binding supplies `candidate`, a factory of opened candidates on one contest, and `cut`, which
takes the present leader's backend away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from sidecar.ports.election import Election

Candidate = Callable[[], Awaitable[Election]]
Cut = Callable[[], Awaitable[None]]

WITHIN_S = 20.0


class ElectionConformance:
    """One leader at most, and always another after it."""

    async def test_a_lone_candidate_wins(self, candidate: Candidate) -> None:
        async with asyncio.timeout(WITHIN_S):
            term = await (await candidate()).campaign()
        assert term.trusted()

    async def test_a_second_candidate_waits_until_the_first_resigns(
        self, candidate: Candidate
    ) -> None:
        async with asyncio.timeout(WITHIN_S):
            first = await (await candidate()).campaign()
            campaign = asyncio.create_task((await candidate()).campaign())
            assert first.trusted()
            assert not campaign.done()
            await first.resign()
            second = await campaign
        assert second.trusted()
        assert not first.trusted()

    @pytest.mark.fault(44)
    async def test_a_term_that_is_cut_off_is_lost_and_another_begins(
        self, candidate: Candidate, cut: Cut
    ) -> None:
        async with asyncio.timeout(WITHIN_S):
            first = await (await candidate()).campaign()
            campaign = asyncio.create_task((await candidate()).campaign())
            await cut()
            await first.lost()
            assert not first.trusted()
            second = await campaign
        assert second.trusted()

    async def test_closing_hands_the_leadership_over(self, candidate: Candidate) -> None:
        async with asyncio.timeout(WITHIN_S):
            leader = await candidate()
            first = await leader.campaign()
            campaign = asyncio.create_task((await candidate()).campaign())
            await leader.close()
            await campaign
        assert not first.trusted()

    @pytest.mark.fault(45)
    async def test_a_candidate_that_gives_up_leaves_the_way_free(
        self, candidate: Candidate
    ) -> None:
        async with asyncio.timeout(WITHIN_S):
            first = await (await candidate()).campaign()
            gives_up = asyncio.create_task((await candidate()).campaign())
            waits = asyncio.create_task((await candidate()).campaign())
            gives_up.cancel()
            await asyncio.gather(gives_up, return_exceptions=True)
            await first.resign()
            assert (await waits).trusted()

    async def test_resigning_and_closing_twice_is_fine(self, candidate: Candidate) -> None:
        async with asyncio.timeout(WITHIN_S):
            election = await candidate()
            term = await election.campaign()
            await term.resign()
            await term.resign()
            await election.close()
            await election.close()
            assert (await election.campaign()).trusted()
