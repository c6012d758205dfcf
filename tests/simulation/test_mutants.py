"""Every bug planted on purpose is found."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS, Mutant, hunt, planted
from tests.simulation.world import simulate

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(180)]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_is_found(mutant: Mutant) -> None:
    assert hunt(mutant) is not None, f"survived {mutant.within} seeds"


def test_a_bug_is_gone_when_it_is_taken_out() -> None:
    before = simulate(5)
    with planted(MUTANTS[0]):
        pass
    assert simulate(5).digest == before.digest
    assert not before.wrong
