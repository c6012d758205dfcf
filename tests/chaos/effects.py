"""What the ledger must show of one workflow, given how PostgreSQL says that it ended."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from tests.chaos.book import Entry, Fact
from tests.chaos.expectations import Rule, Violation
from tests.chaos.graphs import Graph, plain
from tests.chaos.rows import EventRow, StepRow, WorkflowRow

EXECUTE = "execute"
COMPENSATE = "compensate"


@dataclass(frozen=True)
class Case:
    """One workflow: its rows, and its lines of the ledger in their order.

    `given` are the marks of its children, by the steps that run them.
    """

    row: WorkflowRow
    graph: Graph
    steps: Mapping[str, StepRow]
    events: Sequence[EventRow]
    entries: Sequence[Entry]
    keys_honoured: bool = True
    given: Mapping[str, str | None] = field(default_factory=dict)

    def wrong(self, rule: Rule, text: str) -> Violation:
        """Something is wrong with it."""
        return Violation(rule, text, self.row.id)

    def applied(self, name: str, action: str) -> list[int]:
        """Where in its lines this action of a step or an item had its effect."""
        return [
            number
            for number, entry in enumerate(self.entries)
            if entry.applied and (entry.step, entry.action) == (name, action)
        ]

    def runs(self, step: str) -> list[str]:
        """The runs of a step: itself, or the items of a fan-out that have a row or were called."""
        if step not in self.graph.fans:
            return [step]
        known = {*self.steps, *(entry.step for entry in self.entries)}
        return sorted(one for one in known if one != step and plain(one) == step)

    @cached_property
    def marks(self) -> Mapping[str, str | None]:
        """What the runs have given, by the ledger."""
        own = {one.step: one.mark for one in self.entries if one.mark and one.action == EXECUTE}
        return {**self.given, **own}

    @cached_property
    def left_out(self) -> frozenset[str]:
        """The runs that a person has skipped on their way forward, whatever they had done."""
        return frozenset(
            event.step
            for event in self.events
            if event.step and (event.kind, event.cause) == ("step", "skipped")
        )

    @cached_property
    def succeeded(self) -> frozenset[str]:
        """The runs that have ever succeeded, by the history."""
        return frozenset(
            event.step for event in self.events if event.step and event.after == "succeeded"
        )


def of_effects(case: Case) -> Iterator[Violation]:
    """Everything about one workflow that its lines of the ledger can tell."""
    yield from _known(case)
    yield from _by_key(case)
    yield from _order(case)
    yield from _data_flow(case)
    yield from _undo_order(case)
    match case.row.status:
        case "completed":
            yield from _completed(case)
        case "rolled_back":
            yield from _rolled_back(case)
        case "error":
            yield from _error(case)


def _known(case: Case) -> Iterator[Violation]:
    for name in sorted({entry.step for entry in case.entries}):
        step = plain(name)
        if step not in case.graph.calls:
            yield case.wrong(Rule.ORDER, f"{name} was called, and no such call is defined")
        elif (name != step) is not (step in case.graph.fans):
            yield case.wrong(Rule.ITEMS, f"{name} was called, which is none of its items")


def _completed(case: Case) -> Iterator[Violation]:
    for step in (name for one in case.graph.after for name in case.runs(one)):
        if plain(step) not in case.graph.calls:
            continue
        row = case.steps.get(step)
        done = len(case.applied(step, EXECUTE))
        if row is None or row.status == "succeeded":
            if done == 0 or (done > 1 and case.keys_honoured):
                text = f"completed, and {step} had its effect {done} times"
                yield case.wrong(Rule.COMPLETED, text)
        elif done and not (
            row.may_have_effect and (row.status == "failed" or step in case.left_out)
        ):
            yield case.wrong(Rule.COMPLETED, f"completed, and {step} is {row.status} and was done")
        undone = [
            entry
            for entry in case.entries
            if (entry.step, entry.action) == (step, COMPENSATE) and entry.fact is not Fact.NOT_DONE
        ]
        if undone:
            yield case.wrong(Rule.COMPLETED, f"completed, and {step} was undone")


def _rolled_back(case: Case) -> Iterator[Violation]:
    for step in (name for one in sorted(case.graph.undoable) for name in case.runs(one)):
        done, undone = case.applied(step, EXECUTE), case.applied(step, COMPENSATE)
        if not case.keys_honoured:
            if done and not undone:
                yield case.wrong(Rule.ROLLED_BACK, f"rolled back, and {step} was never undone")
            continue
        if len(done) != len(undone):
            text = f"rolled back, and {step} was done {len(done)} and undone {len(undone)} times"
            yield case.wrong(Rule.ROLLED_BACK, text)
        elif done and undone[0] < done[0]:
            yield case.wrong(Rule.ROLLED_BACK, f"{step} was undone before it was done")


def _error(case: Case) -> Iterator[Violation]:
    """What was done and not undone must be what could not be undone, or what that holds up."""
    if case.row.reason is None:  # it stopped past its pivot, where nothing is undone
        return
    failed = {name for name, row in case.steps.items() if row.status == "compensation_failed"}
    for step in (name for one in sorted(case.graph.undoable) for name in case.runs(one)):
        owed = bool(case.applied(step, EXECUTE)) and not case.applied(step, COMPENSATE)
        if owed and step not in failed and failed.isdisjoint(case.graph.descendants(plain(step))):
            yield case.wrong(Rule.ERROR, f"{step} is not undone, and nothing holds it up")


def _by_key(case: Case) -> Iterator[Violation]:
    bodies: dict[str, set[str]] = defaultdict(set)
    effects: Counter[tuple[str, str]] = Counter()
    requests: Counter[tuple[str, int]] = Counter()
    for entry in case.entries:
        bodies[entry.key].add(entry.body_hash)
        requests[entry.key, entry.attempt] += not entry.later
        effects[entry.step, entry.action] += entry.applied
        if entry.key != f"{entry.workflow}/{entry.step}/{entry.action}":
            yield case.wrong(Rule.EFFECTS, f"{entry.step} {entry.action} has the key {entry.key}")
    for key, hashes in bodies.items():
        if len(hashes) > 1:
            yield case.wrong(Rule.SAME_BODY, f"{key} came with {len(hashes)} different bodies")
    for (key, attempt), number in requests.items():
        if number > 1:
            yield case.wrong(Rule.ONE_REQUEST, f"attempt {attempt} of {key} came {number} times")
    for (step, action), number in effects.items():
        if number > 1 and case.keys_honoured:
            yield case.wrong(Rule.EFFECTS, f"{step} {action} had its effect {number} times")


def _order(case: Case) -> Iterator[Violation]:
    """A call comes after those that must have been done before it; history tells of all others."""
    done: set[str] = set()
    for entry in case.entries:
        if entry.action != EXECUTE:
            continue
        step = plain(entry.step)
        for before in case.graph.after.get(step, ()) if step not in case.graph.any_of else ():
            for one in case.runs(before):
                if one not in done and _must_be_done(case, one):
                    yield case.wrong(Rule.ORDER, f"{entry.step} was called before {one} was done")
        if entry.applied:
            done.add(entry.step)


def _must_be_done(case: Case, name: str) -> bool:
    step = plain(name)
    if step not in case.graph.calls:
        return False
    sure = step not in case.graph.unsure and step not in case.graph.fans
    return sure or name in case.succeeded


def _shown(case: Case, step: str) -> str | None:
    """What a step after this one must be shown of it."""
    if step in case.graph.fans:
        return str([_told(case, name) for name in sorted(case.runs(step), key=_place)])
    return _told(case, step) if step in case.graph.unsure else case.marks.get(step)


def _told(case: Case, name: str) -> str | None:
    return case.marks.get(name) if name in case.succeeded else "-"


def _place(name: str) -> int:
    return int(name.partition("[")[2].rstrip("]"))


def _data_flow(case: Case) -> Iterator[Violation]:
    marks = case.marks
    inputs = {one.step: one.input_hash for one in case.entries if one.action == EXECUTE}
    for entry in case.entries:
        if entry.action == EXECUTE:
            wanted = {one: _shown(case, one) for one in case.graph.sees(plain(entry.step))}
            if dict(entry.seen) != wanted:
                text = (
                    f"{entry.step} was shown {dict(entry.seen)}, and what came before said {wanted}"
                )
                yield case.wrong(Rule.DATA_FLOW, text)
            continue
        if entry.input_hash != inputs.get(entry.step, entry.input_hash):
            yield case.wrong(Rule.DATA_FLOW, f"{entry.step} is undone with another input")
        told = entry.seen.get("own")
        if entry.seen.get("outcome") == "succeeded" and told != marks.get(entry.step):
            yield case.wrong(Rule.DATA_FLOW, f"{entry.step} is undone with the output {told}")
    for name, row in case.steps.items():
        if isinstance(row.output, dict) and row.output.get("mark") != marks.get(name):
            yield case.wrong(Rule.DATA_FLOW, f"{name} has kept an output that it never gave")


def _undo_order(case: Case) -> Iterator[Violation]:
    for step in case.graph.after:
        undone = [at for name in case.runs(step) for at in case.applied(name, COMPENSATE)]
        if not undone:
            continue
        for later in sorted(case.graph.descendants(step) & case.graph.undoable):
            for name in case.runs(later):
                if not case.applied(name, EXECUTE):
                    continue
                if not any(one < min(undone) for one in case.applied(name, COMPENSATE)):
                    text = f"{step} was undone before {name}, which came after it"
                    yield case.wrong(Rule.UNDO_ORDER, text)
