"""Catalogues on PostgreSQL: two replicas whose starts overlap at the worst moment."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.adapters.postgres.catalogues import SQL
from sidecar.adapters.postgres.sql import send
from sidecar.definitions.documents import digest
from tests.adapters.stores.postgres_backend import PostgresBackend, backend, migrated
from tests.conformance.store_catalogues import FIRST, SECOND, publish

__all__ = ["backend", "migrated"]

pytestmark = pytest.mark.postgres


async def test_who_publishes_beside_another_waits_and_gets_the_next_number(
    backend: PostgresBackend,
) -> None:
    store = await backend.open_store()
    names = {"namespace": "default", "service": "payments"}
    async with backend.session() as rival:
        await send(rival, SQL["lock_catalogues"], **names)
        await send(
            rival, SQL["publish_catalogue"], **names, hash=digest(FIRST), document=str(FIRST)
        )
        publishing = asyncio.create_task(publish(store, SECOND))
        await backend.until_somebody_waits()
        assert (await publish(store, SECOND, "inventory")).version == 1  # nobody's business
        await rival.commit()
    assert (await publishing).version == 2
    assert (await publish(store, FIRST)).version == 1
