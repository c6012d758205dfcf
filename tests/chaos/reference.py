"""A small second opinion: what a workflow's statuses are, by its history and by nothing else.

The model knows two tables, by what an event is called, and a few words about the whole: when a
workflow may turn back, stand still, be mended and end. It shares nothing with the machine. Every
line must leave the status in which the model is, for one that its cause can lead to; in the end the
model and the rows must say the same of the workflow and of every step and item. Where a cause can
lead to several (an unknown outcome is tried again, asked about or given up), policies and effects
decide, of which a history does not tell all: the line says which, the model whether it may.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tests.chaos.effects import Case
from tests.chaos.expectations import Rule, Violation
from tests.chaos.graphs import Graph, plain
from tests.chaos.rows import EventRow

_Table = Mapping[tuple[str, str], frozenset[str]]

_TURNS_BACK = "step_failed cancelled deadline_passed parent_turned_back input_invalid render_failed"
_STOPS = f"{_TURNS_BACK} items_failed terminated"
_NO_ANSWER = "unknown misconfigured busy not_now not_sent"
_NOT_CALLED = "released held"
_NO_UNDOING = "no_compensation render_failed terminated"
_CALLED = {
    "done": "succeeded",
    "unusable": "failed",
    "refused": "in_doubt failed",
    _NO_ANSWER: "retrying in_doubt failed",
    _NOT_CALLED: "retrying failed cancelled",
    "pending": "waiting failed",
}
"""How an attempt ends, or ended whose lease was over; a refusal proves nothing of earlier ones."""


def _table(words: Mapping[str, Mapping[str, str]]) -> _Table:
    return {
        (before, cause): frozenset(after.split())
        for before, row in words.items()
        for causes, after in row.items()
        for cause in causes.split()
    }


_WORKFLOW = _table(
    {
        "queued": {
            "started its_turn": "in_progress",
            "waits_for_its_turn": "queued",
            _TURNS_BACK: "rolling_back",
            "terminated": "terminated",
        },
        "in_progress": {
            "all_steps_passed": "completed",
            "failed_past_pivot": "error",
            _TURNS_BACK: "rolling_back",
            "terminated": "terminated",
        },
        "rolling_back": {
            "all_undone": "rolled_back",
            "compensation_failed": "error",
            "terminated": "terminated",
        },
        "error": {"mended": "rolling_back in_progress", "terminated": "terminated"},
        "completed": {"parent_turned_back": "rolling_back"},
    }
)

_STEP = _table(
    {
        "pending": {
            "ready": "queued",
            "waits_for_its_turn waits fans_out starts_child": "waiting",
            "no_elements signal": "succeeded",
            "condition_is_false skipped": "skipped",
            "taken_over": "succeeded skipped failed cancelled",
            _STOPS: "cancelled",
            "render_failed": "failed cancelled",
        },
        "queued": {"claimed": "running", "skipped": "skipped", _STOPS: "cancelled"},
        "running": {**_CALLED, "terminated": "failed"},
        "retrying": {
            **_CALLED,
            "claimed": "running",
            "skipped": "skipped",
            "resolved": "succeeded failed",
            _STOPS: "failed cancelled",
        },
        "waiting": {
            "its_turn": "queued retrying",
            "done time_has_come signal all_items_ended child_completed": "succeeded",
            "unusable signal_timeout turned_back": "failed",
            "output_invalid child_rolled_back child_terminated": "failed",
            "refused": "in_doubt failed",
            _NO_ANSWER: "retrying in_doubt failed",
            "skipped": "skipped",
            "resolved": "succeeded failed",
            _STOPS: "failed cancelled",
        },
        "in_doubt": {
            "claimed": "in_doubt",
            "done": "succeeded",
            f"refused unusable {_NO_ANSWER} {_NOT_CALLED}": "in_doubt failed",
            "pending": "waiting failed",
            "skipped": "skipped",
            "resolved": "succeeded failed",
            _STOPS: "failed",
        },
        "failed": {
            "retry same_key_again": "retrying waiting",
            "waits starts_child": "waiting",
            "signal": "succeeded",
            "resolved": "succeeded",
            "skipped": "skipped",
            "undo": "compensating",
            _NO_UNDOING: "compensation_failed",
        },
        "succeeded": {"undo": "compensating", _NO_UNDOING: "compensation_failed"},
        "skipped": {"undo": "compensating", _NO_UNDOING: "compensation_failed"},
        "compensating": {
            "claimed pending": "compensating",
            "done all_items_undone child_rolled_back skipped resolved": "compensated",
            "refused items_not_undone child_kept": "compensation_failed",
            "child_terminated terminated": "compensation_failed",
            f"unusable {_NO_ANSWER}": "compensating compensation_failed",
            _NOT_CALLED: "compensating",
        },
        "compensation_failed": {"retry": "compensating", "skipped resolved": "compensated"},
    }
)

_OPEN = frozenset({"queued", "running", "waiting", "retrying", "in_doubt", "compensating"})
_UNDOING = frozenset({"compensating", "compensated", "compensation_failed"})
_REASONS = {
    **dict.fromkeys(("step_failed", "input_invalid", "render_failed"), "failed"),
    "cancelled": "cancelled",
    "deadline_passed": "timed_out",
}


def of_reference(case: Case) -> Iterator[Violation]:
    """Replay the history of a workflow, and compare what it leads to with the rows."""
    model = Model(case.graph, is_child=case.row.parent is not None)
    for event in case.events:
        wrong = model.apply(event)
        if wrong is not None:
            what = f"{event.kind} {event.step or ''} {event.before} -> {event.after}"
            text = f"event {event.seq}: {what} ({event.cause}): {wrong}"
            yield case.wrong(Rule.CONFORMANCE, text)
    if case.row.status != model.status:
        text = f"is {case.row.status}, and its history leads to {model.status}"
        yield case.wrong(Rule.CONFORMANCE, text)
    if case.row.reason not in (model.reasons or {None}):
        text = f"its reason is {case.row.reason}, and its history says {sorted(model.reasons)}"
        yield case.wrong(Rule.CONFORMANCE, text)
    for name in sorted({*case.steps, *model.steps}):
        row, status = case.steps.get(name), model.step(name)
        # A claim that has not ended has written its row, and not its line as yet.
        if row is not None and not row.leased and row.status != status:
            text = f"{name} is {row.status}, and the history leads to {status}"
            yield case.wrong(Rule.CONFORMANCE, text)
        elif row is None and status != "pending":
            yield case.wrong(Rule.CONFORMANCE, f"{name} is {status}, and has no row")


class Model:
    """The statuses of one workflow, and of its steps and items; what is not there is pending.

    `reasons` are those for which it may have turned back: none as long as it has not, and of a
    child that its parent turned back any.
    """

    def __init__(self, graph: Graph, *, is_child: bool) -> None:
        self._graph = graph
        self._is_child = is_child
        self.status = "queued"
        self.reasons: frozenset[str] = frozenset()
        self.steps: dict[str, str] = {}
        self._claims: dict[tuple[str, str], int] = {}
        self._taken_over: set[str] = set()

    def step(self, name: str) -> str:
        """The status of a step or an item."""
        return self.steps.get(name, "pending")

    def apply(self, event: EventRow) -> str | None:
        """Take one line, and go on as it says; return what is wrong with it."""
        match event.kind:
            case "workflow":
                wrong = self._of_workflow(event)
                self.status = str(event.after)
                self._turned_back_by(event)
            case "step" | "compensation" if event.step is not None:
                wrong = self._of_step(event, event.step)
                self.steps[event.step] = str(event.after)
            case _:
                return None  # what was said, and moved nothing
        return wrong

    def _of_workflow(self, event: EventRow) -> str | None:
        waits = event.cause == "waits_for_its_turn"  # who is new to the line has left nothing
        if event.before != (None if waits else self.status):
            return f"the model is {self.status}"
        return self._unlike(_WORKFLOW, self.status, event) or self._may_not(event)

    def _turned_back_by(self, event: EventRow) -> None:
        if event.after == "rolling_back" and event.cause != "mended":
            told = _REASONS.get(event.cause)
            self.reasons = frozenset({told} if told else _REASONS.values())

    @staticmethod
    def _unlike(table: _Table, before: str, event: EventRow) -> str | None:
        after = table.get((before, event.cause))
        if after is None:
            return f"that cannot happen to what is {before}"
        return None if event.after in after else f"that leads to {' or '.join(sorted(after))}"

    def _may_not(self, event: EventRow) -> str | None:
        """What the whole must have come to for this."""
        names = self._graph.after
        failed = [name for name, status in self.steps.items() if status == "failed"]
        kept = [name for name, status in self.steps.items() if status == "compensation_failed"]
        match event.cause:
            case "all_steps_passed":
                left = [name for name in names if not self._has_passed(name)]
                return f"{left} have not passed" if left else None
            case "all_undone":
                left = [name for name in self.steps if self._is_to_be_undone(name)]
                return f"{left} are not undone" if left else None
            case "compensation_failed":
                return None if kept else "nothing could not be undone"
            case "step_failed":
                return None if failed else "none has failed"
            case "failed_past_pivot":
                return None if any(map(self._is_past_pivot, failed)) else "none failed past a pivot"
            case "mended":
                ahead = "rolling_back" if self.reasons else "in_progress"
                if event.after != ahead:
                    return f"it goes on as {ahead}"
                return f"{kept} are not undone" if kept and self.reasons else None
            case "parent_turned_back":
                return None if self._is_child else "it has no parent"
            case _:
                return None

    def _has_passed(self, name: str) -> bool:
        status = self.step(name)
        return status in ("succeeded", "skipped") or (
            status == "failed" and name in self._graph.optional
        )

    def _is_to_be_undone(self, name: str) -> bool:
        """What is open, and what was done; a fan-out as a whole has done nothing itself."""
        status = self.step(name)
        done = status == "succeeded" and name not in self._graph.fans
        owed = done and plain(name) in self._graph.undoable
        return owed or status in _OPEN or status == "compensation_failed"

    def _is_past_pivot(self, name: str) -> bool:
        step, pivots = plain(name), self._graph.pivots
        return step in pivots or any(step in self._graph.descendants(one) for one in pivots)

    def _of_step(self, event: EventRow, name: str) -> str | None:
        before = self.step(name)
        if event.before != before:
            return f"the model is {before}"
        if (event.after in _UNDOING) is not (event.kind == "compensation"):
            return "that belongs to the other way"
        return (
            self._unlike(_STEP, before, event)
            or self._wrong_way(event, before)
            or self._miscounted(event, name)
        )

    def _wrong_way(self, event: EventRow, before: str) -> str | None:
        """Nothing is begun or tried anew on the way back, and nothing undone on the way forward."""
        if event.after in _UNDOING:
            back = self.reasons or self.status == "terminated"
            return None if back else "the workflow has not turned back"
        begun = before == "pending" and event.after != "cancelled"
        again = event.after in _OPEN and event.cause != "claimed"
        return "the workflow has turned back" if self.reasons and (begun or again) else None

    def _miscounted(self, event: EventRow, name: str) -> str | None:
        """A line carries the number of the newest claim; each adds one.

        A child begins anew without a claim; what was taken over has earlier ones.
        """
        run = (name, event.kind)
        if event.cause == "claimed":
            self._claims[run] = self._claims.get(run, 0) + 1
        if event.cause == "taken_over":
            self._taken_over.add(name)
        uncounted = plain(name) in self._graph.children or name in self._taken_over
        claims = self._claims.get(run, 0)
        if uncounted or (event.attempt or 0) == claims:
            return None
        return f"its attempt is {event.attempt}, and the history has {claims}"
