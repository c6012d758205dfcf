"""The recipes of docs/barriers.md, each on an empty database of a real server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.e2e.recipes import OnMariadb, OnPostgres, Recipe
from tests.servers.mariadb import MariadbServer

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
