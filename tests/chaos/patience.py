"""How often, how soon and for how long a definition lets things be tried and waited for.

Read from its document and from nothing else, with the defaults that the language promises. All
spans of time are in seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_WRITTEN = re.compile(r"([0-9.]+)(ms|s|m|h|d)")


def seconds(written: str) -> float:
    """Read a span of time."""
    found = _WRITTEN.fullmatch(written)
    if found is None:
        raise ValueError(f"{written!r} is not a span of time")
    return float(found[1]) * _UNITS[found[2]]


_KEYS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "initial_interval": ("initial_s", seconds),
    "backoff_coefficient": ("growth", float),
    "max_interval": ("longest_s", seconds),
    "jitter": ("jitter", float),
    "max_attempts": ("most", lambda told: told),
}


@dataclass(frozen=True, slots=True)
class Retry:
    """How one action is tried again; `most` tries at most, None: without end."""

    initial_s: float = 0.2
    growth: float = 2.0
    longest_s: float = 30.0
    jitter: float = 0.2
    most: int | None = 10

    def least_pause_s(self, number: int) -> float:
        """The shortest pause after so many tries: the one that jitter takes the most from."""
        exponent = min(max(number, 1) - 1, 64)
        return min(self.initial_s * self.growth**exponent, self.longest_s) * (1.0 - self.jitter)

    def over(self, written: Mapping[str, Any] | None) -> Retry:
        """This policy where a document says nothing else."""
        told = written or {}
        given = {own: read(told[key]) for key, (own, read) in _KEYS.items() if key in told}
        return replace(self, **given)


EXECUTE = Retry()
COMPENSATE = Retry(longest_s=300.0, most=None)
QUESTIONS = Retry()
"""How a service is asked how an execute went."""
CALLBACK_S = 900.0
BUSY_S = 0.5
"""After how long a key is asked for again that is still being worked on."""


@dataclass(frozen=True, slots=True)
class Patience:
    """What the steps of a definition are allowed, by their names, and `timeout_s` of the whole."""

    execute: Mapping[str, Retry] = field(default_factory=dict)
    compensate: Mapping[str, Retry] = field(default_factory=dict)
    rests_s: Mapping[str, float] = field(default_factory=dict)
    """How long a step waits; for a signal, when it gives up."""
    callback_s: Mapping[str, float] = field(default_factory=dict)
    timeout_s: float | None = None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Patience:
        """Read a registered definition."""
        steps = document["steps"]
        return cls(
            {one["name"]: _execute(one) for one in steps},
            {one["name"]: _compensate(one) for one in steps},
            {one["name"]: rest for one in steps for rest in _rest(one.get("wait"))},
            {one["name"]: _callback(one) for one in steps},
            seconds(document["timeout"]) if document.get("timeout") else None,
        )


def _execute(step: Mapping[str, Any]) -> Retry:
    offered = EXECUTE.over(_part(step.get("pinned")).get("retry"))
    own = step.get("retry")
    return offered.over(own if own is not None else _part(step.get("execute")).get("retry"))


def _compensate(step: Mapping[str, Any]) -> Retry:
    offered = _part(_part(step.get("pinned")).get("compensate")).get("retry")
    own = step.get("compensate")
    return COMPENSATE.over(own.get("retry") if isinstance(own, dict) else offered)


def _rest(wait: Mapping[str, Any] | None) -> tuple[float, ...]:
    """Until when a moment is waited for is not known here."""
    written = _part(wait).get("duration") or _part(wait).get("timeout")
    return (seconds(written),) if written else ()


def _callback(step: Mapping[str, Any]) -> float:
    written = step.get("callback_timeout") or _part(step.get("pinned")).get("callback_timeout")
    return seconds(written) if written else CALLBACK_S


def _part(of: Any) -> Mapping[str, Any]:
    return of if isinstance(of, dict) else {}
