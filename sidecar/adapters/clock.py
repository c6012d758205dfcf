"""Time: the system's, and one that stands still until it is told to move."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta


class SystemClock:
    """The clocks of this machine."""

    def now(self) -> datetime:
        """Return the wall time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since an arbitrary moment; never falls."""
        return time.monotonic()


class ManualClock:
    """A clock that is moved by hand. Wall time can be set back; monotonic time only rises."""

    def __init__(self, now: datetime = datetime(2030, 1, 1, tzinfo=UTC)) -> None:
        self._now = now
        self._monotonic = 0.0

    def now(self) -> datetime:
        """Return the wall time, aware, in UTC."""
        return self._now

    def monotonic(self) -> float:
        """Return the seconds that have passed on this clock."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        if seconds < 0:
            raise ValueError("time does not run backwards; set the wall time with `set`")
        self._monotonic += seconds
        self._now += timedelta(seconds=seconds)

    def set(self, now: datetime) -> None:
        """Set the wall time, as an administrator or NTP would; monotonic time stays."""
        if now.utcoffset() != timedelta():
            raise ValueError("a clock tells aware times in UTC")
        self._now = now
