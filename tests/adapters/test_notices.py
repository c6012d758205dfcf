"""Notices in memory and by PostgreSQL; the latter through cuts and connections half open."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import psycopg
import pytest

from sidecar.adapters.notices_memory import MemoryNotices, NoticeHub
from sidecar.adapters.postgres import notices as module
from sidecar.adapters.postgres.notices import PostgresNotices
from sidecar.errors import ConfigError
from tests.conformance.notices import (
    Heard,
    NoticesBench,
    NoticesContract,
    listening,
    workflow,
)
from tests.servers.postgres import PostgresServer
from tests.servers.processes import freeze


class MemoryBench:
    """Notices on one hub."""

    def __init__(self) -> None:
        self.hub = NoticeHub()

    def make_notices(self, service: str, *, namespace: str = "default") -> MemoryNotices:
        return MemoryNotices(self.hub, namespace=namespace, service=service)

    async def ready(self, heard: Heard) -> None:
        """They hear at once."""


class PostgresBench:
    """Notices through one database."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def make_notices(self, service: str, *, namespace: str = "default") -> PostgresNotices:
        return PostgresNotices(
            self.dsn,
            namespace=namespace,
            service=service,
            prove_every_s=0.3,
            answer_within_s=1.0,
        )

    async def ready(self, heard: Heard) -> None:
        """They say so by naming the own service."""
        await heard.until(lambda: bool(heard.services))


class TestMemoryNotices(NoticesContract):
    """The contract, unchanged."""

    @pytest.fixture
    def bench(self) -> NoticesBench:
        return MemoryBench()


@pytest.mark.postgres
class TestPostgresNotices(NoticesContract):
    """The contract, unchanged."""

    @pytest.fixture
    def bench(self, database: str) -> NoticesBench:
        return PostgresBench(database)


def test_a_schema_that_is_no_plain_name_is_refused() -> None:
    with pytest.raises(ConfigError):
        PostgresNotices("dbname=any", namespace="a", service="b", schema='x"; drop')


def test_channel_names_fit_and_differ() -> None:
    def own(namespace: str, service: str, schema: str = "goconductor") -> str:
        made = PostgresNotices("dbname=a", namespace=namespace, service=service, schema=schema)
        assert made._own_channel != made._ended_channel
        return made._own_channel

    names = [own("n" * 100, "s" * 100), own("a", "b"), own("ab", ""), own("a", "b", "other")]
    assert len(set(names)) == len(names)
    assert all(len(name.encode()) < 63 for name in names)


async def test_what_gathers_while_nobody_can_say_it_is_bounded() -> None:
    notices = PostgresNotices("dbname=none", namespace="a", service="b")
    newest = [workflow(number) for number in range(module.MAX_GATHERED + 10)]
    notices.announce(ended=newest)
    assert list(notices._ended) == newest[10:]


async def pids(dsn: str) -> list[int]:
    """The server's processes that serve notices."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        found = await connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'goconductor'"
        )
        return [row[0] for row in await found.fetchall()]


@pytest.mark.postgres
@pytest.mark.fault(40)
async def test_connections_that_are_ended_come_back(database: str) -> None:
    bench = PostgresBench(database)
    async with listening(bench, "orders") as (notices, heard):
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
            for pid in await pids(database):
                await connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
        notices.announce(ended=[workflow(1)])
        await heard.until(lambda: "orders" in heard.services)  # the wake-up after a reconnect
        notices.announce(ended=[workflow(2)])
        await heard.until(lambda: workflow(2) in heard.ended)


@pytest.fixture
def hurt() -> Iterator[list[int]]:
    """Processes that a test stopped; they go on afterwards."""
    stopped: list[int] = []
    yield stopped
    for pid in stopped:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            continue


@pytest.mark.postgres
@pytest.mark.fault(40, 41)
async def test_a_connection_half_open_is_noticed(database: str, hurt: list[int]) -> None:
    bench = PostgresBench(database)
    async with listening(bench, "orders") as (notices, heard):
        for pid in await pids(database):
            freeze(pid)
            hurt.append(pid)
        notices.announce(ended=[workflow(1)])
        await heard.until(lambda: "orders" in heard.services)
        notices.announce(ended=[workflow(2)])
        await heard.until(lambda: workflow(2) in heard.ended)


@pytest.mark.postgres
async def test_closing_while_nothing_answers_ends_soon(database: str, hurt: list[int]) -> None:
    bench = PostgresBench(database)
    async with listening(bench, "orders") as (notices, _):
        for pid in await pids(database):
            freeze(pid)
            hurt.append(pid)
        notices.announce(ended=[workflow(1)])
        async with asyncio.timeout(5):
            await notices.close()


@pytest.mark.postgres
async def test_opening_and_announcing_without_a_server_waits_for_it() -> None:
    with PostgresServer() as server:
        bench = PostgresBench(server.create_database("late"))
        await asyncio.to_thread(server.kill)
        notices, heard = bench.make_notices("orders"), Heard()
        notices.subscribe(heard)
        await notices.open()
        notices.announce(ended=[workflow(1)])
        await asyncio.to_thread(server.restart)
        await heard.until(lambda: "orders" in heard.services)
        notices.announce(ended=[workflow(2)])
        await heard.until(lambda: workflow(2) in heard.ended)
        await notices.close()
