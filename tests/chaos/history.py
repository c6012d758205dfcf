"""What the history of one workflow must show, judged by the literal tables of the states."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

from sidecar.saga.states import STEP_TABLE, WORKFLOW_TABLE
from tests.chaos.effects import Case
from tests.chaos.expectations import Rule, Violation
from tests.chaos.graphs import plain
from tests.chaos.rows import ENDS, EventRow

_WORKFLOW_LEGAL = {
    (before.value, after.value) for before, row in WORKFLOW_TABLE.items() for after in row.values()
}
_STEP_LEGAL = {
    (before.value, after.value) for before, row in STEP_TABLE.items() for after in row.values()
}

_OVER = frozenset({"succeeded", "skipped", "failed", "cancelled"})


def of_history(case: Case, clock_slack_s: float) -> Iterator[Violation]:
    """Everything about one workflow that its events can tell."""
    yield from _numbered(case)
    yield from _workflow(case)
    yield from _one_end(case)
    yield from _steps(case)
    yield from _begun_in_order(case)
    yield from _items(case)
    yield from _undone_in_order(case)
    yield from _claims(case, clock_slack_s)


def _numbered(case: Case) -> Iterator[Violation]:
    found = [event.seq for event in case.events]
    if found != list(range(1, case.row.last_seq + 1)):
        text = f"its events are numbered {found}, and the last should be {case.row.last_seq}"
        yield case.wrong(Rule.HISTORY, text)


def _workflow(case: Case) -> Iterator[Violation]:
    status: str | None = "queued"
    for event in case.events:
        if event.kind != "workflow" or event.cause == "waits_for_its_turn":
            continue  # who waits for its turn has not moved
        yield from _moves(case, event, status, _WORKFLOW_LEGAL)
        status = event.after
    if status != case.row.status:
        yield case.wrong(Rule.HISTORY, f"it is {case.row.status}, and its history says {status}")


def _moves(
    case: Case, event: EventRow, status: str | None, legal: set[tuple[str, str]]
) -> Iterator[Violation]:
    name = event.step or "the workflow"
    if (event.before, event.after) not in legal:
        text = f"event {event.seq}: {name} went from {event.before} to {event.after}"
        yield case.wrong(Rule.TRANSITION, text)
    if event.before != status:
        text = f"event {event.seq}: {name} left {event.before}, and it was {status}"
        yield case.wrong(Rule.TRANSITION, text)


def _one_end(case: Case) -> Iterator[Violation]:
    own = [event for event in case.events if event.kind == "workflow"]
    ends = [event.after for event in own if event.after in ENDS]
    again = sum(
        event.cause == "mended" or (event.cause == "parent_turned_back" and bool(case.row.parent))
        for event in own
        if event.before in ENDS
    )
    if len(ends) > 1 + again:
        yield case.wrong(Rule.ONE_END, f"it ended {len(ends)} times: {ends}")
    statuses = {name: row.status for name, row in case.steps.items()}
    if case.row.status == "completed" and not all(map(_passed(case), statuses.items())):
        yield case.wrong(Rule.ONE_END, f"completed, and its steps are {statuses}")
    if case.row.status == "rolled_back":
        left = sorted(
            name
            for name, row in case.steps.items()
            if row.may_have_effect
            and plain(name) in case.graph.undoable
            and row.status != "compensated"
        )
        if left:
            yield case.wrong(Rule.ONE_END, f"rolled back, and {left} may have an effect still")


def _passed(case: Case) -> Callable[[tuple[str, str]], bool]:
    """Whether a workflow may have completed with a step of this name in this status."""

    def passed(one: tuple[str, str]) -> bool:
        name, status = one
        step = plain(name)
        may_fail = step in case.graph.optional or (name != step and status == "failed")
        may_be_skipped = (step in case.graph.unsure and name == step) or name in case.left_out
        left = may_fail and name != step and status == "cancelled"
        return (
            status == "succeeded"
            or left
            or (status == "failed" and may_fail)
            or (status == "skipped" and may_be_skipped)
        )

    return passed


def _steps(case: Case) -> Iterator[Violation]:
    statuses: dict[str, str] = dict.fromkeys(case.graph.after, "pending")
    for event in case.events:
        if event.kind in ("step", "compensation") and event.step is not None:
            status = statuses.get(event.step, "pending")
            yield from _moves(case, event, status, _STEP_LEGAL)
            statuses[event.step] = str(event.after)
    for name, row in case.steps.items():
        # The line of a claim is written with its settlement: a leased step is ahead of its events.
        if not row.leased and row.status != statuses.get(name):
            text = f"{name} is {row.status}, and the history says {statuses.get(name)}"
            yield case.wrong(Rule.HISTORY, text)


def _begun_in_order(case: Case) -> Iterator[Violation]:
    """A step begins once, when those before it have passed; an item, when its step has begun."""
    succeeded: set[str] = set()
    passed: set[str] = set()
    begun: set[str] = set()
    for event in case.events:
        if event.kind != "step" or event.step is None:
            continue
        if event.before == "pending" and event.after != "cancelled":
            if event.step in begun:
                yield case.wrong(Rule.ORDER, f"{event.step} was begun twice")
            begun.add(event.step)
            yield from _too_early(case, event.step, succeeded, passed, begun)
        if event.after == "succeeded":
            succeeded.add(event.step)
        if event.after in ("succeeded", "skipped") or (
            event.after == "failed" and event.step in case.graph.optional
        ):
            passed.add(event.step)


def _too_early(
    case: Case, name: str, succeeded: set[str], passed: set[str], begun: set[str]
) -> Iterator[Violation]:
    step = plain(name)
    if name != step:
        if step not in begun:
            yield case.wrong(Rule.ORDER, f"{name} was begun before {step} was")
        return
    before = case.graph.after.get(step, ())
    if step in case.graph.any_of and not succeeded.isdisjoint(before):
        return
    for one in before:
        if one not in passed:
            yield case.wrong(Rule.ORDER, f"{name} was begun before {one} had passed")


def _items(case: Case) -> Iterator[Violation]:
    """No more items than there are elements, than may be under way, and than may fail."""
    for step, fan in case.graph.fans.items():
        row = case.steps.get(step)
        rows = [one for name, one in case.steps.items() if name != step and plain(name) == step]
        open_: set[str] = set()
        for event in case.events:
            if event.kind != "step" or event.step in (None, step) or plain(event.step) != step:
                continue
            (open_.discard if event.after in _OVER else open_.add)(event.step)
            if len(open_) > fan.parallel:
                text = f"{len(open_)} items of {step} were under way, {fan.parallel} may"
                yield case.wrong(Rule.ITEMS, text)
                break
        if row is None or row.status != "succeeded":
            continue
        failed = sum(one.status == "failed" for one in rows)
        if len(rows) != row.items:
            text = f"{step} succeeded with {row.items} elements, and {len(rows)} items"
            yield case.wrong(Rule.ITEMS, text)
        if failed > fan.tolerated:
            text = f"{step} succeeded, {failed} items failed, and {fan.tolerated} may"
            yield case.wrong(Rule.ITEMS, text)


def _undone_in_order(case: Case) -> Iterator[Violation]:
    begun: dict[str, int] = {}
    over: dict[str, int] = {}
    for event in case.events:
        if event.kind == "compensation" and event.step is not None:
            if event.after == "compensating":
                begun.setdefault(event.step, event.seq)
            else:
                over[event.step] = event.seq
    for step, at in begun.items():
        for later in sorted(case.graph.descendants(step) & set(begun)):
            if over.get(later, at + 1) > at:
                text = f"the undoing of {step} began before that of {later} was over"
                yield case.wrong(Rule.UNDO_ORDER, text)


def _claims(case: Case, clock_slack_s: float) -> Iterator[Violation]:
    """Attempts are numbered without gaps, and one ends before the next begins."""
    attempts: dict[tuple[str, str], int] = defaultdict(int)
    settled: dict[tuple[str, str], float] = {}
    for event in case.events:
        if event.step is None or event.action is None or event.kind == "late_answer":
            continue
        # Who asks how an execute went counts on where the executes have got to.
        run = (event.step, "execute" if event.action == "status" else event.action)
        name = f"{event.step} {event.action}: attempt {event.attempt}"
        if event.cause != "claimed":
            if event.attempt == attempts[run]:
                settled.setdefault(run, event.time)
            continue
        if event.attempt != attempts[run] + 1:
            yield case.wrong(Rule.ATTEMPTS, f"{name} came after {attempts[run]}")
        attempts[run] = event.attempt or 0
        if event.time < settled.pop(run, event.time) - clock_slack_s:
            yield case.wrong(Rule.CLAIMS, f"{name} was claimed before the last had ended")
    for step, row in case.steps.items():
        for action, kept in (("execute", row.attempt), ("compensate", row.comp_attempt)):
            if not row.leased and kept != attempts[step, action]:
                text = (
                    f"{step} {action}: {kept} attempts, and {attempts[step, action]} in the history"
                )
                yield case.wrong(Rule.ATTEMPTS, text)
