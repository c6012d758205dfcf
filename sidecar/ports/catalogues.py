"""Catalogues as they are kept: each version of what a service offers, with a number of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from sidecar.saga.definition import JsonText


@dataclass(frozen=True, slots=True)
class StoredCatalogue:
    """A version of a catalogue: `document` is canonical JSON, the actions by name.

    `published_at` is when a sidecar that offers it was last started.
    """

    namespace: str
    service: str
    version: int
    hash: str
    document: JsonText
    created_at: datetime
    published_at: datetime


class Catalogues(Protocol):
    """The part of the store that is about what services offer."""

    async def publish_catalogue(
        self, namespace: str, service: str, document: JsonText, digest: str
    ) -> StoredCatalogue:
        """Keep a catalogue, which is in force from now on. The same digest is the same version."""
        ...

    async def get_catalogue(
        self, namespace: str, service: str, version: int | None = None
    ) -> StoredCatalogue | None:
        """Return a version, or the one in force: the one that was published last."""
        ...

    async def list_catalogues(self, namespace: str) -> Sequence[StoredCatalogue]:
        """Return the catalogue in force of each service, by service."""
        ...

    async def live_versions(
        self, namespace: str, seen_within: timedelta
    ) -> Mapping[str, frozenset[int | None]]:
        """Return the versions that live sidecars have, by service; None is no catalogue.

        Lives: seen within so long, and neither gone nor draining. Services that have no such
        sidecar are left out.
        """
        ...
