"""The versions of definitions: whether they may be started, and what still refers to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from sidecar.saga.definition import JsonText


class VersionState(StrEnum):
    """Whether a version may be started; workflows that run it go on in any case."""

    ACTIVE = "active"
    DEPRECATED = "deprecated"
    """It may, and whoever does is told."""
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class StoredDefinition:
    """A version of a definition as it was given: `document` is canonical JSON."""

    namespace: str
    name: str
    version: int
    hash: str
    document: JsonText
    created_at: datetime
    state: VersionState = VersionState.ACTIVE


@dataclass(frozen=True, slots=True)
class VersionLine:
    """A version without its document; `open` of its workflows have not ended, as far as counted.

    `current`: a start without a version takes this one.
    """

    namespace: str
    name: str
    version: int
    hash: str
    created_at: datetime
    state: VersionState
    open: int
    current: bool


class Removal(StrEnum):
    """What became of the wish that a version be deleted; only with `DONE` it was."""

    DONE = "done"
    UNKNOWN = "unknown"
    NOT_RETIRED = "not_retired"
    TOO_SOON = "too_soon"
    """Starts that were under way when it was retired may still come to light."""
    IN_USE = "in_use"
    """Some workflow refers to it, open or ended."""
    PINNED = "pinned"
    """Some version of a definition runs it as a child."""


class Versions(Protocol):
    """The part of the store that is about definitions and their versions."""

    async def put_definition(
        self, namespace: str, name: str, document: JsonText, digest: str
    ) -> tuple[StoredDefinition, bool]:
        """Keep a definition, which is the latest from now on; True if it is new.

        The same digest again is the same version, and that is the latest again.
        """
        ...

    async def get_definition(
        self, namespace: str, name: str, version: int | None = None
    ) -> StoredDefinition | None:
        """Return a version, or the latest that may be started, or else the latest.

        The latest is the one that was registered last.
        """
        ...

    async def list_definitions(
        self, namespace: str, after: str | None, limit: int
    ) -> Sequence[StoredDefinition]:
        """Return the latest version of each name, by name; one that may be started, if any is."""
        ...

    async def set_version_state(
        self, namespace: str, name: str, version: int, state: VersionState
    ) -> StoredDefinition | None:
        """Set the state of a version; None if there is no such version."""
        ...

    async def list_versions(
        self, namespace: str, name: str, before: int | None, limit: int, count_up_to: int
    ) -> Sequence[VersionLine]:
        """Return the versions of one name, the newest first; at most so many workflows counted."""
        ...

    async def delete_version(
        self, namespace: str, name: str, version: int, retired_for: timedelta
    ) -> Removal:
        """Delete a version that was retired so long ago and that nothing refers to.

        Its number is never given again.
        """
        ...
