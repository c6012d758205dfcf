"""What the ledger must show of one workflow, given how PostgreSQL says that it ended."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.chaos.book import Entry, Fact
from tests.chaos.expectations import Rule, Violation
from tests.chaos.rows import EventRow, Graph, StepRow, WorkflowRow

EXECUTE = "execute"
COMPENSATE = "compensate"


@dataclass(frozen=True)
class Case:
    """One workflow: its rows, and its lines of the ledger in their order."""

    row: WorkflowRow
    graph: Graph
    steps: Mapping[str, StepRow]
    events: Sequence[EventRow]
    entries: Sequence[Entry]
    keys_honoured: bool = True

    def wrong(self, rule: Rule, text: str) -> Violation:
        """Something is wrong with it."""
        return Violation(rule, text, self.row.id)

    def applied(self, step: str, action: str) -> list[int]:
        """Where in its lines this action of a step had its effect."""
        return [
            number
            for number, entry in enumerate(self.entries)
            if entry.applied and (entry.step, entry.action) == (step, action)
        ]


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
    for step in sorted({entry.step for entry in case.entries} - set(case.graph.after)):
        yield case.wrong(Rule.ORDER, f"{step} was called, and its definition has no such step")


def _completed(case: Case) -> Iterator[Violation]:
    for step in case.graph.after:
        done = len(case.applied(step, EXECUTE))
        if done == 0 or (done > 1 and case.keys_honoured):
            yield case.wrong(Rule.COMPLETED, f"completed, and {step} had its effect {done} times")
        undone = [
            entry
            for entry in case.entries
            if (entry.step, entry.action) == (step, COMPENSATE) and entry.fact is not Fact.NOT_DONE
        ]
        if undone:
            yield case.wrong(Rule.COMPLETED, f"completed, and {step} was undone")


def _rolled_back(case: Case) -> Iterator[Violation]:
    for step in sorted(case.graph.undoable):
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
    for step in sorted(case.graph.undoable):
        owed = bool(case.applied(step, EXECUTE)) and not case.applied(step, COMPENSATE)
        if owed and step not in failed and failed.isdisjoint(case.graph.descendants(step)):
            yield case.wrong(Rule.ERROR, f"{step} is not undone, and nothing holds it up")


def _by_key(case: Case) -> Iterator[Violation]:
    bodies: dict[str, set[str]] = defaultdict(set)
    effects: Counter[tuple[str, str]] = Counter()
    requests: Counter[tuple[str, int]] = Counter()
    for entry in case.entries:
        bodies[entry.key].add(entry.body_hash)
        requests[entry.key, entry.attempt] += 1
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
    done: set[str] = set()
    for entry in case.entries:
        if entry.action != EXECUTE:
            continue
        for before in case.graph.after.get(entry.step, ()):
            if before not in done:
                yield case.wrong(Rule.ORDER, f"{entry.step} was called before {before} was done")
        if entry.applied:
            done.add(entry.step)


def _data_flow(case: Case) -> Iterator[Violation]:
    marks = {one.step: one.mark for one in case.entries if one.mark and one.action == EXECUTE}
    inputs = {one.step: one.input_hash for one in case.entries if one.action == EXECUTE}
    for entry in case.entries:
        if entry.action == EXECUTE:
            wanted = {one: marks.get(one) for one in case.graph.after.get(entry.step, ())}
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
        for undone in case.applied(step, COMPENSATE):
            for later in sorted(case.graph.descendants(step) & case.graph.undoable):
                if not case.applied(later, EXECUTE):
                    continue
                if not any(one < undone for one in case.applied(later, COMPENSATE)):
                    text = f"{step} was undone before {later}, which came after it"
                    yield case.wrong(Rule.UNDO_ORDER, text)
