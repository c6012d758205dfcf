"""Retry arithmetic: how long to wait before the next try, and when to stop trying.

The delay before try n + 1 is `initial_interval * backoff_coefficient ** (n - 1)`, at most
`max_interval`, spread by `jitter`. A service's `Retry-After` may push it beyond
`max_interval`; nothing may push it beyond the total budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

BUSY_GAP = timedelta(milliseconds=500)
"""How soon a key that is still being worked on is asked for again."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, how fast and for how long one action of one step is tried.

    `max_attempts` counts tries (not claims); None is without end. `total_budget` runs from the
    first claim; None is without end. `jitter` 0.2 spreads a delay over 80 to 120 per cent.
    """

    initial_interval: timedelta = timedelta(milliseconds=200)
    backoff_coefficient: float = 2.0
    max_interval: timedelta = timedelta(seconds=30)
    jitter: float = 0.2
    max_attempts: int | None = 10
    total_budget: timedelta | None = timedelta(minutes=15)

    def delay(self, tries: int, chance: float) -> timedelta:
        """Return the pause after `tries` tries (at least 1); `chance` is in [0, 1)."""
        exponent = min(max(tries, 1) - 1, 64)
        seconds = self.initial_interval.total_seconds() * self.backoff_coefficient**exponent
        seconds = min(seconds, self.max_interval.total_seconds())
        spread = 1.0 + self.jitter * (2.0 * chance - 1.0)
        return timedelta(seconds=seconds * spread)

    def allows_try(self, tries: int) -> bool:
        """Whether another try is allowed after `tries` tries."""
        return self.max_attempts is None or tries < self.max_attempts

    def allows_time(self, first_claim: datetime, next_try: datetime) -> bool:
        """Whether a try at `next_try` still lies within the total budget."""
        return self.total_budget is None or next_try - first_claim <= self.total_budget


FORWARD_DEFAULT = RetryPolicy()
COMPENSATION_DEFAULT = RetryPolicy(
    max_interval=timedelta(minutes=5), max_attempts=None, total_budget=None
)
"""Compensations are tried for ever by default; people are alerted after ten tries."""

ALERT_AFTER_TRIES = 10
