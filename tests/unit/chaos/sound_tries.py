"""A small run in which things are tried again and waited for, and all is well.

One order completes: it is tried again after every kind of answer, a callback does not come and
another comes late, it rests, and its last step is asked how it went. The other runs out of time
while it is tried, and is undone at the second try.
"""

from __future__ import annotations

from dataclasses import replace

from tests.chaos.book import Fact
from tests.chaos.graphs import Graph
from tests.chaos.rows import LeaderSample, Rows, StepRow
from tests.unit.chaos.sound_run import Run, Writer, mark

DONE, LATE = "p-done", "p-late"
_RETRY = {"initial_interval": "1s", "max_interval": "8s", "max_attempts": 3}
PATIENT = Graph.read(
    {
        "name": "patient",
        "timeout": "5m",
        "steps": [
            {"name": "charge", "retry": _RETRY, "compensate": {"path": "/undo", "retry": _RETRY}},
            {"name": "reserve", "retry": _RETRY, "callback_timeout": "5s"},
            {"name": "rest", "wait": {"duration": "10s"}},
            {"name": "ship", "retry": {**_RETRY, "max_attempts": 1}, "input": {"seen": {}}},
        ],
    }
)
AFTER = {name: tuple(before) for name, before in PATIENT.after.items()}


class Patient(Writer):
    """Writes attempts, each with its number and with the pause before it."""

    def attempt(
        self, step: str, number: int, moved: str, cause: str, *, after_s: float = 1.0
    ) -> None:
        """A claim, so long after whatever came before, and its end."""
        before = "queued" if number == 1 else "retrying"
        self.claim(step, number, (before, "running"), after_s=after_s)
        self.told(step, number, ("running", moved), cause)

    def claim(self, step: str, number: int, moved: tuple[str, str], *, after_s: float) -> None:
        self.time += after_s - 1.0
        self.told(step, number, moved, "claimed")

    def told(
        self, step: str, number: int | None, moved: tuple[str, str], cause: str, **more: object
    ) -> None:
        undoes = moved[1] in ("compensating", "compensated")
        kind, action = ("compensation", "compensate") if undoes else ("step", "execute")
        if moved[1] == "in_doubt":
            action = "status"
        self.note(kind, cause, moved, step=step, action=action, attempt=number, **more)


class TriesRun(Run):
    """A run with the graph of these orders."""

    def rows(self) -> Rows:
        return replace(super().rows(), graphs={("patient", 1): PATIENT})


def sound_tries() -> TriesRun:
    """A run that no invariant complains of."""
    run = TriesRun(leaders=[LeaderSample(1, "a")])
    _completed(run)
    _out_of_time(run)
    return run


def _completed(run: Run) -> None:
    order = Patient(run, DONE, AFTER, definition="patient", shown={"ship": {}})
    order.note("workflow", "started", ("queued", "in_progress"))
    order.told("charge", None, ("pending", "queued"), "ready")
    order.attempt("charge", 1, "retrying", "unknown")
    order.attempt("charge", 2, "retrying", "busy", after_s=0.8)
    order.attempt("charge", 3, "retrying", "not_now", after_s=0.5)
    order.attempt("charge", 4, "retrying", "released", after_s=3.2)
    order.attempt("charge", 5, "retrying", "misconfigured", after_s=0.0)
    order.call("charge", "execute", Fact.APPLIED, 200)
    order.attempt("charge", 6, "succeeded", "done", after_s=1.6)
    order.told("reserve", None, ("pending", "queued"), "ready")
    order.attempt("reserve", 1, "waiting", "pending")
    order.time += 4.0
    order.told("reserve", 1, ("waiting", "retrying"), "unknown", actor="leader")
    order.attempt("reserve", 2, "retrying", "unknown", after_s=0.8)
    order.call("reserve", "execute", Fact.APPLIED, 200)
    order.told("reserve", 2, ("retrying", "waiting"), "pending")
    order.told("reserve", 2, ("waiting", "succeeded"), "done", actor="service")
    order.told("rest", None, ("pending", "waiting"), "waits")
    order.time += 9.0
    order.told("rest", None, ("waiting", "succeeded"), "time_has_come")
    order.told("ship", None, ("pending", "queued"), "ready")
    order.call("ship", "execute", Fact.APPLIED, 200)
    order.attempt("ship", 1, "in_doubt", "unknown")
    order.claim("ship", 2, ("in_doubt", "in_doubt"), after_s=0.0)
    order.told("ship", 2, ("in_doubt", "in_doubt"), "not_sent")
    order.claim("ship", 3, ("in_doubt", "in_doubt"), after_s=0.16)
    order.told("ship", 3, ("in_doubt", "succeeded"), "done")
    order.note("workflow", "all_steps_passed", ("in_progress", "completed"))
    steps = [
        _step(DONE, "charge", "succeeded", attempt=6, tries=3),
        _step(DONE, "reserve", "succeeded", attempt=2, tries=2),
        _step(DONE, "rest", "succeeded", attempt=0, tries=0, output=None, may_have_effect=False),
        _step(DONE, "ship", "succeeded", attempt=3, tries=1),
    ]
    order.end("completed", None, steps, deadline=401.0)


def _out_of_time(run: Run) -> None:
    order = Patient(run, LATE, AFTER, definition="patient")
    begun = order.time + 1.0
    order.note("workflow", "started", ("queued", "in_progress"))
    order.told("charge", None, ("pending", "queued"), "ready")
    order.call("charge", "execute", Fact.APPLIED, 200)
    order.attempt("charge", 1, "retrying", "unknown")
    order.time = begun + 299.0
    order.note("workflow", "deadline_passed", ("in_progress", "rolling_back"))
    order.told("charge", 1, ("retrying", "failed"), "deadline_passed")
    for step in ("reserve", "rest", "ship"):
        order.told(step, None, ("pending", "cancelled"), "deadline_passed")
    order.told("charge", None, ("failed", "compensating"), "undo")
    for number, pause in ((1, 0.0), (2, 0.8)):
        order.claim("charge", number, ("compensating", "compensating"), after_s=pause)
        if number == 1:
            order.told("charge", number, ("compensating", "compensating"), "unusable")
    order.call("charge", "compensate", Fact.APPLIED, 200)
    order.told("charge", 2, ("compensating", "compensated"), "done")
    order.note("workflow", "all_undone", ("rolling_back", "rolled_back"))
    kept = {"output": None, "may_have_effect": False, "attempt": 0, "tries": 0}
    charge = _step(LATE, "charge", "compensated", comp_attempt=2, comp_tries=2, output=None)
    others = [_step(LATE, step, "cancelled", **kept) for step in ("reserve", "rest", "ship")]
    order.end("rolled_back", "timed_out", [charge, *others], deadline=begun + 300.0)


def _step(workflow: str, step: str, status: str, **fields: object) -> StepRow:
    output = {"mark": mark(workflow, step)}
    row = StepRow(workflow, step, status, False, 1, 0, True, output, tries=1, comp_tries=0)
    return replace(row, **fields)  # type: ignore[arg-type]
