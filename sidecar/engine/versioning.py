"""What a person can do to a version of a definition: deprecate, retire, restore and delete it.

    active ──deprecate──▶ deprecated ──retire──▶ retired ──delete──▶ gone
       ◀───────────── restore ─────────────────────┘

None of it touches a workflow that runs: each keeps the version that it was started with. So only
a version to which no workflow refers can be deleted, be it open or stored, and only if no other
definition runs it as a child.
"""

from __future__ import annotations

from datetime import timedelta

from sidecar.engine.compiled import CompiledDefinitions
from sidecar.engine.cursors import cursor_of, number_of
from sidecar.engine.failpoints import Site, failpoint
from sidecar.engine.queries import DEFAULT_PAGE, Page
from sidecar.engine.views import DefinitionView, definition_view
from sidecar.errors import Conflict, NotFound
from sidecar.ports.store import Store
from sidecar.ports.versions import Removal, VersionLine, VersionState

RETIRED_FOR = timedelta(minutes=1)
"""No start can be under way for longer, so after that it is known who refers to a version."""

COUNT_UP_TO = 1_000
"""More open workflows of one version are not counted."""

_WHY_NOT = {
    Removal.NOT_RETIRED: "only a version that is retired can be deleted",
    Removal.TOO_SOON: "starts may still be under way; try again a minute after it was retired",
    Removal.PINNED: "another definition runs it as a child; delete that version first",
    Removal.IN_USE: "there are workflows that run it, or did; they keep it until they are gone",
}


class Versioning:
    """The versions of definitions. All raise `StoreUnavailable`."""

    def __init__(self, store: Store, compiled: CompiledDefinitions) -> None:
        self._store = store
        self._compiled = compiled

    async def list(
        self, namespace: str, name: str, *, cursor: str | None = None, limit: int = DEFAULT_PAGE
    ) -> Page[VersionLine]:
        """Return the versions of a definition, newest first.

        Raises `NotFound`, `InvalidRequest`.
        """
        before = None if cursor is None else number_of(cursor, "v")
        found = await self._store.list_versions(namespace, name, before, limit + 1, COUNT_UP_TO + 1)
        if not found and before is None:
            raise NotFound(f"There is no definition {name}.", field="name")
        items = tuple(found[:limit])
        more = len(found) > limit
        return Page(items, cursor_of("v", str(items[-1].version)) if more else None)

    async def set_state(
        self, namespace: str, name: str, version: int, state: VersionState
    ) -> DefinitionView:
        """Set the state of a version; harmless when repeated. Raises `NotFound`."""
        stored = await self._store.set_version_state(namespace, name, version, state)
        failpoint(Site.AFTER_REGISTER)
        if stored is None:
            raise _no_such_version(name, version)
        self._compiled.compile(stored)
        return definition_view(stored, with_document=False)

    async def delete(self, namespace: str, name: str, version: int) -> None:
        """Delete a version; its number is never given again. Raises `NotFound`, `Conflict`."""
        removal = await self._store.delete_version(namespace, name, version, RETIRED_FOR)
        if removal is Removal.UNKNOWN:
            raise _no_such_version(name, version)
        if removal is not Removal.DONE:
            raise Conflict(
                f"Version {version} of definition {name} cannot be deleted: {_WHY_NOT[removal]}.",
                field="version",
            )


def _no_such_version(name: str, version: int) -> NotFound:
    return NotFound(f"There is no version {version} of definition {name}.", field="version")
