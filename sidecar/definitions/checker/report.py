"""What the checker says of a definition."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from sidecar.definitions.checker.codes import CODES, Severity
from sidecar.definitions.checker.times import Times
from sidecar.definitions.durations import duration_text
from sidecar.definitions.findings import Path, written


class Verdict(StrEnum):
    """What is known of the ends of a definition."""

    PROVED = "proved"
    """Every way ends completed or fully undone."""
    REFUTED = "refuted"
    """A way that does not is shown."""
    BOUNDED = "bounded"
    """None was found, but not all were looked at."""
    UNREADABLE = "unreadable"
    """The document is not a definition."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding: `path` says where, `text` what, the code's advice what to do.

    `way` tells the events of the shortest way there, `drawing` how the steps stand at its end.
    """

    code: str
    path: Path
    text: str
    step: str | None = None
    way: tuple[str, ...] = ()
    drawing: str = ""
    severity: Severity = Severity.INFO

    @property
    def advice(self) -> str:
        """What to do about it."""
        return CODES[self.code].advice

    def told(self) -> dict[str, Any]:
        """The finding as JSON data."""
        return {
            "code": self.code,
            "severity": self.severity.value,
            "path": written(self.path),
            "step": self.step,
            "message": self.text,
            "advice": self.advice,
            "way": list(self.way),
            "drawing": self.drawing,
        }


def finding(code: str, path: Path, text: str, **more: Any) -> Finding:
    """A finding as bad as its code."""
    return Finding(code, path, text, severity=CODES[code].severity, **more)


@dataclass(frozen=True, slots=True)
class Report:
    """All that is said of one definition.

    `states` and `transitions` say how much was explored, `method` in which way; what was not
    explored is assumed: `assumptions`.
    """

    definition: str
    verdict: Verdict
    method: str
    states: int
    transitions: int
    findings: tuple[Finding, ...] = ()
    assumptions: tuple[str, ...] = ()
    times: Times = field(default_factory=Times)

    def worst(self) -> Severity | None:
        """The severity of the worst finding."""
        order = list(Severity)
        return min((one.severity for one in self.findings), key=order.index, default=None)

    def passes(self, *, strict: bool = False) -> bool:
        """Whether there is no error, or, if `strict`, no warning either."""
        bad = {Severity.ERROR, Severity.WARNING} if strict else {Severity.ERROR}
        return not any(one.severity in bad for one in self.findings)

    def told(self) -> dict[str, Any]:
        """The report as JSON data."""
        times = self.times
        return {
            "definition": self.definition,
            "verdict": self.verdict.value,
            "method": self.method,
            "states": self.states,
            "transitions": self.transitions,
            "findings": [one.told() for one in self.findings],
            "assumptions": list(self.assumptions),
            "times": {
                "best": _told(times.best),
                "worst": _told(times.worst),
                "undo_best": _told(times.undo_best),
                "undo_worst": _told(times.undo_worst),
            },
        }


def _told(span: timedelta | None) -> str | None:
    return None if span is None else duration_text(span)


_HEADS = {
    Verdict.PROVED: "every way ends completed or fully undone",
    Verdict.REFUTED: "some ways end neither completed nor fully undone",
    Verdict.UNREADABLE: "the document is not a definition",
    Verdict.BOUNDED: "no bad way was found, but not all ways were looked at",
}
_METHODS = {
    "full": "all orders of events",
    "ample": "orders that make no difference left out",
    "bounded": "stopped at its bound",
}


def text(report: Report) -> str:
    """The report for people."""
    lines = [f"{report.definition or 'document'}: {_HEADS[report.verdict]}"]
    if report.states:
        times = report.times
        how = _METHODS[report.method]
        once, worst = _span(times.undo_best), _span(times.undo_worst)
        lines += [
            f"  looked at {report.states} states, {report.transitions} transitions: {how}",
            f"  forward {_span(times.worst)} at worst",
            f"  back {once} if each compensation is tried once, {worst} at worst",
        ]
    for one in report.findings:
        lines += ["", f"{one.severity} {one.code} {written(one.path) or 'definition'}: {one.text}"]
        lines += [f"    {number}. {event}" for number, event in enumerate(one.way, 1)]
        if one.drawing:
            lines += [f"    | {line}" for line in one.drawing.splitlines()]
        lines.append(f"    do: {one.advice}")
    if report.assumptions:
        lines += ["", "assumed:", *(f"  - {one}" for one in report.assumptions)]
    return "\n".join(lines)


def _span(span: timedelta | None) -> str:
    """A span for people, to the second where it is longer than a minute."""
    if span is None:
        return "without end"
    if span < timedelta(minutes=1):
        return f"{span.total_seconds():.3g}s"
    minutes, seconds = divmod(round(span.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "m"), (seconds, "s"))
    return " ".join(f"{number}{unit}" for number, unit in parts if number)
