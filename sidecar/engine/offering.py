"""Whether the sidecars that live offer what a definition names: told when it is registered.

While a deploy is under way they may not all do. Those that do not give its steps back, so nothing
is wrong; but it is slower, and whoever registers may want to wait.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from datetime import timedelta

from sidecar.definitions.catalogues import Catalogue
from sidecar.definitions.checker import Finding
from sidecar.definitions.checker.report import finding
from sidecar.definitions.pins import CatalogueRef
from sidecar.engine.publishing import published
from sidecar.engine.services import by_service
from sidecar.errors import Conflict
from sidecar.ports.store import Store
from sidecar.saga.definition import Definition


async def lacking(
    definition: Definition, store: Store, silent_after: timedelta
) -> tuple[Finding, ...]:
    """Return a warning for each step whose action only some live sidecars of its service offer.

    A sidecar unseen for `silent_after` is none that lives. Raises `StoreError`.
    """
    services = {one.service for one in definition.steps if one.action}
    if not services:
        return ()
    live = by_service(await store.list_sidecars(definition.namespace, silent_after))
    having: defaultdict[str, Counter[int | None]] = defaultdict(Counter)
    for service in services:
        for one in live.get(service, ()):
            if not one.beat.draining:
                having[service][one.beat.catalogue] += 1
    differing = {service for service, versions in having.items() if len(versions) > 1}
    refs = [(service, one) for service in differing for one in having[service] if one is not None]
    known = await _readable(store, definition.namespace, refs)
    found: list[Finding] = []
    for number, step in enumerate(definition.steps):
        if not step.action or step.service not in differing:
            continue
        versions = having[step.service]
        without = sum(
            count
            for version, count in versions.items()
            if not _offers(known.get((step.service, version), _NOTHING), step.action)
        )
        if without:
            text = (
                f"{without} of {versions.total()} live sidecars of {step.service} do not offer "
                f"{step.action!r}: they leave the step to the others, which takes longer"
            )
            found.append(finding("GC152", ("steps", number, "action"), text, step=step.name))
    return tuple(found)


_NOTHING = Catalogue()


def _offers(catalogue: Catalogue | None, action: str) -> bool:
    """Whether it offers an action; of one that cannot be read here the best is supposed."""
    return catalogue is None or action in catalogue.actions


async def _readable(
    store: Store, namespace: str, refs: Collection[CatalogueRef]
) -> Mapping[CatalogueRef, Catalogue | None]:
    """The catalogues; None for those that only a later version of this program can read."""
    found: dict[CatalogueRef, Catalogue | None] = {}
    for ref in refs:
        try:
            found |= await published(store, namespace, [ref])
        except Conflict:
            found[ref] = None
    return found
