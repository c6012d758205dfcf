"""Slots: how many steps this sidecar may hold at a time."""

from __future__ import annotations

import asyncio


class Slots:
    """A counter with a ceiling that may be passed for a moment but is never offered beyond.

    A slot is taken before a claim is asked for and given back when the claim brought nothing,
    or when the call it led to has been settled.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._changed = asyncio.Event()

    @property
    def free(self) -> int:
        """How many more may be taken."""
        return max(0, self.limit - self.used)

    def take(self, count: int = 1) -> None:
        """Take slots, free or not."""
        self.used += count

    def give_back(self, count: int = 1) -> None:
        """Give slots back."""
        self.used -= count
        self._changed.set()

    async def wait_free(self) -> int:
        """Wait until there is a free slot; return how many there are."""
        while not self.free:
            self._changed.clear()
            await self._changed.wait()
        return self.free

    async def wait_change(self) -> None:
        """Wait until a slot is given back."""
        self._changed.clear()
        await self._changed.wait()

    async def wait_unused(self) -> None:
        """Wait until no slot is in use."""
        while self.used > 0:
            self._changed.clear()
            await self._changed.wait()
