"""What services offer, on PostgreSQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta

from sidecar.adapters.postgres.reading import Reading
from sidecar.adapters.postgres.sql import load, send
from sidecar.ports.catalogues import StoredCatalogue
from sidecar.saga.definition import JsonText

SQL = load(__file__)


class PostgresCatalogues:
    """See `sidecar.ports.catalogues.Catalogues`."""

    readers: Reading
    vital: Reading

    async def publish_catalogue(
        self, namespace: str, service: str, document: JsonText, digest: str
    ) -> StoredCatalogue:
        """Keep a catalogue, which is in force from now on. The same digest is the same version."""
        names = {"namespace": namespace, "service": service}
        async with self.readers.transaction() as connection:
            await send(connection, SQL["lock_catalogues"], **names)
            kept = await send(
                connection, SQL["publish_catalogue"], **names, hash=digest, document=document
            )
            (row,) = await kept.fetchall()
        return StoredCatalogue(**row)

    async def get_catalogue(
        self, namespace: str, service: str, version: int | None = None
    ) -> StoredCatalogue | None:
        """Return a version, or the one in force: the one that was published last."""
        found = await self.readers.rows(
            SQL["get_catalogue"], namespace=namespace, service=service, version=version
        )
        return StoredCatalogue(**found[0]) if found else None

    async def list_catalogues(self, namespace: str) -> Sequence[StoredCatalogue]:
        """Return the catalogue in force of each service, by service."""
        found = await self.readers.rows(SQL["list_catalogues"], namespace=namespace)
        return [StoredCatalogue(**row) for row in found]

    async def live_versions(
        self, namespace: str, seen_within: timedelta
    ) -> Mapping[str, frozenset[int | None]]:
        """Return the versions that live sidecars have, by service; None is no catalogue.

        A leader's question: it takes none of the connections that are made for clients.
        """
        found: defaultdict[str, set[int | None]] = defaultdict(set)
        values = {"namespace": namespace, "within": seen_within}
        for row in await self.vital.rows(SQL["live_versions"], **values):
            found[row["service"]].add(row["catalogue"])
        return {service: frozenset(versions) for service, versions in found.items()}
