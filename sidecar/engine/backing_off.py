"""What is put off, each time for twice as long as before."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

MOST_REMEMBERED = 10_000

K = TypeVar("K", bound=Hashable)


class BackingOff(Generic[K]):
    """Remembers until when each thing is put off; of too many it forgets the oldest.

    Times are seconds of one monotonic clock, which the caller reads.
    """

    def __init__(self, first_s: float, longest_s: float, *, most: int = MOST_REMEMBERED) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._most = most
        self._until: OrderedDict[K, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def waits(self, one: K, now: float) -> bool:
        """Whether its time has not come yet."""
        until, _ = self._until.get(one, (now, 0.0))
        return until > now

    def waiting(self, now: float) -> list[K]:
        """Return all whose time has not come yet."""
        return [one for one, (until, _) in self._until.items() if until > now]

    def put_off(self, one: K, now: float) -> float:
        """Put it off, twice as long as the last time; return for how many seconds."""
        _, pause = self._until.get(one, (now, 0.0))
        pause = min(max(pause * 2, self._first_s), self._longest_s)
        self._until[one] = (now + pause, pause)
        self._until.move_to_end(one)
        while len(self._until) > self._most:
            self._until.popitem(last=False)
        return pause

    def forget(self, one: K) -> None:
        """Put it off no more; harmless if it was not."""
        self._until.pop(one, None)
