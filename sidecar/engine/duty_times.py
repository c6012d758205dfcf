"""When the leader's duties are due, and what counts as too long."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

PAUSE_GROWS = 1.5
SILENT_AFTER = timedelta(seconds=20)
"""For how long a sidecar that lives may go unseen."""


@dataclass(frozen=True, slots=True)
class DutyTimes:
    """`every` is the pause between rounds, growing to `idle_every` while there is nothing to do.

    `ring_every` and its like say how often those duties are due, which need not be done in
    each round; the others how long is too long.
    """

    every: timedelta = timedelta(seconds=1)
    idle_every: timedelta = timedelta(seconds=5)
    ring_every: timedelta = timedelta(seconds=5)
    review_every: timedelta = timedelta(seconds=10)
    debt_every: timedelta = timedelta(seconds=30)
    bulk_every: timedelta = timedelta(seconds=5)
    catalogues_every: timedelta = timedelta(minutes=1)
    forget_every: timedelta = timedelta(minutes=1)
    silent_after: timedelta = SILENT_AFTER
    letters_after: timedelta = timedelta(seconds=2)
    ring_after: timedelta = timedelta(seconds=10)
    ring_at_most_every: timedelta = timedelta(minutes=5)
    forget_after: timedelta = timedelta(hours=1)

    @property
    def prompt_s(self) -> float:
        """An answer for which anybody waited longer counts as a time without the store."""
        return self.silent_after.total_seconds() / 2

    def longer_pause(self, pause: float) -> float:
        """Seconds to wait after a round that found nothing to do, where it was `pause` before."""
        longest = max(self.every, self.idle_every).total_seconds()
        return min(pause * PAUSE_GROWS, longest)
