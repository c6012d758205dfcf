"""The clocks: the system's is aware, the manual one goes only where it is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from sidecar.adapters.clock import ManualClock, SystemClock


def test_the_systems_wall_time_is_aware_and_in_utc() -> None:
    assert SystemClock().now().utcoffset() == timedelta()


def test_the_systems_monotonic_time_never_falls() -> None:
    clock = SystemClock()
    readings = [clock.monotonic() for _ in range(100)]
    assert readings == sorted(readings)


def test_a_manual_clock_stands_still_until_it_is_moved() -> None:
    clock = ManualClock()
    before = clock.now()
    assert (clock.now(), clock.monotonic()) == (before, 0.0)
    clock.advance(1.5)
    assert (clock.now() - before, clock.monotonic()) == (timedelta(seconds=1.5), 1.5)


def test_setting_the_wall_time_back_leaves_the_monotonic_time() -> None:
    clock = ManualClock()
    clock.advance(10)
    clock.set(datetime(2020, 1, 1, tzinfo=UTC))
    assert (clock.now().year, clock.monotonic()) == (2020, 10.0)


def test_a_manual_clock_refuses_the_past_and_other_zones() -> None:
    with pytest.raises(ValueError, match="backwards"):
        ManualClock().advance(-1)
    with pytest.raises(ValueError, match="UTC"):
        ManualClock().set(datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=1))))
