"""Rate limits as sidecars are told them: by file, by environment, and what is said of slips."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from sidecar.saga.pacing import RateLimit
from tests.unit.test_config import WHOLE, file, loaded, refused

__all__ = ["file"]


def test_paths_are_limited_by_a_number_and_a_span(file: Path) -> None:
    config = loaded(file, WHOLE + "rate_limits: { /charges: { limit: 100, per: 1s } }\n")
    found = config.rate_limits["/charges"]
    assert (found.limit, found.per) == (100, timedelta(seconds=1))
    assert loaded(file, WHOLE).rate_limits == {}


def test_the_environment_may_say_it(file: Path) -> None:
    env = {"GOCONDUCTOR_RATE_LIMITS": "{ /charges: { limit: 3, per: 1m } }"}
    config = loaded(file, WHOLE, env=env)
    assert config.rate_limits["/charges"].per == timedelta(minutes=1)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("{ charges: { limit: 1, per: 1s } }", "must begin with /"),
        ("{ /charges: { limit: 0, per: 1s } }", "limit: must be at least 1"),
        ("{ /charges: { limit: 1 } }", "per: is missing"),
        ("{ /charges: { limit: 1, per: 10 } }", "per: must have a unit"),
        ("{ /charges: { limit: 1, per: 2d } }", "per: must be from 1ms to 1d"),
        ("{ /charges: { limit: 2000, per: 1ms } }", "more than a call per microsecond"),
        ("{ /charges: { limit: 1, per: 1s, burst: 2 } }", "burst"),
        ("{ /charges: 5 }", "/charges"),
    ],
)
def test_slips_are_named(file: Path, written: str, told: str) -> None:
    message = refused(file, WHOLE + f"rate_limits: {written}\n")
    assert "rate_limits" in message
    assert told in message


def test_an_action_may_say_it_of_its_own_path(file: Path) -> None:
    text = "actions: { charge: { execute: /charges, rate_limit: { limit: 5, per: 1s } } }\n"
    config = loaded(file, WHOLE + text + "rate_limits: { /refunds: { limit: 1, per: 1m } }\n")
    assert config.limited == {
        "/charges": RateLimit(5, timedelta(seconds=1)),
        "/refunds": RateLimit(1, timedelta(minutes=1)),
    }


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("rate_limits: { /charges: { limit: 1, per: 1m } }\n", "rate_limits and actions.charge"),
        ("", ""),
    ],
)
def test_a_path_is_limited_in_one_place(file: Path, more: str, told: str) -> None:
    limited = "rate_limit: { limit: 5, per: 1s }"
    actions = f"charge: {{ execute: /charges, {limited} }}"
    if not more:
        actions += f", pay: {{ execute: /charges, {limited} }}"
        told = "actions.charge and actions.pay"
    message = refused(file, WHOLE + f"actions: {{ {actions} }}\n" + more)
    assert f"{told} both limit the rate of /charges; keep one" in message


def test_slips_in_the_limit_of_an_action_are_named(file: Path) -> None:
    limit = "{ limit: 0, per: 1s, burst: 5 }"
    text = f"actions: {{ charge: {{ execute: /charges, rate_limit: {limit} }} }}\n"
    message = refused(file, WHOLE + text)
    assert "actions.charge.rate_limit.limit: must be at least 1" in message
    assert "actions.charge.rate_limit.burst" in message
