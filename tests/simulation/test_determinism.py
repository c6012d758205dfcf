"""The same seed is the same run, in every process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation.world import simulate

SEEDS = (3, 7, 11, 32)
PROGRAM = """
import sys
from tests.simulation.world import simulate
for seed in sys.argv[1:]:
    report = simulate(int(seed))
    print(seed, report.digest, report.steps, report.wrong)
"""

pytestmark = pytest.mark.simulation


def digests(hash_seed: str, seeds: tuple[int, ...]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, seeds)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_a_seed_is_the_same_run_in_processes_that_hash_differently() -> None:
    first = digests("1", SEEDS)
    assert first == digests("4242", SEEDS)
    assert len(first.splitlines()) == len(SEEDS)


def test_a_seed_does_not_depend_on_the_seeds_before_it() -> None:
    assert simulate(SEEDS[0]).digest == simulate(SEEDS[0]).digest


def test_telling_the_story_changes_nothing() -> None:
    told = simulate(SEEDS[1], telling=True)
    assert told.story
    assert told.digest == simulate(SEEDS[1]).digest


def test_other_seeds_are_other_runs() -> None:
    assert simulate(SEEDS[0]).digest != simulate(SEEDS[1]).digest
