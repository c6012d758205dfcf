"""Telemetry as Prometheus metrics, in a registry of their own.

A label takes at most `LABEL_VALUES_MAX` different values; whatever comes after is `other`, so
no flood of names can grow the page without end.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from sidecar.ports.telemetry import COMMIT_MEMBERS, METRICS, Metric

LABEL_VALUES_MAX = 200
OTHER = "other"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_MEMBERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

Child = Counter | Gauge | Histogram


class PrometheusTelemetry:
    """Counts, gauges and observes; facts are not kept."""

    def __init__(self) -> None:
        # Off for the whole process (there is no other way): a second series for every series.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._metrics: dict[str, Child] = {one.name: self._made(one) for one in METRICS}
        self._children: dict[tuple[str, ...], Child] = {}
        self._values: dict[tuple[str, str], set[str]] = {}

    def render(self) -> bytes:
        """Return the page that Prometheus scrapes."""
        return generate_latest(self.registry)

    def count(self, metric: Metric, value: float = 1, **labels: str) -> None:
        """Add to a counter."""
        child = self._child(metric, labels)
        if isinstance(child, Counter):
            child.inc(value)

    def gauge(self, metric: Metric, value: float, **labels: str) -> None:
        """Set a gauge."""
        child = self._child(metric, labels)
        if isinstance(child, Gauge):
            child.set(value)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Add one observation to a histogram."""
        child = self._child(metric, labels)
        if isinstance(child, Histogram):
            child.observe(value)

    def fact(self, name: str, **fields: object) -> None:
        """Facts are for tests."""

    def _made(self, metric: Metric) -> Child:
        names = metric.labels
        if metric.kind == "counter":
            return Counter(metric.name, metric.help, names, registry=self.registry)
        if metric.kind == "gauge":
            return Gauge(metric.name, metric.help, names, registry=self.registry)
        buckets = _MEMBERS if metric is COMMIT_MEMBERS else _SECONDS
        return Histogram(metric.name, metric.help, names, registry=self.registry, buckets=buckets)

    def _child(self, metric: Metric, labels: dict[str, str]) -> Child:
        if not labels and not metric.labels:
            return self._metrics[metric.name]
        # With the names, so that the order in which labels were given does not matter.
        asked = (metric.name, *labels, *labels.values())
        child = self._children.get(asked)
        if child is None:
            # A label that was forgotten must not break the call that is measured; the twin raises.
            values = tuple(labels.get(name, "") for name in metric.labels)
            bounded = tuple(
                self._bounded(metric.name, name, value)
                for name, value in zip(metric.labels, values, strict=True)
            )
            made = self._metrics[metric.name]
            child = made.labels(*bounded) if bounded else made
            if bounded == values:
                self._children[asked] = child
        return child

    def _bounded(self, metric: str, label: str, value: str) -> str:
        seen = self._values.setdefault((metric, label), set())
        if value in seen:
            return value
        if len(seen) >= LABEL_VALUES_MAX:
            return OTHER
        seen.add(value)
        return value
