"""Migrations: numbered, forward only, applied once, under a lock, in one transaction.

A migration that was applied may never be edited: its checksum is kept and compared.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

from psycopg import sql

from sidecar.adapters.postgres.connections import checked_schema, connect
from sidecar.adapters.postgres.errors import translated
from sidecar.adapters.postgres.sql import Connection, load
from sidecar.errors import SchemaMismatch

SQL = load(__file__)
FOLDER = Path(__file__).parent / "migrations"
_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    number: int
    name: str
    text: LiteralString
    checksum: str


def migrations() -> list[Migration]:
    """Return all migrations in their order. Raises `ValueError` on a gap or a bad name."""
    found = []
    for path in sorted(FOLDER.glob("*.sql")):
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise ValueError(f"{path.name} is not named like 0001_what_it_does.sql")
        text = path.read_text(encoding="utf-8")
        checksum = hashlib.sha256(text.encode()).hexdigest()
        found.append(Migration(int(match[1]), path.stem, text, checksum))
    if [one.number for one in found] != list(range(1, len(found) + 1)):
        raise ValueError("migrations must be numbered without a gap")
    return found


async def migrate(dsn: str, schema: str = "goconductor") -> list[str]:
    """Bring the schema up to date; return the names of what was applied now.

    Raises `SchemaMismatch` when the database is newer than this program, or when an applied
    migration was changed; `StoreUnavailable` when it cannot be reached.
    """
    checked_schema(schema)
    with translated():
        async with await connect(dsn, schema) as connection:
            await connection.execute(SQL["patience"])
            await connection.execute(SQL["lock"], {"schema": schema})
            await _make_schema(connection, schema)
            await connection.execute(SQL["journal"])
            done = await _applied(connection)
            _compare(done)
            applied = []
            for one in migrations()[len(done) :]:
                await connection.execute(one.text)
                values = {"number": one.number, "name": one.name, "checksum": one.checksum}
                await connection.execute(SQL["note"], values)
                applied.append(one.name)
            return applied


async def _make_schema(connection: Connection, schema: str) -> None:
    """Make the schema if it is missing; one that is there needs no right to make it."""
    cursor = await connection.execute(SQL["schema_exists"], {"schema": schema})
    row = await cursor.fetchone()
    if row is None or not row[0]:
        create = sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema))
        await connection.execute(create)


async def check_schema(connection: Connection) -> None:
    """Raise `SchemaMismatch` unless the schema is exactly the one this program knows."""
    with translated():
        done = await _applied(connection)
    _compare(done)
    known = migrations()
    if len(done) < len(known):
        raise SchemaMismatch(
            f"the schema is at migration {len(done)}, this program needs {len(known)}; "
            "run `goconductor migrate`"
        )


async def _applied(connection: Connection) -> list[tuple[int, str, str]]:
    cursor = await connection.execute(SQL["applied"])
    return [(number, name, checksum) for number, name, checksum in await cursor.fetchall()]


def _compare(done: list[tuple[int, str, str]]) -> None:
    known = migrations()
    if len(done) > len(known):
        raise SchemaMismatch(
            f"the schema is at migration {len(done)}, this program knows only {len(known)}; "
            "upgrade the program"
        )
    for (number, name, checksum), one in zip(done, known, strict=False):
        if (number, checksum) != (one.number, one.checksum):
            raise SchemaMismatch(f"migration {name} was changed after it had been applied")
