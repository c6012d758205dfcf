"""SQL kept in files: each `name.sql` lies beside the `name.py` that uses it.

A file is a row of blocks, each headed `-- name: what_it_does` and a comment. No statement is
ever built from text that comes from outside.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg
from psycopg.rows import dict_row

Connection = psycopg.AsyncConnection[Any]
Cursor = psycopg.AsyncCursor[dict[str, Any]]

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


async def send(connection: Connection, statement: LiteralString, **values: Any) -> Cursor:
    """Execute a statement whose rows come as dicts; in a pipeline, without waiting for them."""
    cursor = connection.cursor(row_factory=dict_row)
    await cursor.execute(statement, values)
    return cursor


async def ask(
    connection: Connection, statement: LiteralString, values: Mapping[str, Any]
) -> list[Any]:
    """Execute a statement made of blocks; its rows come as tuples, in the binary format."""
    cursor = connection.cursor(binary=True)
    await cursor.execute(statement, values)
    return await cursor.fetchall()
