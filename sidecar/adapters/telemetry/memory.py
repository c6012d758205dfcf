"""Telemetry's twin in memory: tests read the numbers and wait for facts."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import Any

from sidecar.ports.telemetry import Metric


class MemoryTelemetry:
    """Keeps everything it is told."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.gauges: dict[tuple[str, tuple[str, ...]], float] = {}
        self.observations: defaultdict[str, list[float]] = defaultdict(list)
        self.facts: list[tuple[str, dict[str, Any]]] = []
        self._heard = asyncio.Event()

    def count(self, metric: Metric, value: float = 1, **labels: str) -> None:
        """Add to a counter."""
        self.counts[_key(metric, labels)] += int(value)

    def gauge(self, metric: Metric, value: float, **labels: str) -> None:
        """Set a gauge."""
        self.gauges[_key(metric, labels)] = value

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Keep one observation."""
        _key(metric, labels)
        self.observations[metric.name].append(value)

    def fact(self, name: str, **fields: object) -> None:
        """Keep a fact, and wake whoever waits for it."""
        self.facts.append((name, dict(fields)))
        self._heard.set()

    def total(self, metric: Metric) -> int:
        """Return a counter's sum over all labels."""
        return sum(value for (name, _), value in self.counts.items() if name == metric.name)

    async def wait_for_fact(self, name: str) -> dict[str, Any]:
        """Return the first fact of that name, waiting for it if need be."""
        while True:
            for found, fields in self.facts:
                if found == name:
                    return fields
            self._heard.clear()
            await self._heard.wait()


def _key(metric: Metric, labels: dict[str, str]) -> tuple[str, tuple[str, ...]]:
    if set(labels) != set(metric.labels):
        raise ValueError(f"{metric.name} takes the labels {metric.labels}, not {sorted(labels)}")
    return metric.name, tuple(labels[name] for name in metric.labels)
