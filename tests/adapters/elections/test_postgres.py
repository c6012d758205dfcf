"""The election by PostgreSQL's advisory lock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from structlog.testing import capture_logs

from sidecar.adapters.clock import ManualClock, SystemClock
from sidecar.adapters.elections.postgres import (
    SQL,
    ElectionTimes,
    PostgresElection,
    PostgresTerm,
)
from sidecar.adapters.entropy import SystemEntropy
from sidecar.ports.election import Term
from tests.conformance.election import Candidate, Cut, ElectionConformance
from tests.servers.facts import until

pytestmark = pytest.mark.postgres

QUICK = ElectionTimes(beat_s=0.1, ttl_s=3.0, margin_s=0.5, retry_s=0.1)
PATIENT = ElectionTimes(beat_s=0.1, ttl_s=100.0, retry_s=0.1)
"""The server ends no session by itself while a test looks."""
_END_LEADERS = """
    SELECT pg_terminate_backend(pid) FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND pid <> pg_backend_pid()
"""
_SESSIONS = """
    SELECT pid, state_change FROM pg_stat_activity
    WHERE application_name = 'goconductor-election' AND datname = current_database()
"""


def test_answers_that_just_come_in_time_cost_no_term() -> None:
    times = ElectionTimes()
    proven_again_after = times.answer_s + times.beat_s + times.answer_s
    assert proven_again_after <= times.ttl_s - times.margin_s


class Looker:
    """Sees the sessions of the election, as the server does."""

    def __init__(self, connection: psycopg.AsyncConnection) -> None:
        self.connection = connection

    async def sessions(self) -> dict[int, datetime]:
        """When each was last heard of, by its number."""
        return dict(await (await self.connection.execute(_SESSIONS)).fetchall())

    async def end(self, pid: int) -> None:
        """End one."""
        await self.connection.execute("SELECT pg_terminate_backend(%s)", [pid])


@pytest.fixture
async def looker(database: str) -> AsyncIterator[Looker]:
    """A look into the server."""
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        yield Looker(connection)


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
    database: str, candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def too_late(_: object) -> None:
        raise TimeoutError

    gives_up = another(database, PATIENT)
    with monkeypatch.context() as patch:
        patch.setattr(psycopg.AsyncCursor, "fetchone", too_late)
        assert await gives_up._try() is None
    async with asyncio.timeout(10):
        assert (await (await candidate()).campaign()).trusted()
    await gives_up.close()


# -- the session of a candidate ------------------------------------------------------------------


@asynccontextmanager
async def waiting(candidate: PostgresElection) -> AsyncIterator[asyncio.Task[PostgresTerm]]:
    """The campaign of a candidate that has been told once that somebody else leads."""
    campaign = asyncio.create_task(candidate.campaign())
    await until(lambda: candidate._session is not None)
    yield campaign
    campaign.cancel()
    await asyncio.wait([campaign])
    await candidate.close()


def pid_of(candidate: PostgresElection) -> int:
    """The number of its session; zero without one."""
    session = candidate._session
    return 0 if session is None or session.closed else session.info.backend_pid


def another(database: str, times: ElectionTimes = QUICK) -> PostgresElection:
    return PostgresElection(
        database, "default", clock=SystemClock(), entropy=SystemEntropy(), times=times
    )


async def test_a_candidate_asks_again_and_again_on_one_session(
    database: str, candidate: Candidate, looker: Looker
) -> None:
    leader = await (await candidate()).campaign()
    second = another(database)
    async with waiting(second) as campaign:
        pid = pid_of(second)
        for _ in range(3):
            before = (await looker.sessions())[pid]
            await until(lambda at=before: _moved_on(looker, pid, at))
        assert pid_of(second) == pid
        assert len(await looker.sessions()) == 2
        await assert_follows(campaign, leader)
        assert pid_of(second) == pid


async def assert_follows(campaign: asyncio.Task[PostgresTerm], leader: Term) -> None:
    """Once the leader resigns, this candidate leads."""
    await leader.resign()
    async with asyncio.timeout(10):
        assert (await campaign).trusted()


async def _moved_on(looker: Looker, pid: int, since: datetime) -> bool:
    return (await looker.sessions())[pid] > since


async def test_a_candidate_whose_session_is_ended_connects_again_at_once(
    database: str, candidate: Candidate, looker: Looker
) -> None:
    leader = await (await candidate()).campaign()
    second = another(database)
    async with waiting(second) as campaign:
        pid = pid_of(second)
        with capture_logs() as logs:
            await looker.end(pid)
            await until(lambda: pid_of(second) not in (0, pid))
        assert [line["event"] for line in logs] == ["election_candidate_session_lost"]
        await assert_follows(campaign, leader)


async def test_a_candidate_that_stood_still_connects_again(
    database: str, candidate: Candidate, looker: Looker
) -> None:
    """The server ended its session meanwhile, as it would that of a leader."""
    leader = await (await candidate()).campaign()
    frozen = another(database, ElectionTimes(ttl_s=1.0, margin_s=0.1, retry_s=2.0))
    async with waiting(frozen) as campaign:
        pid = pid_of(frozen)
        await until(lambda: _is_gone(looker, pid))
        await assert_follows(campaign, leader)
        assert pid_of(frozen) != pid


async def _is_gone(looker: Looker, pid: int) -> bool:
    return pid not in await looker.sessions()


async def test_a_candidate_takes_no_lock_where_nothing_can_be_written_any_more(
    candidate: Candidate, looker: Looker
) -> None:
    """A server that became a standby while the session lived."""
    one = await candidate()
    assert isinstance(one, PostgresElection)
    session = one._session = await one._connect()
    pid = pid_of(one)
    await session.execute("SET default_transaction_read_only = on")
    cursor = await session.execute(SQL["try_lock"], one._lock)
    assert await cursor.fetchone() == (None,)
    locks = await session.execute(
        "SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND classid > 0"
    )
    assert await locks.fetchall() == []
    with capture_logs() as logs:
        assert await one._try() is None
    assert [line["event"] for line in logs] == ["election_unavailable"]
    await until(lambda: _is_gone(looker, pid))
    async with asyncio.timeout(10):
        assert (await one.campaign()).trusted()


@pytest.mark.fault(45)
async def test_a_candidate_stopped_while_it_asks_leaves_no_session(
    database: str, looker: Looker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock was granted, and nobody has heard of it."""
    granted = asyncio.Event()

    async def never(_: object) -> None:
        granted.set()
        await asyncio.Event().wait()

    stopped = another(database, PATIENT)
    with monkeypatch.context() as patch:
        patch.setattr(psycopg.AsyncCursor, "fetchone", never)
        campaign = asyncio.create_task(stopped.campaign())
        await granted.wait()
        campaign.cancel()
        await asyncio.wait([campaign])
    await until(lambda: _nobody(looker))
    await stopped.close()


async def test_a_candidate_stopped_between_two_attempts_leaves_no_session(
    database: str, candidate: Candidate, looker: Looker
) -> None:
    await (await candidate()).campaign()
    async with waiting(another(database, PATIENT)) as campaign:
        assert len(await looker.sessions()) == 2
        campaign.cancel()
        await until(lambda: _is_alone(looker))


async def _nobody(looker: Looker) -> bool:
    return not await looker.sessions()


async def _is_alone(looker: Looker) -> bool:
    return len(await looker.sessions()) == 1


@pytest.mark.fault(44)
async def test_a_leader_whose_session_is_ended_knows_it_before_it_asks(
    database: str, looker: Looker
) -> None:
    leader = another(database, ElectionTimes(beat_s=60.0, ttl_s=100.0))
    term = await leader.campaign()
    await looker.end(pid_of(leader))
    async with asyncio.timeout(10):
        await term.lost()
    assert not term.trusted()
    await leader.close()
