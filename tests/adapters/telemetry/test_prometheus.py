"""Prometheus: the suite, bounded labels, and a page that others can read."""

from __future__ import annotations

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.adapters.telemetry.prometheus import LABEL_VALUES_MAX, OTHER, PrometheusTelemetry
from sidecar.ports import telemetry as metrics
from tests.conformance.telemetry import TelemetryConformance


class Reading:
    """The suite's eye on the registry."""

    def __init__(self) -> None:
        self.telemetry = PrometheusTelemetry()

    def counted(self, metric: metrics.Metric, **labels: str) -> float:
        return self._sample(metric.name, labels)

    def gauged(self, metric: metrics.Metric, **labels: str) -> float:
        return self._sample(metric.name, labels)

    def observed(self, metric: metrics.Metric, **labels: str) -> tuple[int, float]:
        count = self._sample(f"{metric.name}_count", labels)
        return int(count), self._sample(f"{metric.name}_sum", labels)

    def _sample(self, name: str, labels: dict[str, str]) -> float:
        return self.telemetry.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def reading() -> Reading:
    return Reading()


class TestPrometheusTelemetry(TelemetryConformance):
    """The port's suite."""


def test_no_flood_of_values_grows_the_page() -> None:
    telemetry = PrometheusTelemetry()
    for number in range(LABEL_VALUES_MAX + 500):
        telemetry.count(metrics.WORKFLOWS_STARTED, definition=f"d{number}")
    telemetry.count(metrics.WORKFLOWS_STARTED, definition="d0")
    lines = telemetry.render().decode().splitlines()
    series = [line for line in lines if line.startswith(metrics.WORKFLOWS_STARTED.name + "{")]
    assert len(series) == LABEL_VALUES_MAX + 1
    sample = telemetry.registry.get_sample_value
    assert sample(metrics.WORKFLOWS_STARTED.name, {"definition": OTHER}) == 500
    assert sample(metrics.WORKFLOWS_STARTED.name, {"definition": "d0"}) == 2
    # Nor does what is remembered: values beyond the bound leave nothing behind.
    assert len(telemetry._children) <= LABEL_VALUES_MAX + 1


def test_two_sidecars_in_one_process_do_not_meet() -> None:
    one, two = PrometheusTelemetry(), PrometheusTelemetry()
    one.count(metrics.COMMITS)
    sample = two.registry.get_sample_value
    assert sample(metrics.COMMITS.name) == 0
    assert prometheus_client.REGISTRY.get_sample_value(metrics.COMMITS.name) is None


def test_the_page_is_what_prometheus_reads() -> None:
    telemetry = PrometheusTelemetry()
    telemetry.count(metrics.ATTEMPTS, definition='a"\n\\', step="s", action="x", outcome="done")
    telemetry.observe(metrics.CALL_SECONDS, 0.02, action="execute")
    families = {
        each.name: each for each in text_string_to_metric_families(telemetry.render().decode())
    }
    assert set(families) == {metric.name.removesuffix("_total") for metric in metrics.METRICS}
    for metric in metrics.METRICS:
        assert families[metric.name.removesuffix("_total")].type == metric.kind
    (attempt,) = [s for s in families["goconductor_attempts"].samples if s.name.endswith("_total")]
    assert attempt.labels["definition"] == 'a"\n\\'


def test_labels_that_were_not_declared_do_not_raise() -> None:
    telemetry = PrometheusTelemetry()
    telemetry.count(metrics.ATTEMPTS, step="a")
    telemetry.gauge(metrics.LEADING, 1, workflow="x")
