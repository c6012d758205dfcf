"""Sidecars that die by themselves: each at a site that it is armed with.

Every sidecar of a world is a lane. It is armed with one site, dies there, and comes back armed
with the next, until each site has killed somebody. What a site needs to be passed is provided:
business of every kind goes on all the time, whoever is to die while leading comes to lead, and
whoever is to die while going is told to go.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from sidecar.engine.failpoints import Site
from tests.chaos.rows import unfinished
from tests.chaos.sidecars import FAILPOINTS, Sidecar
from tests.chaos.world import World

ONLY_WITH_MESSAGES = frozenset({Site.AFTER_RECEIVE, Site.BEFORE_ACK, Site.AFTER_ACK})
"""What is passed only where doorbells are messages, which have to be acknowledged."""

LEADING = (
    Site.AFTER_ELECTION,
    Site.AFTER_MINT_EPOCH,
    Site.BEFORE_DUTY,
    Site.BEFORE_DUTY_COMMIT,
    Site.AFTER_DUTY_COMMIT,
    Site.AFTER_LEASES,
    Site.AFTER_TIMERS,
    Site.AFTER_REVIEWS,
    Site.AFTER_CATALOGUES,
    Site.AFTER_BULK,
    Site.AFTER_DEBTS,
    Site.AFTER_LETTERS,
    Site.AFTER_TURNS,
    Site.AFTER_DEADLINES,
    Site.AFTER_RING_AGAIN,
    Site.AFTER_SIDECARS,
    Site.RESIGN,
)
GOING = frozenset({Site.RESIGN, Site.GOODBYE, *(site for site in Site if "drain" in site)})

_WITH = {
    # A claim is given back once it is too late for its call.
    Site.BEFORE_GIVE_BACK: "after_commit_of_claims:sleep=700ms@1+,",
}
_OPEN_MOST = 40
_WITHIN_S = 45.0
_KILLED = -signal.SIGKILL


@dataclass
class _Lane:
    """One sidecar, what it is armed with, and since when."""

    sidecar: Sidecar
    site: Site | None = None
    since: float = 0.0
    told_to_go: bool = False


class Business(Protocol):
    """What goes on meanwhile."""

    def portion(self) -> None:
        """Begin some more of it; wait for nothing."""


class Deaths:
    """Kills sidecars of `world` at all these sites; who leads goes first, since that is rare."""

    def __init__(self, world: World, business: Business, sites: Iterable[Site]) -> None:
        wanted = set(sites)
        self._waiting = deque(
            sorted(wanted, key=lambda one: (one not in LEADING, list(Site).index(one)))
        )
        self._world = world
        self._business = business
        self._lanes = {name: _Lane(one) for name, one in world.sidecars.items()}
        self.story: list[str] = []
        """Who died where and when: what the reader of a failure wants to know first."""

    def run(self) -> None:
        """Return when every site has killed a sidecar, and all are back without failpoints."""
        for name, lane in self._lanes.items():
            self._world.kill9(name)
            self._arm(name, lane)
        self._world.wait_until(self._all_died, within_s=600, what="all died")
        self._world.wait_ready()

    def _all_died(self) -> bool:
        for name, lane in self._lanes.items():
            if lane.site is not None:
                self._look_after(name, lane, lane.site)
        if self._open() < _OPEN_MOST:
            self._business.portion()
        return all(lane.site is None for lane in self._lanes.values())

    def _open(self) -> int:
        with self._world.connect() as connection:
            return unfinished(connection)

    def _look_after(self, name: str, lane: _Lane, site: Site) -> None:
        if not lane.sidecar.alive and not lane.sidecar.wanted:  # and the world has taken note
            self._died(name, lane, site)
        elif time.monotonic() - lane.since > _WITHIN_S:
            raise self._world.failure(f"nobody passes {site}: {name} lives")
        elif site in LEADING and not lane.sidecar.leads():
            self._let_others_lead_no_more()
        elif site in GOING and not lane.told_to_go and lane.sidecar.ready():
            lane.told_to_go = True
            lane.sidecar.signal(signal.SIGTERM)

    def _died(self, name: str, lane: _Lane, site: Site) -> None:
        status = lane.sidecar.process.wait()
        fired = [
            line for line in lane.sidecar.said("failpoint_fires") if line["failpoint"] == _at(site)
        ]
        self.story.append(f"{time.time():.3f} {name} died at {site}: {status}")
        if status != _KILLED or not fired:
            raise self._world.failure(f"nobody passes {site}: {name} ended with {status}")
        self._world.counts[f"site:{site}"] += 1
        self._arm(name, lane)

    def _arm(self, name: str, lane: _Lane) -> None:
        lane.site = self._waiting.popleft() if self._waiting else None
        lane.since, lane.told_to_go = time.monotonic(), False
        armed = None if lane.site is None else _WITH.get(lane.site, "") + _at(lane.site)
        self._world.restart(name, environment=None if armed is None else {FAILPOINTS: armed})

    def _let_others_lead_no_more(self) -> None:
        """Kill a leader that is not about to die as one."""
        for name, lane in self._lanes.items():
            idle = lane.site is None or time.monotonic() - lane.since > _WITHIN_S / 3
            if idle and lane.site not in LEADING and lane.sidecar.leads():
                self._world.kill9(name)
                self._world.restart(name, environment=lane.sidecar.environment)

    def told(self) -> str:
        """The story so far."""
        armed = [f"{name} is armed with {lane.site}" for name, lane in self._lanes.items()]
        return "\n".join([*self.story, *armed])


@contextmanager
def telling(deaths: Deaths) -> Iterator[None]:
    """Let a failure say who died where, and when."""
    try:
        yield
    except Exception as error:
        error.add_note(deaths.told())
        raise


def _at(site: Site) -> str:
    return f"{site}:kill9@1"
