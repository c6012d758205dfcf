"""Fixtures that every room of the tests may use: real servers, one per session, and databases.

A test that cuts, kills or slows a server makes its own (`PostgresServer()`, `KafkaServer()`); the
servers here are shared by all other tests of the session, or of the xdist worker. A server that
is not installed skips its tests with the reason; under `make test` and in CI it fails them.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from typing import NoReturn

import pytest
from hypothesis import settings

from tests.servers.kafka import KafkaServer
from tests.servers.mariadb import MariadbServer
from tests.servers.postgres import PostgresServer
from tests.servers.processes import ServerMissingError

# A slow machine is not a failing property; pytest's own timeout bounds the test.
settings.register_profile("goconductor", deadline=None)
settings.load_profile("goconductor")

pytest_plugins = ["tests.faults.record"]


# A Java program starts slowly on a busy machine; the start counts as part of the first test.
KAFKA_TIMEOUT_S = 180


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests with a broker time for its start, unless they say themselves how long."""
    for item in items:
        if item.get_closest_marker("kafka") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(KAFKA_TIMEOUT_S))


def servers_are_required() -> bool:
    """Whether a missing server is a failure: always in CI and under `make test`."""
    return any(
        os.environ.get(name, "") not in ("", "0", "false") for name in ("CI", "SERVERS_REQUIRED")
    )


def _missing(error: ServerMissingError) -> NoReturn:
    if servers_are_required():
        pytest.fail(f"a server is required here: {error}", pytrace=False)
    pytest.skip(str(error))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One real PostgreSQL for the session."""
    try:
        server = PostgresServer()
    except ServerMissingError as error:
        _missing(error)
    with server:
        yield server


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[str]:
    """The DSN of a fresh, empty database; it is dropped after the test."""
    if not postgres_server.alive:  # an earlier test killed it; this one is not to blame
        postgres_server.restart()
    name = f"test_{uuid.uuid4().hex}"
    yield postgres_server.create_database(name)
    if postgres_server.alive:
        postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def kafka_server() -> Iterator[KafkaServer]:
    """One real Kafka broker for the session; topics get names of their own."""
    try:
        server = KafkaServer()
    except ServerMissingError as error:
        _missing(error)
    with server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariadbServer]:
    """One real MariaDB for the session; it stands for MySQL."""
    try:
        server = MariadbServer()
    except ServerMissingError as error:
        _missing(error)
    with server:
        yield server
