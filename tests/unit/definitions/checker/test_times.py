"""How long a workflow can take: the longest way through its graph."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sidecar.definitions.checker import check
from sidecar.definitions.checker.times import Times, times, tries
from sidecar.saga.definition import Compensation, JsonText, Order, StepDefinition, Template, Wait
from sidecar.saga.policy import RetryPolicy
from tests.unit.definitions.checker.drawing import call, flow


def s(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def policy(many: int | None, budget: float | None = None) -> RetryPolicy:
    return RetryPolicy(
        initial_interval=s(1), jitter=0, max_attempts=many,
        total_budget=None if budget is None else s(budget),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("many", "budget", "spent"),
    [
        (1, None, 10),
        (3, None, 10 + 1 + 10 + 2 + 10),
        (3, 12, 22),
        (None, 60, 70),
        (None, None, None),
        (1_000_000, 60, 70),
    ],
)
def test_tries_take_their_time_outs_and_the_pauses_between(
    many: int | None, budget: float | None, spent: float | None
) -> None:
    expected = None if spent is None else s(spent)
    assert tries(policy(many, budget), s(10)) == expected


def test_the_longest_way_counts() -> None:
    undo = Compensation("/undo", timeout=s(5), retry=policy(2))
    steps = [
        call("a", timeout=s(10), retry=policy(1), compensation=undo),
        call("b", "a", timeout=s(20), retry=policy(1), compensation=undo),
        StepDefinition("c", after=("a",), wait=Wait(duration=s(7)), no_effect=True),
        call("d", "b", "c", timeout=s(1), retry=policy(1), compensation=undo),
    ]
    assert times(flow(*steps)) == Times(best=s(7), worst=s(31), undo_best=s(15), undo_worst=s(33))
    parallel = times(flow(*steps, order=Order.PARALLEL))
    assert (parallel.undo_best, parallel.undo_worst) == (s(5), s(11))
    assert times(flow(*steps, order=Order.SEQUENTIAL)).undo_best == s(15)


def test_what_may_take_for_ever_has_no_end() -> None:
    signal = StepDefinition("a", wait=Wait(signal="go"), no_effect=True)
    assert times(flow(signal)).worst is None
    assert times(flow(call("a", pivot=True, compensation=None))).worst is None


@pytest.mark.parametrize(("timeout", "codes"), [(300, set()), (30, {"GC132"})])
def test_a_moment_alone_does_not_make_a_time_out_too_short(timeout: int, codes: set[str]) -> None:
    moment = StepDefinition(
        "day", wait=Wait(until=Template(JsonText('"${input.day}"'), constant=False))
    )
    steps = [moment, call("a", "day", timeout=s(40), retry=policy(2))]
    found = check(flow(*steps, timeout=s(timeout))).findings
    assert {one.code for one in found} == codes
    assert times(flow(*steps)).worst is None
