"""What sidecars say of themselves, and who is told."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from sidecar.ports.records import SidecarBeat, SidecarRecord

if TYPE_CHECKING:
    from sidecar.ports.store import Epoch


class Sidecars(Protocol):
    """The part of the store that is about sidecars."""

    async def beat(self, beat: SidecarBeat) -> None:
        """Write that a sidecar is alive."""
        ...

    async def leave(self, incarnation: str) -> None:
        """Write that a sidecar has gone for good and holds no lease any more."""
        ...

    async def list_sidecars(
        self, namespace: str, seen_within: timedelta | None = None
    ) -> Sequence[SidecarRecord]:
        """Return the sidecars known, or those seen within so long, by service."""
        ...

    async def forget_sidecars(self, namespace: str, unseen_for: timedelta, epoch: Epoch) -> int:
        """Delete what is known of sidecars unseen for so long; return how many."""
        ...
