"""Retry arithmetic."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from sidecar.saga.policy import COMPENSATION_DEFAULT, FORWARD_DEFAULT, RetryPolicy
from tests.unit.saga.worlds import EPOCH


def test_delays_double_up_to_the_cap() -> None:
    policy = RetryPolicy(jitter=0)
    delays = [policy.delay(tries, 0.5).total_seconds() for tries in range(1, 11)]
    assert delays == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]


@given(st.integers(0, 10**6), st.floats(0, 1, exclude_max=True))
def test_jitter_stays_within_its_share(tries: int, chance: float) -> None:
    plain = RetryPolicy(jitter=0).delay(tries, chance).total_seconds()
    spread = RetryPolicy(jitter=0.2).delay(tries, chance).total_seconds()
    assert plain * 0.799 <= spread <= plain * 1.201


def test_the_defaults_are_those_of_the_contract() -> None:
    assert FORWARD_DEFAULT.max_attempts == 10
    assert FORWARD_DEFAULT.total_budget == timedelta(minutes=15)
    assert COMPENSATION_DEFAULT.max_attempts is None
    assert COMPENSATION_DEFAULT.total_budget is None
    assert COMPENSATION_DEFAULT.max_interval == timedelta(minutes=5)


def test_the_budget_counts_from_the_first_claim() -> None:
    policy = RetryPolicy(total_budget=timedelta(seconds=10))
    assert policy.allows_time(EPOCH, EPOCH + timedelta(seconds=10))
    assert not policy.allows_time(EPOCH, EPOCH + timedelta(seconds=11))
