"""A handle on the data in memory: what all parts of the store there have in common."""

from __future__ import annotations

from sidecar.adapters.memory.tables import MemoryTables
from sidecar.errors import StaleEpoch, StoreUnavailable
from sidecar.ports.clock import Clock
from sidecar.ports.store import Epoch


class MemoryHandle:
    """Refuses everything while it is not open; the data stays."""

    def __init__(self, tables: MemoryTables, clock: Clock) -> None:
        self.tables = tables
        self.clock = clock

        self._is_open = False

    async def open(self) -> None:
        """Make ready."""
        self._is_open = True

    async def close(self) -> None:
        """Refuse everything from now on; the data stays."""
        self._is_open = False

    async def ping(self) -> None:
        """Raise `StoreUnavailable` unless the store is open."""
        self.check_open()

    def check_open(self) -> None:
        """Raise `StoreUnavailable` unless the store is open."""
        if not self._is_open:
            raise StoreUnavailable("the store is not open")

    def check_epoch(self, namespace: str, epoch: Epoch) -> None:
        """Raise `StaleEpoch` unless `epoch` is in force."""
        if self.tables.epochs.get(namespace) != epoch.number:
            raise StaleEpoch(f"epoch {epoch.number} is no longer in force")
