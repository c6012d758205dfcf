"""Trees of workflows, by the ledger and the histories.

A child's effects are those of its root: over the whole tree all is done or all is undone, in
order, and nothing goes on after the root has ended. What a parent's step says of its child and what
the child came to must agree.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.book import Entry
from tests.chaos.effects import COMPENSATE, EXECUTE, Case
from tests.chaos.expectations import Rule, Violation
from tests.chaos.graphs import plain

_FINAL = frozenset({"completed", "rolled_back"})
_UNDONE_STEP = frozenset({"failed", "compensated"})


@dataclass(frozen=True)
class Forest:
    """All workflows of a run, by their ids, and all lines of the ledger in their order."""

    cases: Mapping[str, Case]
    entries: Sequence[Entry]
    children: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, cases: Mapping[str, Case], entries: Sequence[Entry]) -> Forest:
        """Find out who is whose child."""
        children: dict[str, list[str]] = defaultdict(list)
        for one, case in cases.items():
            if case.row.parent is not None:
                children[case.row.parent].append(one)
        return cls(cases, entries, children)

    def below(self, workflow: str) -> Iterator[str]:
        """The workflows of a tree but for its top."""
        for one in self.children.get(workflow, ()):
            yield one
            yield from self.below(one)


def of_families(forest: Forest, clock_slack_s: float) -> Iterator[Violation]:
    """Everything about trees."""
    yield from _known(forest)
    trees: dict[str, set[str]] = {
        one: set(forest.below(one))
        for one, case in forest.cases.items()
        if case.row.parent is None and forest.children.get(one)
    }
    lines: dict[str, list[Entry]] = defaultdict(list)
    root_of = {one: root for root, tree in trees.items() for one in (root, *tree)}
    for entry in forest.entries:
        if entry.workflow in root_of:
            lines[root_of[entry.workflow]].append(entry)
    for root, tree in trees.items():
        case = forest.cases[root]
        for one in sorted(tree):
            yield from _agrees(forest, forest.cases[one])
        yield from _all_or_nothing(case, lines[root], forest)
        yield from _in_order(forest, root, lines[root])
        yield from _orphans(forest, case, tree, lines[root], clock_slack_s)


def _known(forest: Forest) -> Iterator[Violation]:
    """Every child is that of a step which runs one, and the only one."""
    seen: Counter[tuple[str, str]] = Counter()
    for case in forest.cases.values():
        row = case.row
        if row.parent is None:
            continue
        parent, step = forest.cases.get(row.parent), str(row.parent_step)
        if parent is None or plain(step) not in parent.graph.children:
            yield case.wrong(Rule.CHILD, f"is the child of {row.parent} {step}, which runs none")
        seen[row.parent, step] += 1
        if seen[row.parent, step] == 2:
            yield case.wrong(Rule.CHILD, f"{row.parent} {step} has started more than one")
    for case in forest.cases.values():
        for name, step in case.steps.items():
            runs_one = plain(name) in case.graph.children and step.items is None
            if runs_one and step.may_have_effect and not seen[case.row.id, name]:
                yield case.wrong(Rule.CHILD, f"{name} has started a child, and there is none")


def _agrees(forest: Forest, child: Case) -> Iterator[Violation]:
    parent = forest.cases.get(str(child.row.parent))
    step = parent.steps.get(str(child.row.parent_step)) if parent else None
    if parent is None or step is None:
        yield child.wrong(Rule.CHILD, f"{child.row.parent_step} of its parent has no row")
        return
    is_ = child.row.status
    if step.status == "succeeded" and is_ != "completed":
        yield child.wrong(Rule.CHILD, f"is {is_}, and its parent's step succeeded")
    if step.status in _UNDONE_STEP and is_ != "rolled_back":
        yield child.wrong(Rule.CHILD, f"is {is_}, and its parent's step is {step.status}")
    if parent.row.status == "rolled_back" and is_ != "rolled_back":
        yield child.wrong(Rule.CHILD, f"is {is_}, and its parent was rolled back")


def _all_or_nothing(root: Case, lines: Sequence[Entry], forest: Forest) -> Iterator[Violation]:
    """Of a tree that was rolled back everything is undone, whatever its rows say."""
    if root.row.status != "rolled_back" or not root.keys_honoured:
        return
    balance: Counter[tuple[str, str]] = Counter()
    for entry in lines:
        case = forest.cases[entry.workflow]
        if entry.applied and plain(entry.step) in case.graph.undoable:
            balance[entry.workflow, entry.step] += 1 if entry.action == EXECUTE else -1
    for (workflow, step), left in balance.items():
        if left:
            text = f"was rolled back, and {left} effects of {step} of {workflow} are left"
            yield root.wrong(Rule.TREE, text)


def _in_order(forest: Forest, root: str, lines: Sequence[Entry]) -> Iterator[Violation]:
    """What comes before a child is done before it and undone after it; what comes after, not."""
    at: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, entry in enumerate(lines):
        if entry.applied:
            at[entry.workflow, entry.action].append(number)
    for one in (root, *forest.below(root)):
        for child in forest.children.get(one, ()):
            case, step = forest.cases[one], plain(str(forest.cases[child].row.parent_step))
            tree = [child, *forest.below(child)]
            done, undone = (
                sorted(place for two in tree for place in at[two, action])
                for action in (EXECUTE, COMPENSATE)
            )
            for number, entry in enumerate(lines):
                if entry.workflow != one or not entry.applied:
                    continue
                before = step in case.graph.descendants(plain(entry.step))
                after = plain(entry.step) in case.graph.awaiting(step)
                forward = entry.action == EXECUTE
                early = after and forward and done and number < done[-1]
                late = before and not forward and undone and number < undone[-1]
                if early or late:
                    text = f"{entry.step} {entry.action} came before the child {child} was over"
                    yield case.wrong(Rule.TREE, text)


def _orphans(
    forest: Forest, root: Case, tree: set[str], lines: Sequence[Entry], slack_s: float
) -> Iterator[Violation]:
    """Nothing of a tree goes on after its root has ended."""
    ends = [one.time for one in root.events if one.kind == "workflow" and one.after in _FINAL]
    if root.row.status not in _FINAL or not ends:
        return
    over = ends[-1] + slack_s
    for one in sorted(tree):
        case = forest.cases[one]
        if case.row.status not in _FINAL:
            yield case.wrong(Rule.ORPHAN, f"is {case.row.status}, and its root has ended")
        moved = [event for event in case.events if event.kind != "late_answer"]
        if moved and moved[-1].time > over:
            text = f"moved {moved[-1].time - over:.2f} s after its root had ended"
            yield case.wrong(Rule.ORPHAN, text)
    for entry in lines:
        if entry.workflow in tree and entry.applied and entry.wall > over:
            case = forest.cases[entry.workflow]
            text = f"{entry.step} {entry.action} had its effect after its root had ended"
            yield case.wrong(Rule.ORPHAN, text)
