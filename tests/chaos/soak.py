"""The soak: `make chaos MINUTES=60`, or `python -m tests.chaos.soak --minutes 60 --seed 7`.

Round after round a new world, and load all the time while it is harmed. A round does every harm
that `harms` lists at least once, in an order that its seed draws: to sidecars, to PostgreSQL, to
one sidecar's ways, to services by every kind of fault that `faults` has, and in every other round,
which has Kafka, to the broker and its topics; clients cancel meanwhile. Every third load is of
everything that the language has, the others of plain calls. A full disk is not among it, and has a
test of its own. Then everything is healed, the world comes to rest, and the checker judges it: a
round in which one of its harms was not felt is invalid, and a workflow may end otherwise than it
was started to only if it was cancelled, had used up its tries, or met an answer that cannot be
kept. One line a round says what happened. It ends at the first violation, with the command that
plays the round again: the same harm in the same order, though not at the same microsecond.
"""

from __future__ import annotations

import argparse
import random
import shlex
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace

import psycopg

from tests.chaos.definitions import DEFINITIONS, ERROR, MIX, ROLLED_BACK, TRIES, Order
from tests.chaos.expectations import Expectations
from tests.chaos.harms import ALWAYS, LEGS, NAMES, PROXIED, REPLICAS, UNUSABLE, Harms
from tests.chaos.language import LANGUAGE, OFFERED, ORDERS, RATES
from tests.chaos.report import ChaosError
from tests.chaos.rotations import PATIENT
from tests.chaos.rows import unfinished
from tests.chaos.world import World

LANGUAGE_EVERY = 3
"""Odd, so that it comes with either queue."""
PER_S = 12
"""So many workflows are started, a portion at a time, unless too many are under way."""
UNFINISHED_MOST = 150
PAUSE_S = (0.2, 1.5)
QUIET_WITHIN_S = 90.0
_REFUSED_PIVOT = Order("pivot", {"ship": "refuse"})
PLAIN: tuple[Order, ...] = tuple(
    replace(one, comes_to=ROLLED_BACK | ERROR) if one == _REFUSED_PIVOT else one for one in MIX
)
"""A pivot that refuses after an outcome that nobody knows ends in `error`, and rightly so."""


class Round:
    """One world and its harm. `tries` is how many a step of its definitions has."""

    def __init__(
        self, world: World, draw: random.Random, mix: Sequence[Order], *, tries: int
    ) -> None:
        self._world = world
        self._draw = draw
        self._mix = mix
        self._tries = tries
        self._harms = Harms(world, draw, self._keep_busy)
        self._portion = sum(one.weight for one in mix)
        self._due = 0.0
        self._loads: list[Future[list[str]]] = []
        self._cancelled: set[str] = set()

    def run(self) -> Counter[str]:
        """Load, harm, heal, rest, judge; raises `ChaosError`."""
        world, draw, done = self._world, self._draw, Counter[str]()
        world.ledger.fault(ALWAYS)
        for harm in self._harms.deck():
            self._harms.last(draw.uniform(*PAUSE_S))
            done[harm.name] += 1
            harm.strike()
            if draw.random() < 0.5:
                self._cancel(draw.choice(NAMES))
        for load in self._loads:
            load.result()
        self._heal()
        world.quiesce(within_s=QUIET_WITHIN_S)
        asked = self._portion * len(self._loads)
        least = {"started": asked // 2, "completed": asked // 10, "repeated": 1}
        happened = world.verify(
            Expectations(
                at_least={**least, **self._harms.least},
                also_legal_to=self._may_turn_back(),
                rates=RATES,
            )
        )
        return happened + done

    def _keep_busy(self) -> None:
        """Start another portion when it is due, unless too much is under way or nobody can say."""
        if time.monotonic() < self._due:
            return
        try:
            with self._world.connect() as connection:
                if unfinished(connection) >= UNFINISHED_MOST:
                    return
        except psycopg.OperationalError:
            return
        self._due = time.monotonic() + self._portion / PER_S
        self._loads.append(self._world.begin_load(self._portion, self._mix))

    def _cancel(self, at: str) -> None:
        """Cancel one after the other until it is not too late for one."""
        self._harms.owe("cancels:202", self._world.counts["cancels:202"])

        def accepted() -> bool:
            with self._world.connect() as connection:
                row = connection.execute(
                    "SELECT id::text FROM goconductor.workflows WHERE status = 'in_progress'"
                    " ORDER BY random() LIMIT 1"
                ).fetchone()
            if row is None:
                return False
            self._cancelled.add(row[0])
            return self._world.cancel(row[0], at=at) == 202

        self._harms.felt(accepted)

    def _may_turn_back(self) -> Mapping[str, frozenset[str]]:
        """The workflows that may end otherwise than they were started to, by what was met.

        What a child meets may turn back the whole tree. A pivot whose outcome nobody knows, and
        what comes after one, stands in `error`.
        """
        rows = self._world.rows()
        met = self._cancelled.union(
            (one.workflow for one in rows.steps if one.attempt >= self._tries),
            (
                one.workflow
                for one in self._world.ledger.entries()
                if one.fault in UNUSABLE and one.action == "execute"
            ),
        )
        by_id = {one.id: one for one in rows.workflows}
        legal: dict[str, frozenset[str]] = {}
        for workflow in met:
            above = by_id.get(workflow)
            while above is not None:
                legal[above.id] = ROLLED_BACK | (ERROR if above.definition == "pivot" else set())
                above = by_id.get(above.parent or "")
        return legal

    def _heal(self) -> None:
        self._world.ledger.fault()
        for leg in LEGS:
            self._world.proxy(PROXIED, leg).heal()


def play(seed: int, queue: str) -> Counter[str]:
    """Play one round."""
    whole = seed % LANGUAGE_EVERY == 0
    with World(
        seed=seed,
        queue=queue,
        definitions=LANGUAGE if whole else DEFINITIONS,
        settings=OFFERED if whole else {},
        replicas=REPLICAS,
        supervise=True,
        proxied={PROXIED: LEGS},
    ) as world:
        mix, tries = (ORDERS, PATIENT["max_attempts"]) if whole else (PLAIN, TRIES)
        return Round(world, random.Random(f"soak {seed}"), mix, tries=tries).run()


def soak(minutes: float, first: int, queues: list[str]) -> int:
    """Play until the time is over; return the process's status."""
    end = time.monotonic() + minutes * 60
    seed = first
    while seed == first or time.monotonic() < end:
        queue = queues[seed % len(queues)]
        began = time.monotonic()
        try:
            happened = play(seed, queue)
        except Exception as error:
            again = ["python", "-m", "tests.chaos.soak", "--seed", str(seed), "--queue", queue]
            print(f"{error}\nagain: {shlex.join([*again, '--minutes', '0'])}", flush=True)
            if isinstance(error, ChaosError):
                return 1
            raise
        told = "  ".join(f"{name} {number}" for name, number in sorted(happened.items()))
        print(f"seed {seed}  {queue}  {time.monotonic() - began:.0f} s  {told}", flush=True)
        seed += 1
    return 0


def main() -> None:
    """Parse the command line and soak."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--queue", choices=["postgres", "kafka", "both"], default="both")
    options = parser.parse_args()
    queues = ["postgres", "kafka"] if options.queue == "both" else [options.queue]
    sys.exit(soak(options.minutes, options.seed, queues))


if __name__ == "__main__":
    main()
