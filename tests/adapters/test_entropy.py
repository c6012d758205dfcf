"""Chance and ids: UUIDs of version 7 that only rise, and seeds that repeat themselves."""

from __future__ import annotations

import time
import uuid

import pytest

from sidecar.adapters.clock import ManualClock
from sidecar.adapters.entropy import SeededEntropy, SystemEntropy
from sidecar.ports.entropy import Entropy


@pytest.mark.parametrize("entropy", [SystemEntropy(), SeededEntropy(1)], ids=["system", "seeded"])
def test_ids_are_canonical_uuids_of_version_7_and_only_rise(entropy: Entropy) -> None:
    ids = [entropy.workflow_id() for _ in range(5_000)]
    assert ids == sorted(set(ids))
    for one in ids:
        parsed = uuid.UUID(one)
        assert (parsed.version, parsed.variant, str(parsed)) == (7, uuid.RFC_4122, one)


def test_an_id_tells_the_millisecond_in_which_it_was_made() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid.UUID(SystemEntropy().workflow_id()).int >> 80
    assert before <= made <= time.time_ns() // 1_000_000


def test_ids_of_several_seeds_on_one_clock_sort_by_time() -> None:
    clock = ManualClock()
    first, second = SeededEntropy(1, clock), SeededEntropy(2, clock)
    ids = []
    for entropy in (first, second, first):
        ids.append(entropy.workflow_id())
        clock.advance(0.001)
    assert ids == sorted(ids)


def test_a_seed_repeats_itself_and_no_other() -> None:
    def life(seed: int) -> list[object]:
        entropy = SeededEntropy(seed)
        return [entropy.workflow_id(), entropy.incarnation(), entropy.chance()]

    assert life(7) == life(7)
    assert life(7) != life(8)


@pytest.mark.parametrize("entropy", [SystemEntropy(), SeededEntropy(1)], ids=["system", "seeded"])
def test_chance_lies_between_nothing_and_one(entropy: Entropy) -> None:
    assert all(0 <= entropy.chance() < 1 for _ in range(1_000))
    assert entropy.incarnation() != entropy.incarnation()
