"""Migrations: their sum is the schema, they run once, and a wrong database is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from sidecar.adapters.postgres import migrate as module
from sidecar.adapters.postgres.connections import connect
from sidecar.adapters.postgres.migrate import check_schema, migrate, migrations
from sidecar.errors import ConfigError, SchemaMismatch, StoreUnavailable
from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.postgres

WHOLE = Path(module.__file__).with_name("schema.sql")
NAMES = [one.name for one in migrations()]

SHAPE = """
SELECT 'column', table_name, column_name, data_type, is_nullable, column_default
FROM information_schema.columns WHERE table_schema = %(schema)s
UNION ALL
SELECT 'index', tablename, indexname, indexdef, '', ''
FROM pg_indexes WHERE schemaname = %(schema)s
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', ''
FROM pg_constraint WHERE connamespace = %(schema)s::regnamespace
UNION ALL
SELECT 'table', relname, array_to_string(reloptions, ' '), '', '', ''
FROM pg_class WHERE relnamespace = %(schema)s::regnamespace AND relkind = 'r'
ORDER BY 1, 2, 3, 4
"""


@pytest.fixture
def another_database(postgres_server: PostgresServer, database: str) -> Iterator[str]:
    name = f"{database.rpartition('/')[2]}_too"
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


def shape_of(dsn: str, schema: str = "goconductor") -> list[tuple[str, ...]]:
    """Every table, column, index and constraint but those of the journal of migrations."""
    with psycopg.connect(dsn, options=f"-c search_path={schema}") as connection:
        rows = connection.execute(SHAPE.encode(), {"schema": schema}).fetchall()
    return [row for row in rows if row[1] != "schema_migrations"]


def execute(dsn: str, script: str) -> None:
    """Run a script in the product's schema."""
    with psycopg.connect(dsn, options="-c search_path=goconductor") as connection:
        connection.execute(script.encode())


async def check(dsn: str) -> None:
    """Do what a store does when it opens."""
    async with await connect(dsn, "goconductor") as connection:
        await check_schema(connection)


async def test_the_whole_schema_is_the_sum_of_the_migrations(
    database: str, another_database: str
) -> None:
    await migrate(database)
    execute(another_database, "CREATE SCHEMA goconductor;" + WHOLE.read_text())
    assert len(shape_of(database)) > 100
    assert shape_of(database) == shape_of(another_database)


async def test_a_second_run_does_nothing(database: str) -> None:
    assert await migrate(database) == NAMES
    before = shape_of(database)
    assert await migrate(database) == []
    assert shape_of(database) == before
    await check(database)


async def test_runs_at_the_same_time_are_safe(database: str) -> None:
    done = await asyncio.gather(*(migrate(database) for _ in range(4)))
    assert sorted(done) == [*[[]] * 3, NAMES]
    await check(database)


async def test_two_schemas_of_one_database_do_not_meet(database: str) -> None:
    assert await migrate(database) == NAMES
    assert await migrate(database, "other") == NAMES
    assert len(shape_of(database)) == len(shape_of(database, "other"))


async def test_a_schema_made_beforehand_needs_no_right_to_make_one(database: str) -> None:
    execute(
        database,
        "DROP ROLE IF EXISTS modest; CREATE ROLE modest LOGIN;"
        " CREATE SCHEMA goconductor AUTHORIZATION modest",
    )
    try:
        modest = database.replace("postgres@", "modest@")
        assert await migrate(modest) == NAMES
        await check(modest)
    finally:
        execute(database, "DROP OWNED BY modest; DROP ROLE modest")


async def test_a_database_that_was_never_migrated_is_refused(database: str) -> None:
    with pytest.raises(SchemaMismatch, match="goconductor migrate"):
        await check(database)


async def test_an_older_database_is_refused_with_the_way_out(database: str) -> None:
    await migrate(database)
    execute(database, "DELETE FROM schema_migrations")
    with pytest.raises(SchemaMismatch, match="goconductor migrate"):
        await check(database)


async def test_a_newer_database_is_refused_and_not_touched(database: str) -> None:
    await migrate(database)
    newer = len(NAMES) + 1
    execute(
        database,
        f"INSERT INTO schema_migrations VALUES ({newer}, '{newer:04}_later', 'x')",  # noqa: S608
    )
    for attempt in (check(database), migrate(database)):
        with pytest.raises(SchemaMismatch, match="upgrade the program"):
            await attempt


async def test_a_migration_that_was_changed_afterwards_is_refused(database: str) -> None:
    await migrate(database)
    execute(database, "UPDATE schema_migrations SET checksum = 'x' WHERE number = 1")
    for attempt in (check(database), migrate(database)):
        with pytest.raises(SchemaMismatch, match="was changed"):
            await attempt


async def test_a_migration_that_fails_leaves_nothing_behind(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "0001_good.sql").write_text("CREATE TABLE one (id integer)")
    (tmp_path / "0002_bad.sql").write_text("CREATE TABLE two (id integer); SELECT 1 / 0")
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    with pytest.raises(Exception, match="division by zero"):
        await migrate(database)
    assert shape_of_nothing(database)
    (tmp_path / "0002_bad.sql").unlink()
    (tmp_path / "0002_mended.sql").write_text("CREATE TABLE two (id integer)")
    assert await migrate(database) == ["0001_good", "0002_mended"]
    (tmp_path / "0003_more.sql").write_text("ALTER TABLE two ADD COLUMN name text")
    assert await migrate(database) == ["0003_more"]
    await check(database)


async def test_versions_that_are_there_stay_in_their_order(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the clock said when they were registered: the highest version stays current."""
    before = [one for one in sorted(module.FOLDER.glob("*.sql")) if one.name < "0010"]
    for one in before:
        (tmp_path / one.name).write_text(one.read_text())
    with monkeypatch.context() as patched:
        patched.setattr(module, "FOLDER", tmp_path)
        await migrate(database)
    execute(
        database,
        "INSERT INTO definitions (namespace, name, version, hash, document, created_at) SELECT "
        "'default', 'order', v, v::text, '{}', '2030-01-01'::timestamptz - abs(v - 2) * interval "
        "'1 day' FROM generate_series(1, 4) v",
    )
    assert await migrate(database) == NAMES[len(before) :]
    with psycopg.connect(database, options="-c search_path=goconductor") as connection:
        rows = connection.execute(b"SELECT version FROM definitions ORDER BY registered_at")
        assert [version for (version,) in rows.fetchall()] == [1, 2, 3, 4]


def shape_of_nothing(dsn: str) -> bool:
    """Whether the product's schema does not exist."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(b"SELECT to_regnamespace('goconductor')").fetchone()
    return row == (None,)


@pytest.mark.parametrize("name", ["1_short.sql", "0001-dash.sql", "0001_Big.sql", "0003_gap.sql"])
def test_names_follow_one_grammar_without_a_gap(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).touch()
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"named like|without a gap"):
        migrations()


async def test_bad_addresses_are_told_apart() -> None:
    with pytest.raises(ConfigError, match="not a PostgreSQL address"):
        await migrate("nonsense")
    with pytest.raises(ConfigError, match="identifier"):
        await migrate("postgresql://127.0.0.1/x", "no schema")
    with pytest.raises(StoreUnavailable):
        await migrate("postgresql://postgres@127.0.0.1:1/none")
