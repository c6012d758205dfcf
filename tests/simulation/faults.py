"""Which faults a seed knows, and how often they strike.

Each seed switches a random subset on, each fault at a rate of its own: a world in which all
fails a little never shows what one fault alone, often, can do. `fired` counts what really
happened; a batch of seeds in which some fault never fired has proved nothing about it.
"""

from __future__ import annotations

import random
from collections import Counter
from enum import StrEnum


class Fault(StrEnum):
    """All that goes wrong."""

    CRASH = "crash"
    """A sidecar dies at any await, and comes back as another incarnation."""
    STOPPED = "stopped"
    """A sidecar stands still for a while, longer than its leases at times, and goes on."""
    DRAINED = "drained"
    """A sidecar is asked to go, and comes back as another incarnation."""
    BELL_LOST = "bell_lost"
    BELL_TWICE = "bell_twice"
    BELL_LATE = "bell_late"
    BELL_ORDER = "bell_order"
    ACK_LOST = "ack_lost"
    BROKER_CUT = "broker_cut"
    BROKER_PURGED = "broker_purged"
    ANSWER_LOST = "answer_lost"
    """A commit took effect, and its answer was lost."""
    COMMIT_LOST = "commit_lost"
    """A commit did not take effect."""
    CONFLICT = "conflict"
    LOCKED = "locked"
    """Another transaction holds the workflow."""
    STORE_SLOW = "store_slow"
    QUERY_LOST = "query_lost"
    ACTS_SILENTLY = "acts_silently"
    """The service acts, and its answer never comes."""
    ACTS_LATE = "acts_late"
    """The request arrives after everybody has given up on it."""
    HANGS = "hangs"
    CUT = "cut"
    UNAVAILABLE = "unavailable"
    """503: perhaps it acted."""
    BUSY = "busy"
    NOT_SENT = "not_sent"
    MISCONFIGURED = "misconfigured"
    UNUSABLE = "unusable"
    SERVICE_DOWN = "service_down"
    DEPOSED = "deposed"
    """The leader loses its term."""
    TWO_LEADERS = "two_leaders"
    """Another leader is elected while the first still trusts its term."""


_DAILY = {
    Fault.BELL_ORDER: 0.5,
    Fault.LOCKED: 0.15,
    Fault.UNUSABLE: 0.03,
    Fault.STORE_SLOW: 0.05,
}
_USUAL = 0.12


class Faults:
    """The faults of one seed; `healed` ends all of them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(f"faults {seed}")
        share = self.random.choice((0.0, 0.15, 0.35, 0.6, 1.0))
        self.rates = {
            kind: _DAILY.get(kind, _USUAL) * self.random.choice((0.3, 1.0, 2.5))
            for kind in Fault
            if self.random.random() < share
        }
        self.fired: Counter[str] = Counter()
        self.healed = False

    def strikes(self, kind: Fault) -> bool:
        """Whether this fault happens here and now."""
        rate = self.rates.get(kind, 0.0)
        if self.healed or rate == 0.0 or self.random.random() >= rate:
            return False
        self.fired[kind] += 1
        return True

    def knows(self, kind: Fault) -> bool:
        """Whether this seed has this fault at all."""
        return not self.healed and kind in self.rates

    def happened(self, kind: Fault) -> None:
        """Count a fault that somebody else made happen."""
        self.fired[kind] += 1

    def latency(self, usual: float) -> float:
        """Return a latency in seconds: mostly about `usual`, seldom much more."""
        seconds = self.random.expovariate(1.0 / usual)
        return seconds * 10 if self.random.random() < 0.02 else seconds
