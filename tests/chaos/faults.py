"""What a service can be told to do wrong: rules, and the chance by which they strike.

A rule names a kind and whom it strikes. Chance is drawn from the seed, the request's key and how
often that key has come, never from the order of arrival: the same run strikes the same calls.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What goes wrong. Those that act have their effect first."""

    HANG = "hang"
    """Never answers."""
    ACT_THEN_HANG = "act_then_hang"
    DRIP = "drip"
    """Acts, and answers one byte every `ms` (1000)."""
    RESET_BEFORE = "reset_before"
    RESET_AFTER = "reset_after"
    FAIL_BEFORE = "fail_before"
    """Answers 500 and has not acted."""
    FAIL_AFTER = "fail_after"
    UNAVAILABLE = "unavailable"
    """Answers 503 with `Retry-After: retry_after_s` (1)."""
    TOO_MANY = "too_many"
    """Answers 429."""
    BUSY = "busy"
    """Answers 409."""
    GARBAGE = "garbage"
    """Acts, and answers 200 with half a JSON document."""
    HUGE = "huge"
    """Acts, and answers 200 with `bytes` (8 MiB) of JSON."""
    GZIP_BOMB = "gzip_bomb"
    """Acts, and answers 200 with a gzip body that unfolds to `bytes` (64 MiB)."""
    SLOW = "slow"
    """Waits `ms` (1000) before it acts, whoever still listens; then answers well."""


ACTS_FIRST = frozenset(
    {
        Kind.ACT_THEN_HANG,
        Kind.DRIP,
        Kind.RESET_AFTER,
        Kind.FAIL_AFTER,
        Kind.GARBAGE,
        Kind.HUGE,
        Kind.GZIP_BOMB,
    }
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One fault. What is left None does not matter.

    `times` bounds its firings, `per_key` those for one Idempotency-Key; `skip` lets so many
    requests pass that it would have struck; `probability` draws.
    """

    kind: Kind
    path: str | None = None
    step: str | None = None
    action: str | None = None
    workflow: str | None = None
    times: int | None = None
    per_key: int | None = None
    skip: int = 0
    probability: float = 1.0
    seed: int = 0
    ms: int = 1000
    bytes: int | None = None
    retry_after_s: int = 1

    def json(self) -> dict[str, Any]:
        """As `POST /control` takes it."""
        return asdict(self)

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Rule:
        """Read what `json` wrote."""
        return cls(**{**fields, "kind": Kind(fields["kind"])})


@dataclass(frozen=True, slots=True)
class Subject:
    """What a rule may look at."""

    path: str
    key: str
    workflow: str
    step: str
    action: str


class Rules:
    """The rules in force; the first that strikes a request decides."""

    def __init__(self) -> None:
        self._rules: tuple[Rule, ...] = ()
        self._fired: Counter[int] = Counter()
        self._fired_for: Counter[tuple[int, str]] = Counter()
        self._passed: Counter[int] = Counter()
        self._came: Counter[str] = Counter()
        self.fired: Counter[str] = Counter()

    def set(self, rules: Iterable[Rule]) -> None:
        """Put these in the place of all others; what has fired stays counted."""
        self._rules = tuple(rules)
        self._fired.clear()
        self._fired_for.clear()
        self._passed.clear()

    def strike(self, subject: Subject) -> Rule | None:
        """Return the rule that strikes this request, if any."""
        self._came[subject.key] += 1
        for number, rule in enumerate(self._rules):
            if self._strikes(number, rule, subject):
                self._fired[number] += 1
                self._fired_for[number, subject.key] += 1
                self.fired[rule.kind] += 1
                return rule
        return None

    def _strikes(self, number: int, rule: Rule, subject: Subject) -> bool:
        for name in ("path", "step", "action", "workflow"):
            wanted = getattr(rule, name)
            if wanted is not None and wanted != getattr(subject, name):
                return False
        if rule.times is not None and self._fired[number] >= rule.times:
            return False
        if rule.per_key is not None and self._fired_for[number, subject.key] >= rule.per_key:
            return False
        if rule.probability < 1.0:
            drawn = f"{rule.seed}/{number}/{subject.step}/{subject.action}/{subject.key}"
            chance = random.Random(f"{drawn}/{self._came[subject.key]}").random()
            if chance >= rule.probability:
                return False
        if self._passed[number] < rule.skip:
            self._passed[number] += 1
            return False
        return True
