"""Rate limits as sidecars are told them: by file, by environment, and what is said of slips."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

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
