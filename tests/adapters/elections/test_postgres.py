"""The election by PostgreSQL's advisory lock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from structlog.testing import capture_logs

from sidecar.adapters.clock import ManualClock, SystemClock
from sidecar.adapters.elections.postgres import ElectionTimes, PostgresElection, PostgresTerm
from sidecar.adapters.entropy import SystemEntropy
from tests.conformance.election import Candidate, Cut, ElectionConformance
from tests.servers.facts import until

pytestmark = pytest.mark.postgres

QUICK = ElectionTimes(beat_s=0.1, ttl_s=3.0, margin_s=0.5, retry_s=0.1)
_END_LEADERS = """
    SELECT pg_terminate_backend(pid) FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND pid <> pg_backend_pid()
"""


@pytest.fixture
async def candidate(database: str) -> AsyncIterator[Candidate]:
    """Candidates of one namespace."""
    made: list[PostgresElection] = []

    async def make() -> PostgresElection:
        made.append(
            PostgresElection(
                database, "default", clock=SystemClock(), entropy=SystemEntropy(), times=QUICK
            )
        )
        await made[-1].open()
        return made[-1]

    yield make
    for one in made:
        await one.close()


@pytest.fixture
def cut(database: str) -> Cut:
    """The leader's session is ended on the server."""

    async def end() -> None:
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
            await connection.execute(_END_LEADERS)

    return end


class TestPostgresElection(ElectionConformance):
    """The shared suite."""


async def test_namespaces_elect_apart(database: str, candidate: Candidate) -> None:
    first = await (await candidate()).campaign()
    other = PostgresElection(
        database, "other", clock=SystemClock(), entropy=SystemEntropy(), times=QUICK
    )
    async with asyncio.timeout(10):
        second = await other.campaign()
    assert first.trusted()
    assert second.trusted()
    await other.close()


@pytest.mark.fault(43)
async def test_a_paused_leaders_session_is_ended_by_the_server(database: str) -> None:
    """A stopped process beats no more; the server must end its session and free the lock."""
    times = ElectionTimes(beat_s=60.0, ttl_s=1.0, margin_s=0.1, retry_s=0.1)
    parts = {"clock": SystemClock(), "entropy": SystemEntropy(), "times": times}
    paused = PostgresElection(database, "default", **parts)
    await paused.campaign()
    other = PostgresElection(database, "default", **parts)
    async with asyncio.timeout(10):
        assert (await other.campaign()).trusted()
    await paused.close()
    await other.close()


async def test_nobody_is_elected_by_a_server_that_cannot_be_written(database: str) -> None:
    """A standby would lend its lock to a second leader, of an address that names several hosts."""
    read_only = make_conninfo(database, options="-c default_transaction_read_only=on")
    parts = {"clock": SystemClock(), "entropy": SystemEntropy(), "times": QUICK}
    election = PostgresElection(read_only, "default", **parts)
    with capture_logs() as logs:
        campaign = asyncio.create_task(election.campaign())
        await until(lambda: campaign.done() or "election_unavailable" in str(logs))
    assert not campaign.done()
    campaign.cancel()
    await asyncio.wait([campaign])
    await election.close()


@pytest.mark.fault(42)
def test_trust_ends_by_the_clock_counted_from_the_question() -> None:
    clock = ManualClock()
    term = PostgresTerm(clock, ElectionTimes(beat_s=2, ttl_s=10, margin_s=1))
    asked_at = clock.monotonic()
    clock.advance(5)
    term.extend(asked_at)
    clock.advance(3.9)
    assert term.trusted()
    clock.advance(0.2)
    assert not term.trusted()


async def test_a_lock_that_is_gone_ends_the_term(candidate: Candidate) -> None:
    """The session lives, but holds nothing: a pooler may have given it to somebody else."""
    leader = await candidate()
    assert isinstance(leader, PostgresElection)
    term = await leader.campaign()
    assert leader._session is not None
    await leader._session.execute("SELECT pg_advisory_unlock_all()")
    async with asyncio.timeout(10):
        await term.lost()
        assert (await (await candidate()).campaign()).trusted()
    assert not term.trusted()


async def test_a_lock_granted_to_one_who_has_given_up_is_let_go(
    candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def too_late(_: object) -> None:
        raise TimeoutError

    gives_up = await candidate()
    assert isinstance(gives_up, PostgresElection)
    with monkeypatch.context() as patch:
        patch.setattr(psycopg.AsyncCursor, "fetchone", too_late)
        assert await gives_up._try() is None
    async with asyncio.timeout(10):
        assert (await (await candidate()).campaign()).trusted()
