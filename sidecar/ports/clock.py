"""Time, injected everywhere so that the simulator can own it."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time and a clock that never goes back. Waiting is asyncio's own."""

    def now(self) -> datetime:
        """Return the wall time, aware, in UTC. Never used to compare with the database's."""
        ...

    def monotonic(self) -> float:
        """Return seconds since an arbitrary moment; never falls."""
        ...
