"""Every harm of the soak: done, felt, and mended before the next one.

A round does each of them at least once, in an order that its seed draws. Before one strikes it
notes in `least` what must have been counted by the end of the round, more than had been by then,
under the names that `Expectations.at_least` uses; then it waits, with work under way, until it is
felt. One that never is lets the round go on, and makes it invalid: it proves nothing.

    kill, freeze, remove      a sidecar by SIGKILL, by SIGSTOP and SIGCONT, and in good order; each
                              comes back, and with Kafka its group is seen to share out anew, twice
    end_sessions              sidecars' sessions in PostgreSQL, the listeners' and the leader's too
    kill_postgres             PostgreSQL by SIGKILL, and what `pg_ctl stop -m immediate` does
    stop_postgres_at_once
    cut, hold, swallow,       one sidecar's way to its store or its service
    delay, throttle, reset,
    turn_away
    misbehave                 services, by a third of all kinds of faults at a time
    kill_kafka                the broker by SIGKILL
    delete_topics             all doorbells with their topics, which the sidecars make again
    replay                    all doorbells of a service once more, from the first one
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.chaos.definitions import SERVICES
from tests.chaos.faults import Kind, Rule
from tests.chaos.meters import Meter
from tests.chaos.proxy import FaultProxy
from tests.chaos.sessions import end, sessions
from tests.chaos.topics import Topics
from tests.chaos.world import World

REPLICAS = 2
NAMES = tuple(f"{service}-{number}" for service in SERVICES for number in range(1, REPLICAS + 1))
PROXIED = NAMES[0]
LEGS = ("store", "service")
CUT_WITHIN = {"store": 20_000, "service": 90}
"""Bytes of one connection. One to a service may carry a single call: any answer is longer."""
AGAIN = 4
"""How many harms are drawn to come once more."""
FELT_WITHIN_S = 40.0
BACK_WITHIN_S = 90.0
_POLL_S = 0.1

ALWAYS = Rule(Kind.FAIL_AFTER, probability=0.05, per_key=1, seed=5)
"""In force all the time, so that keys are repeated in every round."""
KINDS = tuple(kind for kind in Kind if kind is not ALWAYS.kind)
HANDS = 3
UNUSABLE = frozenset({Kind.GARBAGE, Kind.HUGE, Kind.GZIP_BOMB})
"""Answers that cannot be kept: a workflow whose execute meets one turns back, so they are few."""


class Harm(NamedTuple):
    """One harm; its name is what the round's line says."""

    name: str
    strike: Callable[[], None]


