"""What is left out when a definition is explored cannot make a difference: nothing else is found.

A brute search that leaves nothing out says what there is to find. Every state that it comes by is
held against the invariants of the machine, too.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from sidecar.definitions.checker.abstraction import abstract
from sidecar.definitions.checker.exploring import Explored, Limits, Method, explore
from tests.unit.definitions.checker.brute import TooMany, found
from tests.unit.definitions.checker.drawing import drawn

SEEDS = 30
MANY_SEEDS = 600
AMPLE = Limits(full=0)


def _flaws(explored: Explored) -> set[tuple[str, str]]:
    return {(flaw.value, step) for flaw, step in explored.ways}


def test_all_that_can_be_found_is_found() -> None:
    seen = _compare(range(SEEDS))
    assert min(seen[one] for one in ("good", "not_undone", "not_rendered", "left")) > 0, seen


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_all_that_can_be_found_is_found_in_many() -> None:
    _compare(range(SEEDS, MANY_SEEDS))


def _compare(seeds: range) -> Counter[str]:
    seen: Counter[str] = Counter()
    for seed in seeds:
        definition = drawn(random.Random(seed), most=3)
        try:
            wanted = {(flaw.value, step) for flaw, step in found(definition)}
        except TooMany:
            seen["too many"] += 1
            continue
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error
        full = explore(abstract(definition))
        ample = explore(abstract(definition), AMPLE)
        assert full.method is Method.FULL, seed
        assert _flaws(full) == wanted, seed
        assert _flaws(ample) == wanted, seed
        seen.update(flaw for flaw, _ in wanted)
        seen["good"] += not wanted
    assert seen["too many"] < len(seeds) / 2, seen
    return seen


@pytest.mark.parametrize("seed", range(40))
def test_both_searches_find_the_same_in_larger_definitions(seed: int) -> None:
    definition = abstract(drawn(random.Random(1_000 + seed), most=7))
    full = explore(definition, Limits(full=100_000))
    ample = explore(definition, AMPLE)
    assert _flaws(full) == _flaws(ample)
    assert set(full.absent) == set(ample.absent)
    assert full.opened == ample.opened
    assert all(len(way.moves) >= len(full.ways[which].moves) for which, way in ample.ways.items())
