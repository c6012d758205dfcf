"""The soak: `make chaos MINUTES=60`, or `python -m tests.chaos.soak --minutes 60 --seed 7`.

Round after round a new world, a load, and harm of every kind in an order that the round's seed
draws; every third load is of everything that the language has, the others of plain calls. Then
everything is healed, the world comes to rest, and the checker judges it. One line a round says what
happened. It ends at the first violation, with the command that plays the round
again: the same load and the same harm in the same order, though not at the same microsecond.
"""

from __future__ import annotations

import argparse
import random
import shlex
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from tests.chaos.definitions import DEFINITIONS, MIX, Order
from tests.chaos.expectations import Expectations
from tests.chaos.faults import Kind, Rule
from tests.chaos.language import LANGUAGE, OFFERED, ORDERS, RATES
from tests.chaos.report import ChaosError
from tests.chaos.world import World

LOAD = 250
HARMS = 14
LANGUAGE_EVERY = 3
"""Odd, so that it comes with either queue."""
PAUSE_S = (0.2, 1.5)
QUIET_WITHIN_S = 90.0
KINDS = (
    Kind.FAIL_BEFORE,
    Kind.FAIL_AFTER,
    Kind.RESET_BEFORE,
    Kind.RESET_AFTER,
    Kind.UNAVAILABLE,
    Kind.BUSY,
    Kind.SLOW,
)
ALWAYS = Rule(Kind.FAIL_AFTER, probability=0.05, per_key=1, seed=5)
"""So that keys are repeated in every round, whatever else is drawn."""
NAMES = tuple(f"{name}-{n}" for name in ("payments", "inventory", "shipping") for n in (1, 2))


class Round:
    """One world and its harm."""

    def __init__(self, world: World, draw: random.Random, mix: Sequence[Order]) -> None:
        self._world = world
        self._mix = mix
        self._draw = draw
        self._stop = threading.Event()
        self.done: Counter[str] = Counter()
        self._harms: list[Callable[[], None]] = [
            self._kill,
            self._freeze,
            self._end_sessions,
            self._kill_postgres,
            self._cut,
            self._hold,
            self._swallow,
            self._service_faults,
        ]
        if world.kafka is not None:
            self._harms.append(self._kill_kafka)

    def run(self) -> Counter[str]:
        """Load, harm, heal, rest, judge; raises `ChaosError`."""
        world, draw = self._world, self._draw
        world.ledger.fault(ALWAYS)
        load = world.begin_load(LOAD, self._mix)
        for _ in range(HARMS):
            harm = draw.choice(self._harms)
            self.done[harm.__name__.strip("_")] += 1
            harm()
            if draw.random() < 0.5:
                self._cancel()
            self._pause(draw.uniform(*PAUSE_S))
        load.result()
        self._heal()
        world.quiesce(within_s=QUIET_WITHIN_S)
        # Whatever spends a try may use all of them up, and a pivot that nobody knows of may refuse.
        happened = world.verify(
            Expectations(
                at_least={"started": LOAD // 2, "completed": LOAD // 10, "repeated": 1},
                also_legal=frozenset({"rolled_back"}),
                also_legal_for={"pivot": frozenset({"error"})},
                rates=RATES,
            )
        )
        return happened + self.done

    def _pause(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def _cancel(self) -> None:
        with self._world.connect() as connection:
            row = connection.execute(
                "SELECT id::text FROM goconductor.workflows ORDER BY random() LIMIT 1"
            ).fetchone()
        if row is not None:
            self._world.cancel(row[0])

    def _kill(self) -> None:
        self._world.kill9(self._draw.choice(NAMES))

    def _freeze(self) -> None:
        name = self._draw.choice(NAMES)
        self._world.stop(name)
        self._pause(self._draw.uniform(0.5, 8.0))
        self._world.cont(name)

    def _end_sessions(self) -> None:
        with self._world.connect() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity"
                " WHERE application_name = 'goconductor' ORDER BY random() LIMIT %s) AS chosen",
                [self._draw.randint(1, 6)],
            )

    def _kill_postgres(self) -> None:
        self._world.postgres.kill()
        self._pause(self._draw.uniform(0.0, 2.0))
        self._world.postgres.restart()

    def _kill_kafka(self) -> None:
        if self._world.kafka is not None:
            self._world.kafka.kill()
            self._pause(self._draw.uniform(0.0, 3.0))
            self._world.kafka.restart()

    def _cut(self) -> None:
        proxy = self._world.proxy(NAMES[0], self._draw.choice(("store", "service")))
        amount = self._draw.randint(1, 20_000)
        if self._draw.random() < 0.5:
            proxy.cut_after(down=amount)
        else:
            proxy.cut_after(up=amount)

    def _hold(self) -> None:
        proxy = self._world.proxy(NAMES[0], "store")
        proxy.hold()
        self._pause(self._draw.uniform(0.2, 4.0))
        proxy.release()

    def _swallow(self) -> None:
        proxy = self._world.proxy(NAMES[0], "store")
        proxy.swallow(down=True)
        self._pause(self._draw.uniform(0.5, 6.0))
        proxy.heal()
        proxy.reset()

    def _service_faults(self) -> None:
        kind = self._draw.choice(KINDS)
        rule = Rule(kind, probability=0.15, per_key=1, ms=400, seed=self._draw.randint(1, 10**6))
        self._world.ledger.fault(ALWAYS, rule)

    def _heal(self) -> None:
        self._world.ledger.fault()
        for leg in ("store", "service"):
            self._world.proxy(NAMES[0], leg).heal()


def play(seed: int, queue: str) -> Counter[str]:
    """Play one round."""
    whole = seed % LANGUAGE_EVERY == 0
    with World(
        seed=seed,
        queue=queue,
        definitions=LANGUAGE if whole else DEFINITIONS,
        settings=OFFERED if whole else {},
        replicas=2,
        supervise=True,
        proxied={NAMES[0]: ("store", "service")},
    ) as world:
        return Round(world, random.Random(f"soak {seed}"), ORDERS if whole else MIX).run()


def soak(minutes: float, first: int, queues: list[str]) -> int:
    """Play until the time is over; return the process's status."""
    end = time.monotonic() + minutes * 60
    seed = first
    while seed == first or time.monotonic() < end:
        queue = queues[seed % len(queues)]
        began = time.monotonic()
        try:
            happened = play(seed, queue)
        except ChaosError as error:
            again = ["python", "-m", "tests.chaos.soak", "--seed", str(seed), "--queue", queue]
            print(f"{error}\nagain: {shlex.join([*again, '--minutes', '0'])}", flush=True)
            return 1
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
