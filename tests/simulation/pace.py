"""Rate limits in some of the worlds, and the witness that they are kept whatever breaks.

A draw of its own: the worlds without limits stay what they were.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta

from sidecar.engine.limiting import GOOD_FOR_S
from sidecar.saga.pacing import RateLimit

SHARE_LIMITED = 0.3
_PATHS = ("/do/0", "/do/1", "/do/c0", "/undo/0", "/status")


class Pace:
    """The limits of one world, the same for all its services, and the calls that were begun."""

    def __init__(self, seed: int, complain: Callable[[str], None]) -> None:
        draw = random.Random(f"pace {seed}")
        self._complain = complain
        self._begun: defaultdict[tuple[str, str], list[datetime]] = defaultdict(list)
        self.limits: dict[str, RateLimit] = {}
        if draw.random() < SHARE_LIMITED:
            for path in draw.sample(_PATHS, draw.randint(1, 3)):
                per = timedelta(seconds=draw.choice((1, 2, 4)))
                self.limits[path] = RateLimit(draw.choice((1, 2, 5)), per)

    def sent(self, service: str, path: str, now: datetime) -> None:
        """A call is sent: with those before it, in any span, it must keep the limit."""
        limit = self.limits.get(path)
        if limit is None:
            return
        begun = self._begun[service, path]
        begun.append(now)
        for earlier, moment in enumerate(begun):
            span = (now - moment).total_seconds() + GOOD_FOR_S
            allowed = limit.limit + span * limit.limit / limit.per.total_seconds()
            if len(begun) - earlier > allowed:
                self._complain(
                    f"{service}{path}: {len(begun) - earlier} calls within {span - GOOD_FOR_S} s"
                )
                return
