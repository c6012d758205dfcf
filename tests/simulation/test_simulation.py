"""Many seeds: nothing wrong in any of them, and nothing left untried by all of them together."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from sidecar.saga.states import Reason, StepStatus
from tests.simulation.faults import Fault
from tests.simulation.world import simulate

FIRST = int(os.environ.get("FIRST_SEED", "0"))
SEEDS = int(os.environ.get("SEEDS", "200"))
ENOUGH = 100
"""From so many seeds on every fault must have fired."""

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(60 + SEEDS)]


@pytest.mark.fault(1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 23, 24, 25, 26, 32, 42, 50, 57, 69, 71)
def test_no_seed_finds_anything_wrong() -> None:
    fired: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for seed in range(FIRST, FIRST + SEEDS):
        report = simulate(seed)
        if report.wrong:
            pytest.fail(
                f"seed {seed}: {report.wrong}\n"
                f"replay: SEED={seed} .venv/bin/python -m tests.simulation",
                pytrace=False,
            )
        fired += report.fired
        ends += report.ends
        seen += report.seen
    if SEEDS >= ENOUGH:
        missing = [kind for kind in Fault if not fired[kind]]
        assert not missing, f"these faults never fired, so the batch proves nothing: {missing}"
        told = set(StepStatus) - {StepStatus.PENDING}
        faults = ("lease_ended", "late_answer", "released", "held", "stale_epoch")
        for name in (*faults, "taken_over", "priorities", *Reason, *told):
            assert seen[name], f"{name} was never seen, so the batch proves nothing about it"
        total = ends.total()
        assert ends["completed"] > total * 0.2
        assert ends["rolled_back"] > total * 0.2
        assert ends["error"] > 0
        assert ends["terminated"] > 0
