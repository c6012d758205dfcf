"""The versions of definitions in memory: their states, and what refers to them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from sidecar.adapters.memory.handle import MemoryHandle
from sidecar.ports.versions import Removal, StoredDefinition, VersionLine, VersionState
from sidecar.saga.states import WORKFLOW_ENDS
from sidecar.saga.workflow import DefinitionRef, Workflow


class MemoryVersions(MemoryHandle):
    """See `sidecar.ports.versions.Versions`."""

    async def set_version_state(
        self, namespace: str, name: str, version: int, state: VersionState
    ) -> StoredDefinition | None:
        """Set the state of a version; None if there is no such version."""
        self.check_open()
        ref = DefinitionRef(namespace, name, version)
        found = self.tables.definition(ref)
        if found is None:
            return None
        if found.state is not state:
            self.tables.retired_at[ref] = self.clock.now()
        stored = replace(found, state=state)
        self.tables.definitions[namespace, name][version - 1] = stored
        return stored

    async def list_versions(
        self, namespace: str, name: str, before: int | None, limit: int, count_up_to: int
    ) -> Sequence[VersionLine]:
        """Return the versions of one name, the newest first."""
        self.check_open()
        wanted = [
            one
            for one in reversed(self.tables.versions(namespace, name))
            if before is None or one.version < before
        ]
        latest = self.tables.latest(namespace, name)
        return [
            VersionLine(
                one.namespace,
                one.name,
                one.version,
                one.hash,
                one.created_at,
                one.state,
                min(count_up_to, sum(not _has_ended(row) for row in self._workflows_of(one))),
                one == latest and one.state is not VersionState.RETIRED,
            )
            for one in wanted[:limit]
        ]

    async def delete_version(
        self, namespace: str, name: str, version: int, retired_for: timedelta
    ) -> Removal:
        """Delete a version that was retired so long ago and that nothing refers to."""
        self.check_open()
        ref = DefinitionRef(namespace, name, version)
        found = self.tables.definition(ref)
        if found is None:
            return Removal.UNKNOWN
        if found.state is not VersionState.RETIRED:
            return Removal.NOT_RETIRED
        if self._workflows_of(found):
            return Removal.IN_USE
        if any(self._pins(one, ref) for one in self._all(namespace)):
            return Removal.PINNED
        if self.tables.retired_at[ref] > self.clock.now() - retired_for:
            return Removal.TOO_SOON
        self.tables.deleted.add(ref)
        return Removal.DONE

    def _all(self, namespace: str) -> list[StoredDefinition]:
        names = [name for within, name in self.tables.definitions if within == namespace]
        return [one for name in names for one in self.tables.versions(namespace, name)]

    def _pins(self, stored: StoredDefinition, ref: DefinitionRef) -> bool:
        document = json.loads(stored.document)
        steps = document.get("steps", ()) if isinstance(document, dict) else ()
        pinned = [(step.get("workflow"), step.get("version")) for step in steps]
        return (ref.name, ref.version) in pinned

    def _workflows_of(self, stored: StoredDefinition) -> list[Workflow]:
        ref = DefinitionRef(stored.namespace, stored.name, stored.version)
        rows = self.tables.rows.values()
        return [row.workflow for row in rows if row.workflow.definition == ref]


def _has_ended(workflow: Workflow) -> bool:
    return workflow.status in WORKFLOW_ENDS
