"""Telemetry's twin: the suite, and that tests can wait for facts with it."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.adapters.telemetry.memory import MemoryTelemetry
from sidecar.ports import telemetry as metrics
from tests.conformance.telemetry import TelemetryConformance


class Reading:
    """The suite's eye on the twin."""

    def __init__(self) -> None:
        self.telemetry = MemoryTelemetry()

    def counted(self, metric: metrics.Metric, **labels: str) -> float:
        key = (metric.name, tuple(labels[name] for name in metric.labels))
        return self.telemetry.counts[key]

    def gauged(self, metric: metrics.Metric, **labels: str) -> float:
        return self.telemetry.gauges[metric.name, tuple(labels[name] for name in metric.labels)]

    def observed(self, metric: metrics.Metric, **labels: str) -> tuple[int, float]:
        values = self.telemetry.observations[metric.name]
        return len(values), sum(values)


@pytest.fixture
def reading() -> Reading:
    return Reading()


class TestMemoryTelemetry(TelemetryConformance):
    """The port's suite."""


async def test_a_fact_wakes_whoever_waits_for_it() -> None:
    telemetry = MemoryTelemetry()
    waiter = asyncio.create_task(telemetry.wait_for_fact("settled"))
    telemetry.fact("claimed", step="a")
    await asyncio.sleep(0)
    assert not waiter.done()
    telemetry.fact("settled", step="b")
    assert await waiter == {"step": "b"}


async def test_a_fact_that_was_told_before_is_found() -> None:
    telemetry = MemoryTelemetry()
    telemetry.fact("settled", step="b")
    assert await telemetry.wait_for_fact("settled") == {"step": "b"}


def test_labels_that_were_not_declared_are_an_error_in_tests() -> None:
    with pytest.raises(ValueError, match="takes the labels"):
        MemoryTelemetry().count(metrics.ATTEMPTS, step="a")
    with pytest.raises(ValueError, match="takes the labels"):
        MemoryTelemetry().gauge(metrics.LEADING, 1, workflow="x")
