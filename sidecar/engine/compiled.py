"""Definitions ready to run, kept in memory.

A version never changes, so what was compiled once is good for ever; only which version is the
latest changes, and whether one is deprecated, which is looked up now and then beside starts.
A start supposes that it is the one last seen, and has the store refuse it if not.
Requests that ask for the same name while an answer is under way share the next one: each still
gets an answer that was read after it asked, and a thousand at once cost a few queries.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import suppress

from sidecar.definitions import compile_stored
from sidecar.errors import Conflict, NotFound, StoreError
from sidecar.ports.store import Store
from sidecar.ports.versions import StoredDefinition, VersionState
from sidecar.saga.definition import Definition
from sidecar.saga.workflow import DefinitionRef

MOST_KEPT = 256
"""How many compiled versions one sidecar keeps; the least recently used go first."""
STATE_GOOD_FOR_S = 10.0
"""How long it may take until a sidecar hears that another one has deprecated a version."""


class CompiledDefinitions:
    """Compiled definitions by reference, and the latest version of each name."""

    def __init__(self, store: Store, *, most: int = MOST_KEPT) -> None:
        self._store = store
        self._most = most
        self._kept: OrderedDict[DefinitionRef, Definition] = OrderedDict()
        self._states: dict[DefinitionRef, tuple[VersionState, float]] = {}
        self._refreshing: set[asyncio.Task[None]] = set()
        self._last_seen: dict[tuple[str, str], DefinitionRef] = {}
        self._looking: dict[tuple[str, str], asyncio.Task[Definition | None]] = {}
        self._next: dict[tuple[str, str], asyncio.Task[Definition | None]] = {}

    def kept(self, ref: DefinitionRef) -> Definition | None:
        """Return a version if it is in memory: never waits."""
        found = self._kept.get(ref)
        if found is not None:
            self._kept.move_to_end(ref)
        return found

    def compile(self, stored: StoredDefinition) -> Definition:
        """Return what a stored version compiles to, from memory if it was compiled before."""
        ref = DefinitionRef(stored.namespace, stored.name, stored.version)
        found = self.kept(ref)
        self._states[ref] = (stored.state, asyncio.get_running_loop().time())
        if found is None:
            found = compile_stored(stored.document, *ref)
            self._kept[ref] = found
            while len(self._kept) > self._most:
                gone, _ = self._kept.popitem(last=False)
                self._states.pop(gone, None)
                if self._last_seen.get((gone.namespace, gone.name)) == gone:
                    del self._last_seen[gone.namespace, gone.name]
        return found

    def is_retired(self, ref: DefinitionRef) -> bool:
        """Whether a version was retired when last looked at."""
        return self._states.get(ref, (VersionState.ACTIVE, 0.0))[0] is VersionState.RETIRED

    def is_deprecated(self, ref: DefinitionRef) -> bool:
        """Whether a version was deprecated when last looked at; it may be looked at again then."""
        state, read_at = self._states.get(ref, (VersionState.ACTIVE, 0.0))
        now = asyncio.get_running_loop().time()
        if ref in self._states and now - read_at > STATE_GOOD_FOR_S:
            self._states[ref] = (state, now)
            task = asyncio.create_task(self._refresh(ref), name=f"state of {ref.name}")
            self._refreshing.add(task)
            task.add_done_callback(self._refreshing.discard)
        return state is VersionState.DEPRECATED

    async def _refresh(self, ref: DefinitionRef) -> None:
        with suppress(StoreError):
            stored = await self._store.get_definition(*ref)
            if stored is not None:
                self.compile(stored)

    async def get(self, ref: DefinitionRef) -> Definition:
        """Return one version. Raises `NotFound`, `StoreError`."""
        found = self.kept(ref)
        if found is not None:
            return found
        stored = await self._store.get_definition(*ref)
        if stored is None:
            raise NotFound(
                f"There is no version {ref.version} of definition {ref.name}.", field="version"
            )
        return self.compile(stored)

    async def supposed_latest(self, namespace: str, name: str) -> Definition:
        """Return what was the latest version when it was last looked at, mostly without waiting.

        Raises `NotFound`, `Conflict`, `StoreError`.
        """
        seen = self._last_seen.get((namespace, name))
        found = self.kept(seen) if seen is not None else None
        return await self.latest(namespace, name) if found is None else found

    async def latest(self, namespace: str, name: str) -> Definition:
        """Return the latest version that may be started, as of now or later.

        Raises `NotFound`, `Conflict` if all versions are retired, `StoreError`.
        """
        key = (namespace, name)
        task = self._next.get(key)
        if task is None:
            running = self._looking.get(key)
            task = asyncio.create_task(self._look(key, running), name=f"latest {name}")
            (self._looking if running is None else self._next)[key] = task
        # Shielded: whoever gives up must not take the answer away from the others.
        found = await asyncio.shield(task)
        if found is None:
            raise NotFound(
                f"There is no definition {name}; register it with `goconductor apply`.",
                field="definition",
            )
        return found

    async def _look(
        self, key: tuple[str, str], before: asyncio.Task[Definition | None] | None
    ) -> Definition | None:
        """Read the latest version of one name, after the look that is under way has ended."""
        mine = asyncio.current_task()
        if before is not None:
            # Its failure is told to those who share it, so here only its end matters.
            await asyncio.gather(before, return_exceptions=True)
            self._looking[key] = self._next.pop(key)
        try:
            stored = await self._store.get_definition(*key)
        finally:
            if self._looking.get(key) is mine:
                del self._looking[key]
        if stored is None:
            return None
        if stored.state is VersionState.RETIRED:
            raise Conflict(
                f"All versions of definition {stored.name} are retired; apply a new one, or restore"
                f" one: `goconductor versions {stored.name}`.",
                field="definition",
            )
        found = self.compile(stored)
        self._last_seen[key] = DefinitionRef(*key, found.version)
        return found
