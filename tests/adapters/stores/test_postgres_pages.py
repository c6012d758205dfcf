"""Pages of lists come off an index in its order: a page costs what it holds, not what is stored."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest

from sidecar.adapters.postgres import bulk, debts, queries, versions
from sidecar.adapters.postgres.connections import parameters
from sidecar.adapters.postgres.sql import numbered
from tests.adapters.stores.postgres_backend import PostgresBackend, backend, migrated

__all__ = ["backend", "migrated"]

pytestmark = pytest.mark.postgres

HERE = {"namespace": "default"}
ALL: dict[str, Any] = {"after": None, "statuses": None, "definition": None, "labels": "{}"}
NO_PLACE = dict.fromkeys(("since", "workflow", "step", "idx"))


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        (queries.SQL["list_workflows"], ALL),
        (queries.SQL["list_workflows"], ALL | {"definition": "order"}),
        (bulk.SQL["list_bulk"], {"before": None}),
        (debts.SQL["list_debts"], NO_PLACE | {"service": None}),
        (debts.SQL["debt_totals"], {"older_than": timedelta(hours=1), "most": 10}),
        (debts.SQL["central_rollbacks"], {"after": None}),
        (versions.SQL["list_versions"], {"name": "order", "before": None, "most": 10}),
    ],
    ids=["workflows", "of a definition", "jobs", "debts", "totals", "central", "versions"],
)
async def test_a_page_needs_no_sorting(
    backend: PostgresBackend, statement: LiteralString, values: dict[str, Any]
) -> None:
    """With sorting forbidden, a plan that sorts all the same has no index to go by."""
    text, names = numbered(statement)
    given = HERE | values | {"limit": 10}
    connection = await psycopg.AsyncConnection.connect(**parameters(backend.dsn, "goconductor"))
    async with connection:
        await connection.execute("SET enable_sort = off")
        cursor = psycopg.AsyncRawCursor(connection)
        await cursor.execute(b"EXPLAIN " + text, [given[name] for name in names])
        plan = [line for (line,) in await cursor.fetchall()]
    # What is grouped is sorted afterwards, and entries within their workflow: both are a handful.
    keys = [line for line in plan if "Sort Key" in line and "owed." not in line]
    presorted = [line for line in plan if "Presorted Key: w.owes_since" in line]
    assert len(keys) == len(presorted)
