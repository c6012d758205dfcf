"""The measurement refuses what it could not stand for, and the table says what was measured."""

from __future__ import annotations

from typing import Any

import pytest

from tests.benchmarks.costs import DRIVER
from tests.benchmarks.markdown import MEASURED, markers, page_with, table
from tests.benchmarks.measure import Figures, Load, MeasurementError, measure
from tests.benchmarks.saga import COMPLETED, ROLLED_BACK, Variant
from tests.benchmarks.system import System

LOAD = Load(concurrency=4, warm_up_s=0.05, span_s=0.1)
ONE_CALL = Variant("one call", COMPLETED.steps, calls=("/charge",))
REFUSED = Variant("refused", ROLLED_BACK.steps, calls=("/refuse",))


BEGIN, END = markers(MEASURED)


class StubAlone(System):
    """A system that consists of the stub: its every saga is one call."""

    name = title = "stub"

    async def start(self) -> None:
        self.ports.append(self.stub_port)

    def question(self, variant: Variant, order: int) -> tuple[str, bytes]:
        return variant.calls[0], b"{}"

    def ended_well(self, variant: Variant, status: int, answer: Any) -> bool:
        return status == 200 and answer == {"ok": True}


async def test_what_was_called_exactly_is_measured() -> None:
    async with StubAlone() as system:
        figures = await measure(system, ONE_CALL, LOAD)
        calls = await system.calls()
    assert figures.sagas_per_second > 0
    assert 0 < figures.p50 <= figures.p99
    assert set(figures.cpu) == {"stub", DRIVER}
    assert set(calls) == {"/charge"}
    assert calls["/charge"] > figures.sagas_per_second * LOAD.span_s * 0.9  # the warm-up as well


async def test_a_call_that_is_missing_is_found() -> None:
    async with StubAlone() as system:
        with pytest.raises(MeasurementError, match="made these calls"):
            await measure(system, COMPLETED, LOAD)


async def test_a_saga_that_ends_wrongly_is_found() -> None:
    async with StubAlone() as system:
        with pytest.raises(ExceptionGroup) as raised:
            await measure(system, REFUSED, LOAD)
    assert raised.group_contains(MeasurementError, match="ended so: 422")


def _figures(system: str, rate: float) -> Figures:
    return Figures(
        system=system,
        variant="completed",
        concurrency=64,
        sagas_per_second=rate,
        p50=20.04,
        p99=40.0,
        cpu={"sidecars": 0.5, "stub": 0.25, DRIVER: 9.0},
        memory={"sidecars": 150.0},
        foreign_cores=0.01,
    )


def test_a_row_has_medians_with_their_spread_and_the_ratio_to_naive() -> None:
    titles = {"postgres-naive": "ours, naive", "postgres": "ours"}
    rates = {"postgres-naive": (100, 110, 120), "postgres": (400, 330, 600)}
    figures = [_figures(system, rate) for system in titles for rate in rates[system]]
    lines = table({"date": "today"}, titles, figures).splitlines()
    assert lines[0] == "- date: today"
    assert "0 of 6 measurements" in lines[1]
    assert lines[-1].startswith(
        "| completed | 64 | ours | 400 [330..600] | x 4.00 [3.00..5.00] | 20.0 [20.0..20.0] |"
    )
    assert "| sidecars 0.50, stub 0.25 | sidecars 150 |" in lines[-1]
    assert "| 0.75 [0.75..0.75] |" in lines[-1]


def test_the_table_replaces_what_stood_between_the_markers() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    new = page_with(page, "new")
    assert new == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    assert page_with(new, "new") == new


@pytest.mark.parametrize("page", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_a_page_without_its_markers_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="measured"):
        page_with(page, "new")
