"""The recipes of docs/barriers.md on empty databases, and the worked definitions, running."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.e2e.recipes import OnMariadb, OnPostgres, Recipe
from tests.e2e.worked import Running, running
from tests.servers.mariadb import MariadbServer
from tests.servers.postgres import PostgresServer

POSTGRES = pytest.param("postgres", marks=pytest.mark.postgres)
MARIADB = pytest.param("mariadb", marks=pytest.mark.mariadb)


@pytest.fixture(params=[POSTGRES, MARIADB])
def recipe(request: pytest.FixtureRequest) -> Iterator[Recipe]:
    """A recipe on an empty database."""
    if request.param == "postgres":
        on_postgres = OnPostgres(request.getfixturevalue("database"))
        on_postgres.make()
        yield on_postgres
        return
    server: MariadbServer = request.getfixturevalue("mariadb_server")
    name = f"test_{uuid.uuid4().hex}"
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
        on_mariadb = OnMariadb(server, name)
        on_mariadb.make()
        yield on_mariadb
        cursor.execute(f"DROP DATABASE {name}")


@pytest.fixture(scope="module")
def world(
    postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """All that the worked definitions need, for the tests of one file."""
    name = f"test_{uuid.uuid4().hex}"
    database = postgres_server.create_database(name)
    with running(database, tmp_path_factory.mktemp("worked")) as found:
        yield found
    postgres_server.drop_database(name)


@pytest.fixture
def here(world: Running) -> Iterator[Running]:
    """The same, with services that were told nothing."""
    yield world
    world.services.forget()