class Harms:
    """The harms of one round; `work` is called while they last, and keeps the world busy."""

    def __init__(self, world: World, draw: random.Random, work: Callable[[], None]) -> None:
        self._world = world
        self._draw = draw
        self._work = work
        self._never = threading.Event()
        self._topics: Topics | None = None
        if world.kafka is not None:
            self._topics = Topics(world.kafka.bootstrap_servers, world.topic_prefix)
        self.least: dict[str, int] = {}

    def deck(self) -> list[Harm]:
        """All of them, some twice, in the order that was drawn."""
        every = [
            self._kill,
            self._freeze,
            self._remove,
            self._end_sessions,
            self._kill_postgres,
            self._stop_postgres_at_once,
            self._cut,
            self._hold,
            self._swallow,
            self._delay,
            self._throttle,
            self._reset,
            self._turn_away,
        ]
        if self._topics is not None:
            every += [self._kill_kafka, self._delete_topics, self._replay]
        every += self._draw.choices(every, k=AGAIN)
        deck = [Harm(one.__name__.strip("_"), one) for one in every]
        kinds = self._draw.sample(KINDS, len(KINDS))
        deck += [self._misbehaving(kinds[hand::HANDS]) for hand in range(HANDS)]
        self._draw.shuffle(deck)
        return deck

    def last(self, seconds: float) -> None:
        """Let something last, with work under way."""
        ends_at = time.monotonic() + seconds
        self._wait(lambda: time.monotonic() >= ends_at, seconds)

    def owe(self, name: str, now: int, more: int = 1) -> int:
        """Note that so many more must have been counted at the end; how many that makes."""
        self.least[name] = now + more
        return now + more

    def felt(self, fact: Callable[[], bool]) -> None:
        """Wait for a fact, not for ever: the verdict on the round will say whether it came."""
        self._wait(fact, FELT_WITHIN_S)

    def _wait(self, fact: Callable[[], bool], within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while not fact() and time.monotonic() < deadline:
            self._work()
            self._never.wait(_POLL_S)

    def _owe_count(self, name: str) -> None:
        """The same of what the world, or we ourselves, count in `World.counts`."""
        self.owe(name, self._world.counts[name])

    # -- sidecars -------------------------------------------------------------------------------

    def _kill(self) -> None:
        self._owe_count("kills")
        self._world.kill9(self._draw.choice(NAMES))

    def _freeze(self) -> None:
        name = self._draw.choice(NAMES)
        self._owe_count("stops")
        self._world.stop(name)
        self.last(self._draw.uniform(0.5, 8.0))
        self._world.cont(name)

    def _remove(self) -> None:
        """A replica goes in good order, and one comes."""
        name = self._draw.choice(NAMES)
        service = self._world.sidecars[name].service
        for one in ("terminations", "restarts"):
            self._owe_count(one)
        self._leave(name)
        self._wait_members(service, REPLICAS - 1)
        self.last(self._draw.uniform(0.0, 2.0))
        self._world.restart(name)
        self._world.wait_ready()
        self._wait_members(service, REPLICAS)

    def _leave(self, name: str) -> None:
        # One that is still starting does not yet know how to end in good order.
        ready = self._world.sidecars[name].ready
        self._world.wait_until(ready, within_s=BACK_WITHIN_S, what=f"{name} is ready")
        if (status := self._world.terminate(name)) != 0:
            raise self._world.failure(f"{name} was told to end, and ended with status {status}")

    def _wait_members(self, service: str, number: int) -> None:
        topics = self._topics
        if topics is None:
            return
        self._owe_count("rebalances")
        self._world.wait_until(
            lambda: topics.group(service) == ("Stable", number),
            within_s=BACK_WITHIN_S,
            what=f"the group of {service} is stable with {number} members",
        )
        self._world.counts["rebalances"] += 1

    # -- PostgreSQL -----------------------------------------------------------------------------

    def _end_sessions(self) -> None:
        drawn, number = random.Random(self._draw.random()), self._draw.randint(1, 6)
        counts = self._world.counts
        least = self.owe("sessions_ended", counts["sessions_ended"], number)

        def ended() -> bool:
            """A server that has just come back may have too few sessions of ours yet."""
            found = sessions(self._world)
            left = min(least - counts["sessions_ended"], len(found))
            counts["sessions_ended"] += end(self._world, drawn.sample(found, left))
            return counts["sessions_ended"] >= least

        self.felt(ended)

    def _kill_postgres(self) -> None:
        self._die("postgres_killed", self._world.postgres.kill)

    def _stop_postgres_at_once(self) -> None:
        self._die("postgres_stopped_at_once", self._world.postgres.end_at_once)

    def _die(self, name: str, die: Callable[[], None]) -> None:
        self._owe_count(name)
        die()
        self._world.counts[name] += not self._world.postgres.alive
        self._never.wait(self._draw.uniform(0.0, 2.0))
        self._world.postgres.restart()

    # -- the ways of one sidecar ----------------------------------------------------------------

    @contextmanager
    def _on_a_way(
        self, felt: str, longest_s: float, leg: str | None = None
    ) -> Iterator[FaultProxy]:
        """Harm a way (any, if `leg` is None) inside; it is felt, lasts a while, and is mended."""
        leg = leg or self._draw.choice(LEGS)
        lasts_s = self._draw.uniform(0.0, longest_s)
        proxy = self._world.proxy(PROXIED, leg)
        least = self.owe(f"proxy:{PROXIED}:{leg}:{felt}", proxy.counts[felt])
        yield proxy
        self.felt(lambda: proxy.counts[felt] >= least)
        self.last(lasts_s)
        proxy.heal()

    def _cut(self) -> None:
        leg = self._draw.choice(LEGS)
        after = {self._draw.choice(("up", "down")): self._draw.randint(1, CUT_WITHIN[leg])}
        with self._on_a_way("cut", 2.0, leg) as proxy:
            proxy.cut_after(**after)

    def _hold(self) -> None:
        with self._on_a_way("held", 4.0) as proxy:
            proxy.hold()

    def _swallow(self) -> None:
        with self._on_a_way("swallowed", 6.0) as proxy:
            proxy.swallow()

    def _delay(self) -> None:
        with self._on_a_way("delayed", 4.0) as proxy:
            proxy.delay(up_s=self._draw.uniform(0.0, 0.4), down_s=self._draw.uniform(0.01, 0.4))

    def _throttle(self) -> None:
        with self._on_a_way("throttled", 4.0) as proxy:
            proxy.throttle(
                up=self._draw.uniform(2_000, 40_000), down=self._draw.uniform(2_000, 40_000)
            )

    def _reset(self) -> None:
        with self._on_a_way("reset", 1.0) as proxy:
            self.felt(lambda: proxy.reset() > 0)  # there may be no connection just now

    def _turn_away(self) -> None:
        with self._on_a_way("reset_new", 3.0) as proxy:
            proxy.reset_new()
            proxy.reset()

    # -- services -------------------------------------------------------------------------------

    def _misbehaving(self, kinds: list[Kind]) -> Harm:
        """One harm of these kinds, which stay in force until the next one, or until the end."""
        seed = self._draw.randint(1, 10**6)
        rules = [
            Rule(kind, probability=0.04, per_key=1, times=12, seed=seed)
            if kind in UNUSABLE
            else Rule(kind, probability=0.15, per_key=1, ms=400, seed=seed)
            for kind in kinds
        ]

        def misbehave() -> None:
            ledger = self._world.ledger
            before = ledger.fired()
            least = {kind: self.owe(f"fault:{kind}", before[kind]) for kind in kinds}
            ledger.fault(ALWAYS, *rules)
            self.felt(lambda: not Counter(least) - ledger.fired())

        return Harm("misbehave", misbehave)

    # -- Kafka ----------------------------------------------------------------------------------

    def _kill_kafka(self) -> None:
        kafka = self._world.kafka
        if kafka is not None:
            self._owe_count("kafka_killed")
            kafka.kill()
            self._world.counts["kafka_killed"] += not kafka.alive
            self.last(self._draw.uniform(0.0, 3.0))
            kafka.restart()

    def _delete_topics(self) -> None:
        topics, lasts_s = self._topics, self._draw.uniform(0.5, 2.0)
        if topics is not None:
            self._owe_count("topics_made_again")
            self._wait_topics(topics)
            topics.delete()
            self.last(lasts_s)
            self._wait_topics(topics)
            self._world.counts["topics_made_again"] += 1

    def _wait_topics(self, topics: Topics) -> None:
        self._world.wait_until(topics.there, within_s=BACK_WITHIN_S, what="all topics are there")

    def _replay(self) -> None:
        """The group of a service begins again; it must be empty while that is said."""
        topics, service = self._topics, self._draw.choice(SERVICES)
        if topics is None:
            return
        names = [name for name in NAMES if self._world.sidecars[name].service == service]
        self._owe_count("replayed")
        self._wait_topics(topics)
        self.felt(lambda: bool(topics.rung(service)))
        for name in names:
            self._leave(name)
        self._world.wait_until(
            lambda: topics.group(service) == ("Empty", 0),
            within_s=BACK_WITHIN_S,
            what=f"the group of {service} is empty",
        )
        number = topics.rewind(service)
        for name in names:
            self._world.restart(name)
        self._world.wait_ready()
        self._world.wait_until(
            lambda: sum(Meter(self._world.sidecars[name]).heard for name in names) >= number,
            within_s=BACK_WITHIN_S,
            what=f"{service} hears {number} doorbells again",
        )
        self._world.counts["replayed"] += number
