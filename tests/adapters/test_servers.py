"""The real servers of the tests start, answer, survive a kill, restart with their data, and end.

Also that none outlives us: a process that starts a server and is killed takes it along.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.servers.facts import until
from tests.servers.kafka import KafkaServer
from tests.servers.mariadb import MariadbServer
from tests.servers.postgres import PostgresServer
from tests.servers.processes import ServerError, runs, wait_gone

_ROOT = Path(__file__).parents[2]

_START_AND_WAIT = """
from {module} import {server}
running = {server}()
print(running.pid, running._folder, flush=True)
input()
"""


def _write(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
        connection.execute("INSERT INTO kept VALUES (1)")


def _count(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.postgres
def test_each_test_gets_an_empty_database(database: str) -> None:
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        ).fetchone()
    assert row == (0,)


@pytest.mark.postgres
@pytest.mark.parametrize("fsync", [False, True])
def test_postgres_keeps_its_data_over_kill_and_restart(
    fsync: bool, postgres_server: PostgresServer
) -> None:
    with PostgresServer(fsync=fsync) as server:
        _write(server.dsn)
        before = server.pid
        server.kill()
        assert not server.alive
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.dsn, connect_timeout=2)
        server.restart()
        assert server.pid != before
        _write(server.dsn)
        server.restart()
        assert _count(server.dsn) == 2
        with psycopg.connect(server.dsn) as connection:
            row = connection.execute("SHOW fsync").fetchone()
        assert row == ("on" if fsync else "off",)


@pytest.mark.postgres
def test_a_stopped_postgres_leaves_nothing(postgres_server: PostgresServer) -> None:
    with PostgresServer() as server:
        pid, folder = server.pid, server._folder
    server.stop()
    assert not runs(pid)
    assert not folder.exists()


@pytest.mark.postgres
def test_a_postgres_that_cannot_start_says_why(postgres_server: PostgresServer) -> None:
    with pytest.raises(ServerError, match="no_such_setting"):
        PostgresServer(settings={"no_such_setting": "1"})


@pytest.mark.postgres
def test_postgres_dies_with_its_owner(postgres_server: PostgresServer) -> None:
    _assert_dies_with_owner("tests.servers.postgres", "PostgresServer")


@pytest.mark.kafka
async def test_kafka_keeps_its_log_over_kill_and_restart(kafka_server: KafkaServer) -> None:
    with KafkaServer() as server:
        await _make_topic(server.bootstrap_servers)
        await _send(server.bootstrap_servers, b"first")
        before = server.pid
        server.kill()
        assert not server.alive
        server.restart()
        assert server.pid != before
        await _send(server.bootstrap_servers, b"second")
        server.restart()
        assert await _receive(server.bootstrap_servers, count=2) == [b"first", b"second"]
        pid, folder = server.pid, server._folder
    server.stop()
    assert not runs(pid)
    assert not folder.exists()


@pytest.mark.kafka
def test_kafka_dies_with_its_owner(kafka_server: KafkaServer) -> None:
    _assert_dies_with_owner("tests.servers.kafka", "KafkaServer")


@pytest.mark.mariadb
def test_a_stopped_mariadb_leaves_nothing(mariadb_server: MariadbServer) -> None:
    with MariadbServer() as server:
        pid, folder = server.pid, server._folder
    server.stop()
    assert not runs(pid)
    assert not folder.exists()


@pytest.mark.mariadb
def test_mariadb_dies_with_its_owner(mariadb_server: MariadbServer) -> None:
    _assert_dies_with_owner("tests.servers.mariadb", "MariadbServer")


async def test_waiting_for_a_fact_ends_with_it_or_with_the_deadline() -> None:
    answers = iter([False, False, True])
    await until(lambda: next(answers), within_s=5.0)
    with pytest.raises(TimeoutError):
        await until(lambda: False, within_s=0.05)


async def _make_topic(bootstrap_servers: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic("kept", num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def _send(bootstrap_servers: str, value: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all")
    await producer.start()
    try:
        await producer.send_and_wait("kept", value)
    finally:
        await producer.stop()


async def _receive(bootstrap_servers: str, *, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        "kept",
        bootstrap_servers=bootstrap_servers,
        auto_offset_reset="earliest",
        group_id="readers",
    )
    await consumer.start()
    try:
        return [(await consumer.getone()).value for _ in range(count)]
    finally:
        await consumer.stop()


def _assert_dies_with_owner(module: str, server: str) -> None:
    script = _START_AND_WAIT.format(module=module, server=server)
    owner = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
    )
    with owner:
        assert owner.stdout is not None
        pid, folder = owner.stdout.readline().split()
        assert runs(int(pid))
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
    wait_gone([int(pid)], within_s=15.0)
    assert Path(folder).name.split("-")[2] == str(owner.pid)  # so the next start sweeps it
    shutil.rmtree(folder)
