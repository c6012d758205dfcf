"""The versions of definitions on PostgreSQL: their states, and what refers to them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sidecar.adapters.postgres.reading import Reading
from sidecar.adapters.postgres.sql import load, send
from sidecar.ports.versions import Removal, StoredDefinition, VersionLine, VersionState

SQL = load(__file__)


class PostgresVersions:
    """See `sidecar.ports.versions.Versions`."""

    readers: Reading

    async def set_version_state(
        self, namespace: str, name: str, version: int, state: VersionState
    ) -> StoredDefinition | None:
        """Set the state of a version; None if there is no such version."""
        names = {"namespace": namespace, "name": name, "version": version}
        found = await self.readers.rows(SQL["set_state"], **names, state=state.value)
        return stored_definition(found[0]) if found else None

    async def list_versions(
        self, namespace: str, name: str, before: int | None, limit: int, count_up_to: int
    ) -> Sequence[VersionLine]:
        """Return the versions of one name, the newest first."""
        found = await self.readers.rows(
            SQL["list_versions"],
            namespace=namespace,
            name=name,
            before=before,
            limit=limit,
            most=count_up_to,
        )
        return [VersionLine(**{**row, "state": VersionState(row["state"])}) for row in found]

    async def delete_version(
        self, namespace: str, name: str, version: int, retired_for: timedelta
    ) -> Removal:
        """Delete a version that was retired so long ago and that nothing refers to."""
        names = {"namespace": namespace, "name": name, "version": version}
        async with self.readers.transaction() as connection:
            asked = await send(connection, SQL["what_holds"], **names, retired_for=retired_for)
            held = await asked.fetchone()
            if held is None:
                return Removal.UNKNOWN
            removal = Removal(held["removal"])
            if removal is Removal.DONE:
                await send(connection, SQL["delete_version"], **names)
        return removal


def stored_definition(row: dict[str, Any]) -> StoredDefinition:
    """Return the version of a row."""
    return StoredDefinition(**{**row, "state": VersionState(row["state"])})
