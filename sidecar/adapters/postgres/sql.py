"""SQL kept in files: each `name.sql` lies beside the `name.py` that uses it.

A file is a row of blocks, each headed `-- name: what_it_does` and a comment. No statement is
ever built from text that comes from outside.

Placeholders have names, `%(name)s`. They are numbered once for each statement: the driver would
search a statement of this size for them each time that it is sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg
from psycopg.rows import dict_row

Connection = psycopg.AsyncConnection[Any]
Cursor = psycopg.AsyncRawCursor[dict[str, Any]]

STATEMENTS_KEPT = 256

_PLACEHOLDER = re.compile(r"%\((\w+)\)s|%%")
_HEAD = re.compile(r"^-- name: ([a-z_]+)\s*$", re.MULTILINE)


def load(python_file: str) -> dict[str, LiteralString]:
    """Return the statements by name. Raises `ValueError` on a name given twice."""
    text = Path(python_file).with_suffix(".sql").read_text(encoding="utf-8")
    parts = _HEAD.split(text)
    names, bodies = parts[1::2], parts[2::2]
    if len(set(names)) != len(names):
        raise ValueError(f"{python_file}: a statement's name is given twice")
    return {
        name: cast("LiteralString", body.strip()) for name, body in zip(names, bodies, strict=True)
    }


@lru_cache(maxsize=STATEMENTS_KEPT)
def numbered(statement: LiteralString) -> tuple[bytes, tuple[str, ...]]:
    """Return a statement as the server takes it, with `$1, $2, ...`, and their names in order."""
    numbers: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        name = found[1]
        return f"${numbers.setdefault(name, len(numbers) + 1)}" if name else "%"

    text = _PLACEHOLDER.sub(number, statement)
    return text.encode(), tuple(numbers)


async def send(connection: Connection, statement: LiteralString, **values: Any) -> Cursor:
    """Execute a statement whose rows come as dicts."""
    text, names = numbered(statement)
    cursor = psycopg.AsyncRawCursor(connection, row_factory=dict_row)
    await cursor.execute(text, [values[name] for name in names])
    return cursor


async def ask(
    connection: Connection, statement: LiteralString, values: Mapping[str, Any]
) -> list[Any]:
    """Execute a statement made of blocks; its rows come as tuples, in the binary format."""
    text, names = numbered(statement)
    cursor: psycopg.AsyncRawCursor[Any] = psycopg.AsyncRawCursor(connection)
    await cursor.execute(text, [values[name] for name in names], binary=True)
    return await cursor.fetchall()
