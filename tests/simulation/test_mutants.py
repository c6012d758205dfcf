"""Every bug planted on purpose is found, and those that nobody can find are known for it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from sidecar.engine.gate import Gate
from tests.simulation.mutants.catalogue import BY_NAME, MUTANTS
from tests.simulation.mutants.hunting import hunt, run_tests
from tests.simulation.mutants.page import page
from tests.simulation.mutants.planting import Edit, Mutant, planted
from tests.simulation.world import simulate

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(180)]

SHARE_FOUND = 0.95
PAGE = Path(__file__).parents[2] / "docs" / "mutants.md"
WRITE_IT = "python -m tests.simulation.mutants.page docs/mutants.md"


def _marked(mutant: Mutant) -> object:
    """Tests of their own process are left to `make test`, and so is what takes many seeds."""
    marks = [pytest.mark.slow] if mutant.tests or mutant.rare or mutant.survives else []
    if mutant.needs_postgres:
        marks.append(pytest.mark.postgres)
    return pytest.param(mutant, id=mutant.name, marks=marks)


Hunts = Mapping[str, "Future[str | None]"]


@pytest.fixture(scope="module")
def hunts(request: pytest.FixtureRequest) -> Iterator[Hunts]:
    """The hunts by tests, as many at a time as there are processors.

    First of all, the same tests must find nothing where there is no bug.
    """
    wanted = [
        item.callspec.params["mutant"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.function is test_a_test_finds
    ]
    tests = tuple(dict.fromkeys(test for one in wanted for test in one.tests))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sound = pool.submit(run_tests, tests)
        found = {one.name: pool.submit(hunt, one) for one in wanted}
        try:
            status, output = sound.result()
            assert status == 0, output
            assert " skipped" not in output, output
            yield found
        finally:
            pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("mutant", [_marked(one) for one in MUTANTS if not one.tests])
def test_the_simulation_finds(mutant: Mutant) -> None:
    _judge(mutant, hunt(mutant))


@pytest.mark.parametrize("mutant", [_marked(one) for one in MUTANTS if one.tests])
def test_a_test_finds(mutant: Mutant, hunts: Hunts) -> None:
    _judge(mutant, hunts[mutant.name].result())


def _judge(mutant: Mutant, found: str | None) -> None:
    if mutant.survives:
        assert found is None, f"it is not masked: {found}"
    else:
        assert found is not None, f"survived {mutant.tests or mutant.within}"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_can_be_planted(mutant: Mutant) -> None:
    with planted(mutant):
        pass


def test_nearly_all_are_found_and_none_has_the_name_of_another() -> None:
    found = [one for one in MUTANTS if not one.survives]
    assert len(found) >= SHARE_FOUND * len(MUTANTS)
    assert len(BY_NAME) == len(MUTANTS)


def test_the_page_tells_of_all_of_them() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), f"run {WRITE_IT}"


@pytest.mark.parametrize(
    ("old", "times"), [("return 7", 0), ("case GateState.", 3)], ids=["gone", "not unique"]
)
def test_words_that_are_not_there_once_are_an_error(old: str, times: int) -> None:
    edit = Edit("sidecar.engine.gate:Gate.limit", old, "return 8")
    with pytest.raises(LookupError, match=f"{times} times"), planted(Mutant("a bug", (edit,))):
        pass


def test_a_bug_is_gone_when_it_is_taken_out() -> None:
    before = simulate(5)
    limit = vars(Gate)["limit"].fget.__code__
    for mutant in MUTANTS:
        with planted(mutant):
            pass
    assert vars(Gate)["limit"].fget.__code__ is limit
    assert simulate(5).digest == before.digest
    assert not before.wrong
