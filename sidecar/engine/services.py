"""The services of a namespace: their live sidecars, and what they offer.

Replicas of one service should offer the same. While a deploy is under way they may not: those that
drain are not compared, since they take nothing any more.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sidecar.engine.cursors import cursor_of, position_of
from sidecar.engine.queries import DEFAULT_PAGE, Page
from sidecar.ports.catalogues import StoredCatalogue
from sidecar.ports.records import SidecarRecord
from sidecar.ports.store import Store


@dataclass(frozen=True, slots=True)
class ServiceView:
    """One service: `catalogue` is the version in force, `actions` what stands in it, as JSON data.

    `differs`: its live sidecars do not all have the same version.
    """

    service: str
    sidecars: tuple[SidecarRecord, ...]
    catalogue: int | None
    actions: Mapping[str, Any]
    differs: bool


class Services:
    """Queries about services. All raise `StoreUnavailable`."""

    def __init__(self, store: Store, silent_after: timedelta) -> None:
        self._store = store
        self._silent_after = silent_after

    async def list(
        self, namespace: str, *, cursor: str | None = None, limit: int = DEFAULT_PAGE
    ) -> Page[ServiceView]:
        """Return those with a live sidecar or a catalogue, by name. Raises `InvalidRequest`."""
        after = "" if cursor is None else position_of(cursor, "s")
        live = by_service(await self._store.list_sidecars(namespace, self._silent_after))
        offered = {one.service: one for one in await self._store.list_catalogues(namespace)}
        names = sorted(name for name in {*live, *offered} if name > after)
        views = tuple(_view(name, live.get(name, ()), offered.get(name)) for name in names[:limit])
        more = len(names) > limit
        return Page(views, cursor_of("s", views[-1].service) if more else None)


def by_service(sidecars: Iterable[SidecarRecord]) -> dict[str, tuple[SidecarRecord, ...]]:
    """Return sidecars by their services."""
    found: defaultdict[str, list[SidecarRecord]] = defaultdict(list)
    for one in sidecars:
        found[one.beat.service].append(one)
    return {service: tuple(ones) for service, ones in found.items()}


def versions_of(sidecars: Iterable[SidecarRecord]) -> frozenset[int | None]:
    """Return which versions of their catalogue sidecars have that stay; None is no catalogue."""
    return frozenset(one.beat.catalogue for one in sidecars if not one.beat.draining)


def _view(
    service: str, sidecars: tuple[SidecarRecord, ...], offered: StoredCatalogue | None
) -> ServiceView:
    return ServiceView(
        service=service,
        sidecars=sidecars,
        catalogue=None if offered is None else offered.version,
        actions={} if offered is None else json.loads(offered.document),
        differs=len(versions_of(sidecars)) > 1,
    )
