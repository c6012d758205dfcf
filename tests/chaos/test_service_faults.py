"""Whole sidecars against services that do wrong: every fault, both ways, and what it may cost.

All faults of `faults` are in force at once, each on a step and an action of its own, and none
strikes a key twice: no key meets more failures than the tries of its policy, so that every
workflow must end as if nothing had been. Answers that cannot be kept have a definition of their
own, since they turn it back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.chaos.book import Entry
from tests.chaos.definitions import DEFINITIONS, MIX, RETRY, ROLLED_BACK, Order, step
from tests.chaos.expectations import Expectations
from tests.chaos.faults import ACTS_FIRST, Kind, Rule
from tests.chaos.looking import ends
from tests.chaos.report import ChaosError
from tests.chaos.world import World
from tests.servers.postgres import PostgresServer

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.chaos,
    pytest.mark.postgres,
    pytest.mark.timeout(180),
]

TIMES = 4
MIB = 1024 * 1024
UNUSABLE = {
    "/spoil/charge": Kind.GARBAGE,
    "/spoil/reserve": Kind.HUGE,
    "/spoil/ship": Kind.GZIP_BOMB,
}


def patiently(name: str) -> dict[str, Any]:
    """An undoing that waits for its answer longer than any of these tests."""
    return {"path": f"/undo/{name}", "timeout": "15s", "retry": RETRY}


SPOILED = {
    "name": "spoiled",
    "steps": [
        step("charge", "payments", (), execute="/spoil/charge"),
        step("reserve", "inventory", ("charge",), execute="/spoil/reserve"),
        step("ship", "shipping", ("reserve",), execute="/spoil/ship"),
    ],
}
PATIENT = {
    "name": "patient",
    "steps": [
        step(name, service, after, timeout="15s", compensate=patiently(name))
        for name, service, after in (
            ("charge", "payments", ()),
            ("reserve", "inventory", ("charge",)),
            ("ship", "shipping", ("reserve",)),
        )
    ],
}
EXECUTES = {
    "/charge": (Kind.HANG, Kind.RESET_AFTER, Kind.UNAVAILABLE, Kind.SLOW),
    "/reserve": (Kind.ACT_THEN_HANG, Kind.FAIL_BEFORE, Kind.TOO_MANY),
    "/pack": (Kind.DRIP, Kind.RESET_BEFORE, Kind.BUSY),
    "/ship": (Kind.FAIL_AFTER,),
}
COMPENSATIONS = {
    "/undo/charge": (Kind.HANG, Kind.RESET_AFTER, Kind.UNAVAILABLE, Kind.SLOW, Kind.GARBAGE),
    "/undo/reserve": (Kind.ACT_THEN_HANG, Kind.FAIL_BEFORE, Kind.TOO_MANY, Kind.HUGE),
    "/undo/pack": (Kind.DRIP, Kind.RESET_BEFORE, Kind.BUSY, Kind.FAIL_AFTER, Kind.GZIP_BOMB),
}
TURNING_BACK = (Order("diamond", {"ship": "refuse"}), Order("chain", {"ship": "refuse"}))
# A pivot that refuses after an outcome that nobody knows ends in `error`, and rightly so.
UNPIVOTED = tuple(one for one in MIX if one != Order("pivot", {"ship": "refuse"}))


def rules(times: int = TIMES) -> list[Rule]:
    """Every fault for both actions, each so many times and never twice for one key."""
    placed = {**EXECUTES, **COMPENSATIONS, **{path: (kind,) for path, kind in UNUSABLE.items()}}
    return [
        Rule(kind, path=path, times=times, per_key=1)
        for path, kinds in placed.items()
        for kind in kinds
    ]


@pytest.mark.fault(11, 14, 15, 16, 17, 18)
def test_every_fault_of_both_actions_is_survived(postgres_server: PostgresServer) -> None:
    definitions = (*DEFINITIONS, SPOILED)
    with World(seed=31, postgres=postgres_server, definitions=definitions) as world:
        world.ledger.fault(*rules())
        world.run_load(72, (*UNPIVOTED, *TURNING_BACK, *TURNING_BACK))
        world.run_load(18, [Order("spoiled")])
        world.quiesce(within_s=60)
        least = {"started": 90, "completed": 20, "rolled_back": 30, "repeated": 20}
        least |= {f"fault:{kind}": 2 * TIMES for kind in Kind}
        world.verify(
            Expectations(at_least=least, also_legal_for={"spoiled": ROLLED_BACK}),
        )
        struck = Counter((entry.fault, entry.action) for entry in world.ledger.entries())
        rare = {one: struck[one] for one in both(Kind) if struck[one] < TIMES}
        assert not rare, f"seed {world.seed}: too few of {rare}"
        unusable_answers_turned_back_at_once(world)


def both(kinds: type[Kind]) -> list[tuple[str, str]]:
    return [(kind.value, action) for kind in kinds for action in ("execute", "compensate")]


def unusable_answers_turned_back_at_once(world: World) -> None:
    """A 2xx that cannot be kept was not asked for again, and its workflow alone turned back."""
    entries = [one for one in world.ledger.entries() if one.path in UNUSABLE]
    spoiled = {one.key for one in entries if one.fault is not None}
    asked = Counter(one.key for one in entries)
    assert len(spoiled) == len(UNUSABLE) * TIMES
    assert {asked[key] for key in spoiled} == {1}
    assert ends(world, "spoiled") == {"rolled_back": len(spoiled), "completed": 18 - len(spoiled)}


@pytest.mark.fault(1, 7)
@pytest.mark.parametrize("action", ["execute", "compensate"])
def test_a_sidecar_dies_while_its_service_has_acted_and_owes_the_answer(
    postgres_server: PostgresServer, action: str
) -> None:
    with World(seed=32, postgres=postgres_server, supervise=True, definitions=(PATIENT,)) as world:
        for name, owing in (("payments-1", "charge"), ("inventory-1", "reserve")):
            rule = Rule(Kind.ACT_THEN_HANG, step=owing, action=action, per_key=1, times=6)
            world.ledger.fault(rule)
            before = world.ledger.fired()[Kind.ACT_THEN_HANG]
            load = world.begin_load(15, [Order("patient", {"ship": "refuse"})])
            world.wait_until(
                lambda all_six=before + 6: world.ledger.fired()[Kind.ACT_THEN_HANG] == all_six,
                within_s=30,
                what=f"{name} waits for six answers",
            )
            world.kill9(name)
            load.result()
            world.quiesce(within_s=60)
        least = {"rolled_back": 30, "kills": 2, "fault:act_then_hang": 12, "repeated": 12}
        world.verify(Expectations(at_least={**least, "cause:unknown": 12}))


@pytest.mark.fault(16)
def test_answers_without_end_cost_no_memory(postgres_server: PostgresServer) -> None:
    definitions = (*DEFINITIONS, SPOILED)
    with World(seed=33, postgres=postgres_server, definitions=definitions) as world:
        world.run_load(60, [Order("spoiled"), *TURNING_BACK])
        world.quiesce(within_s=30)
        before = {name: one.forget_peak() for name, one in world.sidecars.items()}
        world.ledger.fault(
            *(
                Rule(kind, path=path, times=TIMES, bytes=size * MIB)
                for kind, size in ((Kind.GZIP_BOMB, 256), (Kind.HUGE, 64))
                for path in (*UNUSABLE, "/undo/charge", "/undo/reserve")
            )
        )
        world.run_load(60, [Order("spoiled"), *TURNING_BACK], parallel=16)
        world.quiesce(within_s=60)
        grown = {name: one.peak() - before[name] for name, one in world.sidecars.items()}
        assert all(one < 64 * MIB for one in grown.values()), f"seed {world.seed}: {grown}"
        least = {"fault:gzip_bomb": 4 * TIMES, "fault:huge": 4 * TIMES, "rolled_back": 40}
        world.verify(Expectations(at_least=least, also_legal_for={"spoiled": ROLLED_BACK}))


@pytest.mark.fault(11)
def test_a_service_that_forgets_keys_doubles_exactly_what_was_unknown(
    postgres_server: PostgresServer,
) -> None:
    kinds = (Kind.FAIL_AFTER, Kind.RESET_AFTER, Kind.ACT_THEN_HANG, Kind.FAIL_BEFORE, Kind.BUSY)
    with World(seed=34, postgres=postgres_server, honours_keys=False) as world:
        world.ledger.fault(
            *(
                Rule(kind, action=action, per_key=1, times=5)
                for kind in kinds
                for action in ("execute", "compensate")
            )
        )
        world.run_load(40, (*UNPIVOTED, *TURNING_BACK))
        world.quiesce(within_s=60)
        with pytest.raises(ChaosError, match=r"seed 34: violated\n\[.*had its effect [2-9] times"):
            world.verify(Expectations())
        least = {f"fault:{kind}": 10 for kind in kinds}
        world.verify(Expectations(at_least=least, keys_honoured=False))
        effects = by_key(world, lambda entry: entry.applied)
        unknown = by_key(world, lambda entry: entry.fault in ACTS_FIRST and entry.applied)
        doubled = {key: number - 1 for key, number in effects.items() if number > 1}
        assert doubled == unknown, f"seed {world.seed}"


def by_key(world: World, counts: Callable[[Entry], bool]) -> Counter[str]:
    return Counter(entry.key for entry in world.ledger.entries() if counts(entry))
