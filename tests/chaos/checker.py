"""Judges a run by the ledger and by PostgreSQL, and by nothing that a sidecar says.

`check` is pure. It returns what is wrong, and `Rule.VACUOUS` when too little happened for the
run to prove anything: such a run is invalid, which is a failure of its own kind.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from tests.chaos.book import Entry
from tests.chaos.effects import Case, of_effects
from tests.chaos.expectations import Cancel, Exit, Expectations, Rule, Start, Violation
from tests.chaos.families import Forest, of_families
from tests.chaos.graphs import Graph, plain
from tests.chaos.history import of_history
from tests.chaos.rates import of_rates
from tests.chaos.reference import of_reference
from tests.chaos.rows import ENDS, OPEN, Rows, WorkflowRow
from tests.chaos.timing import of_timing
from tests.chaos.turns import of_turns

_NOBODY: Mapping[str, int] = {}


def check(
    entries: Sequence[Entry],
    rows: Rows,
    starts: Sequence[Start],
    expectations: Expectations,
    *,
    cancels: Sequence[Cancel] = (),
    exits: Sequence[Exit] = (),
    seen: Mapping[str, int] = _NOBODY,
    before: Mapping[str, int] = _NOBODY,
    files: Mapping[str, int] = _NOBODY,
) -> list[Violation]:
    """Return all that is wrong with a run; `seen` is what the world has counted itself.

    What had happened `before` proves nothing for what was to be shown. `files` is how many each
    sidecar has open that still runs.
    """
    found = [
        *_no_loss(rows, starts),
        *_terminality(rows, starts, expectations),
        *_at_rest(rows),
        *_epochs(rows),
        *_cancels(rows, cancels),
        *_leaks(rows, expectations),
        *_open_files(files, expectations),
        *_strangers(entries, rows),
        *_exits(exits, expectations),
    ]
    cases = _cases(entries, rows, keys_honoured=expectations.keys_honoured)
    for case in cases.values():
        found += of_effects(case)
        found += of_history(case, expectations.clock_slack_s)
        found += of_reference(case)
    forest = Forest.of(cases, entries)
    found += of_families(forest, expectations.clock_slack_s)
    found += of_timing(forest)
    found += of_rates(entries, expectations.rates)
    found += of_turns(forest, rows.crowds, expectations.clock_slack_s)
    found += _vacuous(tally(entries, rows, starts, seen) - Counter(before), expectations)
    return found


def tally(
    entries: Sequence[Entry], rows: Rows, starts: Sequence[Start], seen: Mapping[str, int]
) -> Counter[str]:
    """Count what happened, by the names that `Expectations.at_least` uses."""
    counted = Counter(seen)
    counted.update(row.status for row in rows.workflows)
    counted.update(f"cause:{event.cause}" for event in rows.events)
    counted.update(event.kind for event in rows.events if event.kind == "late_answer")
    counted.update(entry.fact.value for entry in entries)
    counted.update(f"fault:{entry.fault}" for entry in entries if entry.fault is not None)
    counted.update(f"{row.definition}:{row.status}" for row in rows.workflows)
    counted["children"] = sum(row.parent is not None for row in rows.workflows)
    items = [step for step in rows.steps if step.step != plain(step.step)]
    counted["items"] = len(items)
    counted["skipped"] = sum(step.status == "skipped" for step in rows.steps)
    completed = {row.id for row in rows.workflows if row.status == "completed"}
    counted["tolerated"] = sum(
        step.status == "failed" and step.workflow in completed for step in rows.steps
    )
    counted["started"] = sum(one.workflow is not None for one in starts)
    counted["doubtful"] = sum(one.workflow is None for one in starts)
    counted["crowds"] = len(rows.crowds)
    counted["epochs"] = len({one.epoch for one in rows.leaders})
    return counted


def _cases(entries: Sequence[Entry], rows: Rows, *, keys_honoured: bool) -> Mapping[str, Case]:
    lines, steps, events = defaultdict(list), defaultdict(dict), defaultdict(list)
    for entry in entries:
        lines[entry.workflow].append(entry)
    for step in rows.steps:
        steps[step.workflow][step.step] = step
    for event in rows.events:
        events[event.workflow].append(event)
    cases: dict[str, Case] = {}
    given: dict[str, dict[str, str | None]] = defaultdict(dict)
    for row in _children_first(rows):
        graph = rows.graphs.get((row.definition, row.version), Graph({}, frozenset()))
        own = (row, graph, steps[row.id], events[row.id], lines[row.id])
        case = cases[row.id] = Case(*own, keys_honoured, given[row.id])
        if row.parent is not None and row.parent_step is not None and graph.gives is not None:
            given[row.parent][row.parent_step] = case.marks.get(graph.gives)
    return cases


def _children_first(rows: Rows) -> Sequence[WorkflowRow]:
    parents = {row.id: row.parent for row in rows.workflows}

    def depth(row: WorkflowRow) -> int:
        above, found = row.parent, 0
        while above is not None:
            above, found = parents.get(above), found + 1
        return found

    return sorted(rows.workflows, key=depth, reverse=True)


def _no_loss(rows: Rows, starts: Sequence[Start]) -> Iterator[Violation]:
    by_id = {row.id: row for row in rows.workflows}
    by_key: dict[str | None, list[str]] = defaultdict(list)
    for row in rows.workflows:
        by_key[row.start_key].append(row.id)
    for key, ids in by_key.items():
        if key is not None and len(ids) > 1:
            yield Violation(Rule.NO_LOSS, f"the start key {key} has started {len(ids)} workflows")
        if key is not None and rows.start_keys.get(key) not in ids:
            yield Violation(Rule.NO_LOSS, f"the start key {key} is kept for another workflow")
    for start in starts:
        if start.workflow is None:
            continue
        row = by_id.get(start.workflow)
        if row is None:
            yield Violation(Rule.NO_LOSS, "was accepted, and does not exist", start.workflow)
        elif (row.start_key, row.definition) != (start.key, start.definition):
            text = f"was accepted as {start.definition} {start.key}, and is another one"
            yield Violation(Rule.NO_LOSS, text, start.workflow)
    asked = {one.key for one in starts}
    roots = {str(row.start_key) for row in rows.workflows if row.parent is None}
    for key in sorted(roots - asked):
        yield Violation(Rule.NO_LOSS, f"nobody asked for what the start key {key} started")


def _terminality(
    rows: Rows, starts: Sequence[Start], expectations: Expectations
) -> Iterator[Violation]:
    ends = {start.key: start.ends for start in starts}
    for row in rows.workflows:
        if row.status not in ENDS:
            yield Violation(Rule.TERMINALITY, f"is {row.status} still", row.id)
            continue
        legal = ends.get(str(row.start_key), ENDS) | expectations.also_legal
        legal |= expectations.also_legal_for.get(row.definition, frozenset())
        legal |= expectations.also_legal_to.get(row.id, frozenset())
        if row.status not in legal:
            text = f"ended as {row.status} ({row.reason}), and legal is {sorted(legal)}"
            yield Violation(Rule.TERMINALITY, text, row.id)


def _at_rest(rows: Rows) -> Iterator[Violation]:
    for step in rows.steps:
        if step.leased or step.status in OPEN:
            held = "leased" if step.leased else "open"
            text = f"{step.step} is {step.status} and {held}"
            yield Violation(Rule.AT_REST, text, step.workflow)


def _epochs(rows: Rows) -> Iterator[Violation]:
    holders: dict[int, str] = {}
    last = 0
    for sample in rows.leaders:
        if sample.epoch < last:
            yield Violation(Rule.EPOCHS, f"epoch {sample.epoch} came after {last}")
        last = max(last, sample.epoch)
        if holders.setdefault(sample.epoch, sample.holder) != sample.holder:
            yield Violation(Rule.EPOCHS, f"epoch {sample.epoch} had two holders")


def _cancels(rows: Rows, cancels: Sequence[Cancel]) -> Iterator[Violation]:
    by_id = {row.id: row for row in rows.workflows}
    may_have_taken = {one.workflow for one in cancels if one.status in (202, None)}
    for cancel in cancels:
        row = by_id.get(cancel.workflow)
        if row is None:
            text = "was cancelled, and does not exist"
            yield Violation(Rule.CANCEL, text, cancel.workflow)
        elif cancel.status not in (202, 409, None):
            yield Violation(Rule.CANCEL, f"its cancel was answered {cancel.status}", row.id)
        elif cancel.status == 202 and row.reason is None:
            yield Violation(Rule.CANCEL, f"its cancel was accepted, and it is {row.status}", row.id)
        elif row.reason == "cancelled" and row.id not in may_have_taken:
            yield Violation(Rule.CANCEL, "its cancel was refused, and done", row.id)


def _leaks(rows: Rows, expectations: Expectations) -> Iterator[Violation]:
    leaks = rows.leaks
    if leaks.advisory_locks > expectations.advisory_locks:
        yield Violation(Rule.LEAK, f"{leaks.advisory_locks} advisory locks are held")
    if leaks.stale_transactions:
        yield Violation(Rule.LEAK, f"{leaks.stale_transactions} transactions are idle")
    if leaks.prepared:
        yield Violation(Rule.LEAK, f"{leaks.prepared} transactions are prepared")
    if leaks.letters:
        yield Violation(Rule.LEAK, f"{leaks.letters} letters were never brought")
    if leaks.places:
        yield Violation(Rule.LEAK, f"{leaks.places} places are kept by who is not under way")


def _open_files(files: Mapping[str, int], expectations: Expectations) -> Iterator[Violation]:
    for sidecar, number in files.items():
        if number > expectations.open_files:
            yield Violation(Rule.LEAK, f"{sidecar} has {number} files open")


def _strangers(entries: Sequence[Entry], rows: Rows) -> Iterator[Violation]:
    known = {row.id for row in rows.workflows}
    for workflow in sorted({entry.workflow for entry in entries} - known):
        yield Violation(Rule.NO_LOSS, "its services were called, and it does not exist", workflow)


def _exits(exits: Sequence[Exit], expectations: Expectations) -> Iterator[Violation]:
    for one in exits:
        if one.status not in expectations.exits:
            yield Violation(Rule.EXIT, f"{one.sidecar} ended by itself with status {one.status}")


def _vacuous(counted: Mapping[str, int], expectations: Expectations) -> Iterator[Violation]:
    for name, least in expectations.at_least.items():
        if counted.get(name, 0) < least:
            text = f"{name} happened {counted.get(name, 0)} times, at least {least} are needed"
            yield Violation(Rule.VACUOUS, text)
