"""A small run in which all is well: one workflow that completed, and one that was rolled back.

The graph is charge, then reserve and pack beside each other, then ship. What the checker should
find is planted into a copy of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.book import Entry, Fact
from tests.chaos.expectations import Cancel, Exit, Start
from tests.chaos.graphs import Graph
from tests.chaos.rows import Crowd, EventRow, LeaderSample, Leaks, Rows, StepRow, WorkflowRow

DONE, UNDONE = "w-done", "w-undone"
AFTER: dict[str, tuple[str, ...]] = {
    "charge": (),
    "reserve": ("charge",),
    "pack": ("charge",),
    "ship": ("reserve", "pack"),
}
GRAPH = Graph(AFTER, frozenset(AFTER))


@dataclass
class Run:
    """Everything that the checker is given, and that a test may spoil."""

    entries: list[Entry] = field(default_factory=list)
    workflows: list[WorkflowRow] = field(default_factory=list)
    steps: list[StepRow] = field(default_factory=list)
    events: list[EventRow] = field(default_factory=list)
    start_keys: dict[str, str] = field(default_factory=dict)
    starts: list[Start] = field(default_factory=list)
    cancels: list[Cancel] = field(default_factory=list)
    exits: list[Exit] = field(default_factory=list)
    leaders: list[LeaderSample] = field(default_factory=list)
    leaks: Leaks = field(default_factory=lambda: Leaks(advisory_locks=1))
    crowds: list[Crowd] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=lambda: {"payments-1": 30, "shipping-1": 60})

    def rows(self) -> Rows:
        graphs = {("order", 1): GRAPH}
        return Rows(
            self.workflows,
            self.steps,
            self.events,
            graphs,
            self.start_keys,
            self.leaders,
            self.leaks,
            self.crowds,
        )


class Writer:
    """Writes one workflow into a run, in the order in which it would have happened.

    `shown` are the marks that a step is shown, where these are not those of the steps before it.
    """

    def __init__(
        self,
        run: Run,
        workflow: str,
        after: Mapping[str, tuple[str, ...]] = AFTER,
        *,
        definition: str = "order",
        shown: Mapping[str, Mapping[str, str | None]] | None = None,
    ) -> None:
        self._run = run
        self._workflow = workflow
        self._after = after
        self._definition = definition
        self._shown = shown or {}
        self._seq = 0
        self.time = 100.0

    def seq_at(self, other: Writer) -> None:
        """Go on when the other has got as far as it has."""
        self.time = other.time

    def after_all(self) -> None:
        """Begin when all that is written is over."""
        self.time = max(event.time for event in self._run.events)

    def note(self, kind: str, cause: str, moved: tuple[str | None, str], **more: object) -> None:
        self._seq += 1
        self.time += 1.0
        before, after = moved
        event = EventRow(
            self._workflow, self._seq, self.time, kind, cause, before=before, after=after,
            **more,  # type: ignore[arg-type]
        )  # fmt: skip
        self._run.events.append(event)

    def execute(self, step: str, fact: Fact = Fact.APPLIED, *, takes_turns: bool = False) -> None:
        queued = {"step": step, "action": "execute"}
        if takes_turns:
            self.note("step", "waits_for_its_turn", ("pending", "waiting"), **queued)
            self.note("step", "its_turn", ("waiting", "queued"), **queued)
        else:
            self.note("step", "ready", ("pending", "queued"), **queued)
        called = {**queued, "attempt": 1}
        self.note("step", "claimed", ("queued", "running"), **called)
        well = fact is Fact.APPLIED
        self.call(step, "execute", fact, 200 if well else 422)
        end = ("done", ("running", "succeeded")) if well else ("refused", ("running", "failed"))
        self.note("step", *end, **called)

    def undo(self, step: str) -> None:
        begun = {"step": step, "action": "compensate"}
        self.note("compensation", "undo", ("succeeded", "compensating"), **begun)
        called = {**begun, "attempt": 1}
        self.note("compensation", "claimed", ("compensating", "compensating"), **called)
        self.call(step, "compensate", Fact.APPLIED, 200)
        self.note("compensation", "done", ("compensating", "compensated"), **called)

    def call(self, step: str, action: str, fact: Fact, status: int) -> None:
        undoing = action == "compensate"
        own = {"outcome": "succeeded", "own": mark(self._workflow, step)}
        before = self._after.get(step, ())
        seen = self._shown.get(step, {one: mark(self._workflow, one) for one in before})
        entry = Entry(
            at=self.time,
            wall=self.time,
            key=f"{self._workflow}/{step}/{action}",
            path=f"/undo/{step}" if undoing else f"/{step}",
            workflow=self._workflow,
            step=step,
            action=action,
            attempt=1,
            body_hash=f"{step} {action}",
            fact=fact,
            own=status,
            status=status,
            input_hash=f"input of {step}",
            mark=mark(self._workflow, step) if fact is Fact.APPLIED and not undoing else None,
            seen=own if undoing else seen,
        )
        self._run.entries.append(entry)

    def end(
        self, status: str, reason: str | None, steps: Sequence[StepRow], **more: object
    ) -> None:
        """Write its rows; what has a parent was started by nobody."""
        run, key = self._run, None if "parent" in more else f"key of {self._workflow}"
        row = WorkflowRow(
            self._workflow, self._definition, 1, status, reason, self._seq, key,
            **more,  # type: ignore[arg-type]
        )  # fmt: skip
        run.workflows.append(row)
        run.steps.extend(steps)
        if key is not None:
            run.start_keys[key] = self._workflow
            ends = frozenset({status})
            run.starts.append(Start(key, self._definition, {}, ends, self._workflow))


def mark(workflow: str, step: str) -> str:
    return f"mark of {workflow} {step}"


def sound_run() -> Run:
    """A run that no invariant complains of."""
    run = Run(leaders=[LeaderSample(1, "a"), LeaderSample(2, "b")])
    writer = Writer(run, DONE)
    writer.note("workflow", "started", ("queued", "in_progress"))
    for step in AFTER:
        writer.execute(step)
    writer.note("workflow", "all_steps_passed", ("in_progress", "completed"))
    writer.end("completed", None, [_step(DONE, step, "succeeded") for step in AFTER])
    writer = Writer(run, UNDONE)
    writer.note("workflow", "started", ("queued", "in_progress"))
    for step in ("charge", "reserve", "pack"):
        writer.execute(step)
    writer.execute("ship", Fact.REFUSED)
    writer.note("workflow", "step_failed", ("in_progress", "rolling_back"))
    for step in ("pack", "reserve", "charge"):
        writer.undo(step)
    writer.note("workflow", "all_undone", ("rolling_back", "rolled_back"))
    steps = [_step(UNDONE, step, "compensated", 1) for step in ("charge", "reserve", "pack")]
    ship = StepRow(UNDONE, "ship", "failed", False, 1, 0, False)
    writer.end("rolled_back", "failed", [*steps, ship])
    return run


def _step(workflow: str, step: str, status: str, comp_attempt: int = 0) -> StepRow:
    output = {"mark": mark(workflow, step)}
    return StepRow(workflow, step, status, False, 1, comp_attempt, True, output)
