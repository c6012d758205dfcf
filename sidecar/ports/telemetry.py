"""Telemetry: metrics with bounded labels, and named facts that tests can wait for.

Every metric is declared here, once, with its labels; no label ever holds an id of a workflow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric's name, kind (`counter`, `gauge` or `histogram`), meaning and label names."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()


WORKFLOWS_STARTED = Metric(
    "goconductor_workflows_started_total", "counter", "Workflows accepted.", ("definition",)
)
WORKFLOWS_ENDED = Metric(
    "goconductor_workflows_ended_total",
    "counter",
    "Workflows that reached an end, or error.",
    ("definition", "status"),
)
WORKFLOW_SECONDS = Metric(
    "goconductor_workflow_seconds",
    "histogram",
    "From start to end of a workflow.",
    ("definition", "status"),
)
ATTEMPTS = Metric(
    "goconductor_attempts_total",
    "counter",
    "Calls of the service by what they came to.",
    ("definition", "step", "action", "outcome"),
)
CALL_SECONDS = Metric(
    "goconductor_call_seconds", "histogram", "Duration of calls of the service.", ("action",)
)
CALLS_IN_FLIGHT = Metric("goconductor_calls_in_flight", "gauge", "Calls under way.")
COMMITS = Metric("goconductor_commits_total", "counter", "Transactions of the group commit.")
COMMIT_MEMBERS = Metric(
    "goconductor_commit_members", "histogram", "Members that shared one transaction."
)
COMMIT_SECONDS = Metric("goconductor_commit_seconds", "histogram", "Duration of a commit.")
COMMIT_RETRIES = Metric(
    "goconductor_commit_retries_total", "counter", "Batches tried again.", ("why",)
)
COMMIT_WAITING = Metric(
    "goconductor_commit_waiting", "gauge", "Members waiting for the next transaction."
)
LATE_ANSWERS = Metric(
    "goconductor_late_answers_total", "counter", "Answers to attempts no longer current."
)
DOORBELLS_RECEIVED = Metric(
    "goconductor_doorbells_received_total", "counter", "Doorbells by what they led to.", ("result",)
)
DOORBELLS_RUNG = Metric("goconductor_doorbells_rung_total", "counter", "Doorbells published.")
DOORBELLS_LOST = Metric(
    "goconductor_doorbells_lost_total", "counter", "Doorbells that could not be published."
)
QUEUE_REBUILDS = Metric(
    "goconductor_queue_rebuilds_total",
    "counter",
    "Queue clients replaced because they failed or made no progress.",
    ("part", "why"),
)
LOOKS = Metric(
    "goconductor_looks_total", "counter", "Looks of an idle sidecar into the store.", ("found",)
)
RATE_WAIT_SECONDS = Metric(
    "goconductor_rate_wait_seconds",
    "histogram",
    "How far off the turn was of a call whose rate is limited.",
    ("path",),
)
RATE_HELD = Metric(
    "goconductor_rate_held_total",
    "counter",
    "Claims given back until the turn that their rate limit gives them.",
    ("path",),
)
GATE_OPEN = Metric("goconductor_gate_open", "gauge", "1 while the service may be called.")
LEADING = Metric("goconductor_leading", "gauge", "1 while this sidecar does the leader's duties.")
DUTY_RUNS = Metric("goconductor_duty_runs_total", "counter", "Runs of a duty.", ("duty", "result"))
DUTY_DONE = Metric("goconductor_duty_items_total", "counter", "What a duty did.", ("duty",))
DUTY_BEHIND = Metric(
    "goconductor_duty_behind_seconds", "gauge", "Age of the oldest item a duty found.", ("duty",)
)
DEBT = Metric(
    "goconductor_compensation_debt",
    "gauge",
    "Effects owed their undoing: all (owed), the old ones (overdue), those for a person (failed).",
    ("service", "state"),
)
DEBT_AGE = Metric(
    "goconductor_compensation_debt_oldest_seconds",
    "gauge",
    "Age of the oldest effect owed its undoing.",
    ("service",),
)
CATALOGUES_DIFFER = Metric(
    "goconductor_catalogues_differ",
    "gauge",
    "1 while the live sidecars of a service do not have the same catalogue.",
    ("service",),
)
BULK = Metric(
    "goconductor_bulk_workflows_total",
    "counter",
    "Workflows of bulk jobs that had their turn.",
    ("verb", "result"),
)
LOOP_LAG = Metric(
    "goconductor_loop_lag_seconds", "gauge", "How late the event loop wakes this process."
)

METRICS: tuple[Metric, ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Metric)
)


class Telemetry(Protocol):
    """Where numbers and facts go. Never raises, never waits."""

    def count(self, metric: Metric, value: float = 1, **labels: str) -> None:
        """Add to a counter."""
        ...

    def gauge(self, metric: Metric, value: float, **labels: str) -> None:
        """Set a gauge."""
        ...

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Add one observation to a histogram."""
        ...

    def fact(self, name: str, **fields: object) -> None:
        """Tell that something happened, by a stable name; free unless somebody listens."""
        ...
