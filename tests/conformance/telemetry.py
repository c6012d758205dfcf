"""What every adapter of the telemetry port must do.

A binding supplies the fixture `reading`: the adapter, and how to read what it was told.
"""

from __future__ import annotations

from typing import Any, Protocol

from sidecar.ports import telemetry as metrics
from sidecar.ports.telemetry import Metric, Telemetry


class Reading(Protocol):
    """An adapter, and what it knows."""

    @property
    def telemetry(self) -> Telemetry:
        """The adapter."""
        ...

    def counted(self, metric: Metric, **labels: str) -> float:
        """Return what a counter stands at."""
        ...

    def gauged(self, metric: Metric, **labels: str) -> float:
        """Return what a gauge stands at."""
        ...

    def observed(self, metric: Metric, **labels: str) -> tuple[int, float]:
        """Return how many values a histogram has seen, and their sum."""
        ...


class TelemetryConformance:
    """The suite."""

    def test_every_metric_takes_its_labels(self, reading: Reading) -> None:
        for metric in metrics.METRICS:
            labels: dict[str, Any] = dict.fromkeys(metric.labels, "x")
            match metric.kind:
                case "counter":
                    reading.telemetry.count(metric, **labels)
                    assert reading.counted(metric, **labels) == 1
                case "gauge":
                    reading.telemetry.gauge(metric, 2, **labels)
                    assert reading.gauged(metric, **labels) == 2
                case _:
                    reading.telemetry.observe(metric, 3, **labels)
                    assert reading.observed(metric, **labels) == (1, 3)

    def test_counters_add_and_gauges_are_set(self, reading: Reading) -> None:
        for value in (1, 2, 3):
            reading.telemetry.count(metrics.DOORBELLS_RUNG, value)
            reading.telemetry.gauge(metrics.COMMIT_WAITING, value)
            reading.telemetry.observe(metrics.COMMIT_MEMBERS, value)
        assert reading.counted(metrics.DOORBELLS_RUNG) == 6
        assert reading.gauged(metrics.COMMIT_WAITING) == 3
        assert reading.observed(metrics.COMMIT_MEMBERS) == (3, 6)

    def test_labels_keep_values_apart_whatever_their_order(self, reading: Reading) -> None:
        reading.telemetry.count(metrics.DUTY_RUNS, duty="a", result="b")
        reading.telemetry.count(metrics.DUTY_RUNS, result="b", duty="a")
        reading.telemetry.count(metrics.DUTY_RUNS, duty="b", result="a")
        assert reading.counted(metrics.DUTY_RUNS, duty="a", result="b") == 2
        assert reading.counted(metrics.DUTY_RUNS, duty="b", result="a") == 1

    def test_a_fact_may_carry_anything(self, reading: Reading) -> None:
        reading.telemetry.fact("something", what=object(), how_many=3)
