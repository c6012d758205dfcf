"""Those that take turns, workflows and steps: by the histories, the ledger and live samples.

The times of two histories are known roughly, so what overlaps for a moment only is found by the
samples, which are exact: each is one question to PostgreSQL.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from tests.chaos.book import Entry
from tests.chaos.effects import Case
from tests.chaos.expectations import Rule, Violation
from tests.chaos.families import Forest
from tests.chaos.graphs import plain
from tests.chaos.rows import Crowd

_ENDS = frozenset({"completed", "rolled_back", "terminated"})
_STEP_ENDS = frozenset({"succeeded", "skipped", "failed", "cancelled"})
_Key = tuple[str, str, str]
"""Definition, step (empty for workflows), and what the key came to."""


def of_turns(forest: Forest, crowds: Sequence[Crowd], clock_slack_s: float) -> Iterator[Violation]:
    """Of the workflows, or of the steps, of one key no more are under way than may be."""
    limits: dict[_Key, int] = {}
    spans: dict[_Key, list[tuple[float, float]]] = defaultdict(list)
    cases: dict[_Key, list[Case]] = defaultdict(list)
    for case in forest.cases.values():
        row = case.row
        if row.turn is not None:
            key = (row.definition, "", row.turn)
            limits[key] = row.turn_limit or 1
            spans[key] += _place(case)
            cases[key].append(case)
        for name, step in case.steps.items():
            if step.turn is not None:
                key = (row.definition, plain(name), step.turn)
                limits[key] = case.graph.limits.get(plain(name), 0)
                spans[key] += _place_of_step(case, name)
                yield from _without_a_turn(case, name)
    for key, limit in limits.items():
        most = _most_at_once([(begin, end - clock_slack_s) for begin, end in spans[key]])
        if most > limit:
            yield _too_many(key, most, limit)
        if limit == 1 and key in cases:
            yield from _one_after_the_other(cases[key], forest.entries)
    for crowd in crowds:
        key = (crowd.definition, crowd.step, crowd.turn)
        if crowd.number > limits.get(key, 0):
            yield _too_many(key, crowd.number, limits.get(key, 0))


def _too_many(key: _Key, number: int, limit: int) -> Violation:
    named = " ".join(part for part in key if part)
    return Violation(Rule.TURNS, f"{number} of {named} were under way, and {limit} may be")


def _place(case: Case) -> Iterator[tuple[float, float]]:
    """From when till when a workflow had its place; one that never ended has it still."""
    ends = _ENDS | ({"error"} if not case.graph.keeps_in_error else set())
    begun: float | None = None
    for event in case.events:
        if event.kind != "workflow":
            continue
        if event.cause == "its_turn":
            begun = event.time
        elif begun is not None and event.after in ends:
            yield begun, event.time
            return
    if begun is not None:
        yield begun, float("inf")


def _place_of_step(case: Case, name: str) -> Iterator[tuple[float, float]]:
    """From when till when a step had a place: from its turn to the end of its way forward."""
    begun: float | None = None
    for event in case.events:
        if event.kind != "step" or event.step != name:
            continue
        if event.cause == "its_turn":
            begun = event.time
        elif begun is not None and event.after in _STEP_ENDS:
            yield begun, event.time
            begun = None
    if begun is not None:
        yield begun, float("inf")


def _without_a_turn(case: Case, name: str) -> Iterator[Violation]:
    """A step that takes turns is called when its turn has come, and only then."""
    may = False
    for event in case.events:
        if event.kind != "step" or event.step != name:
            continue
        may = (may or event.cause == "its_turn") and event.after not in _STEP_ENDS
        if event.cause == "claimed" and not may:
            yield case.wrong(Rule.TURNS, f"{name} was claimed before its turn")


def _most_at_once(spans: Sequence[tuple[float, float]]) -> int:
    moments = sorted(
        [(begin, 1) for begin, end in spans if end > begin]
        + [(end, -1) for begin, end in spans if end > begin],
    )
    most = now = 0
    for _, change in moments:
        now += change
        most = max(most, now)
    return most


def _one_after_the_other(cases: Sequence[Case], entries: Sequence[Entry]) -> Iterator[Violation]:
    """By the ledger, whose lines have one order: no effects of two are mixed."""
    own = {case.row.id: case for case in cases if case.row.parent is None}
    last: dict[str, int] = {}
    order: list[str] = []
    for number, entry in enumerate(entries):
        if entry.workflow in own and entry.applied:
            last[entry.workflow] = number
            if not order or order[-1] != entry.workflow:
                order.append(entry.workflow)
    for workflow, times in Counter(order).items():
        if times > 1:
            text = f"its effects are mixed with those of another of {own[workflow].row.turn}"
            yield own[workflow].wrong(Rule.TURNS, text)
