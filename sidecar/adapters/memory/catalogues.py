"""What services offer, in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from sidecar.adapters.memory.handle import MemoryHandle
from sidecar.ports.catalogues import StoredCatalogue
from sidecar.saga.definition import JsonText


class MemoryCatalogues(MemoryHandle):
    """See `sidecar.ports.catalogues.Catalogues`."""

    async def publish_catalogue(
        self, namespace: str, service: str, document: JsonText, digest: str
    ) -> StoredCatalogue:
        """Keep a catalogue, which is in force from now on. The same digest is the same version."""
        self.check_open()
        versions = self.tables.catalogues.setdefault((namespace, service), {})
        now = self.clock.now()
        known = next((one for one in versions.values() if one.hash == digest), None)
        if known is None:
            number = len(versions) + 1
            stored = StoredCatalogue(namespace, service, number, digest, document, now, now)
        else:
            stored = replace(known, published_at=now)
            del versions[stored.version]
        versions[stored.version] = stored
        return stored

    async def get_catalogue(
        self, namespace: str, service: str, version: int | None = None
    ) -> StoredCatalogue | None:
        """Return a version, or the one in force: the one that was published last."""
        self.check_open()
        versions = self.tables.catalogues.get((namespace, service), {})
        return versions.get(next(reversed(versions), 0) if version is None else version)

    async def list_catalogues(self, namespace: str) -> Sequence[StoredCatalogue]:
        """Return the catalogue in force of each service, by service."""
        self.check_open()
        found = (await self.get_catalogue(*key) for key in sorted(self.tables.catalogues))
        return [one async for one in found if one is not None and one.namespace == namespace]

    async def live_versions(
        self, namespace: str, seen_within: timedelta
    ) -> Mapping[str, frozenset[int | None]]:
        """Return the versions that live sidecars have, by service; None is no catalogue."""
        self.check_open()
        since = self.clock.now() - seen_within
        found: defaultdict[str, set[int | None]] = defaultdict(set)
        for incarnation, one in self.tables.sidecars.items():
            there = one.seen_at >= since and incarnation not in self.tables.gone
            if there and one.beat.namespace == namespace and not one.beat.draining:
                found[one.beat.service].add(one.beat.catalogue)
        return {service: frozenset(versions) for service, versions in found.items()}
