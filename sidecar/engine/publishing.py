"""Publishing what the own service offers, and reading what others have published.

A sidecar publishes its catalogue before it takes any work, and tells in every heartbeat which
version it has. The catalogue that was published last is in force for what is registered from then
on. One that offers nothing is published only to take back what was offered before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog

from sidecar.definitions.catalogues import Catalogue, stored_catalogue, too_large
from sidecar.definitions.documents import digest
from sidecar.definitions.pins import CatalogueRef
from sidecar.engine.identity import Identity
from sidecar.errors import Conflict, DefinitionError
from sidecar.ports.catalogues import Catalogues

log = structlog.get_logger("sidecar.publishing")


class Publishing:
    """The catalogue of one sidecar; `version` is None before it is published, or if there is none.

    `catalogue` is what its calls are looked up in.
    """

    def __init__(self, store: Catalogues, identity: Identity, catalogue: Catalogue) -> None:
        self._store = store
        self._identity = identity
        self.catalogue = catalogue
        self.version: int | None = None

    async def publish(self) -> None:
        """Publish it; harmless when repeated. Raises `StoreError`."""
        namespace, service = self._identity.namespace, self._identity.service
        if not self.catalogue.actions:
            before = await self._store.get_catalogue(namespace, service)
            if before is None:
                return
        document = self.catalogue.document()
        stored = await self._store.publish_catalogue(namespace, service, document, digest(document))
        self.version = stored.version
        log.info(
            "catalogue_published", version=stored.version, actions=sorted(self.catalogue.actions)
        )


async def published(
    store: Catalogues, namespace: str, wanted: Iterable[CatalogueRef]
) -> dict[CatalogueRef, Catalogue | None]:
    """Return the catalogues that are wanted; None for those that nobody has published.

    Raises `Conflict` for one that a later version of this program has published, `StoreError`.
    """
    refs = list(wanted)
    found = await asyncio.gather(*(_read(store, namespace, *ref) for ref in refs))
    return dict(zip(refs, found, strict=True))


async def _read(
    store: Catalogues, namespace: str, service: str, version: int | None
) -> Catalogue | None:
    stored = await store.get_catalogue(namespace, service, version)
    if stored is None:
        return None
    try:
        return stored_catalogue(stored.document, stored.version)
    except DefinitionError as error:
        if too_large(stored.document):
            raise Conflict(
                f"Version {stored.version} of the catalogue of {service} is too large to be read "
                f"({error.message}); deploy sidecars with fewer actions.",
                field="steps",
            ) from error
        raise Conflict(
            f"Version {stored.version} of the catalogue of {service} was published by a newer "
            f"sidecar than this one, which cannot read it ({error.message}); ask a newer one.",
            field="steps",
        ) from error
