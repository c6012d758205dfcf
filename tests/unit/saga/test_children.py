"""Families of workflows: parents and children end together, whatever is brought late or twice."""

from __future__ import annotations

import random
import uuid
from collections import Counter

import pytest
from msgspec.structs import replace

from sidecar.errors import IllegalTransition
from sidecar.saga.changes import Changes, ChildStart, Letter, Verdict
from sidecar.saga.children import MAX_DEPTH, child_id
from sidecar.saga.definition import (
    Child,
    Definition,
    FanOut,
    JsonText,
    StepDefinition,
    Template,
)
from sidecar.saga.events import (
    Answered,
    CancelRequested,
    ChildTold,
    Event,
    LeaseEnded,
    ParentTurnedBack,
    TerminateRequested,
)
from sidecar.saga.invariants import violations
from sidecar.saga.machine import NewWorkflow, advance, child_of, start
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.states import (
    CLAIMABLE,
    WORKFLOW_ENDS,
    Action,
    Reason,
    StepStatus,
    WorkflowStatus,
)
from sidecar.saga.workflow import StepKey, Workflow, WorkflowId
from tests.unit.saga.worlds import EPOCH, definition, key_of, render, step

ROOT = WorkflowId("01890000-0000-7000-8000-000000000001")
PAY = StepKey("pay")


def runs(name: str, *after: str, child: str = "child", **more: object) -> StepDefinition:
    """A step that runs another definition."""
    fields: dict[str, object] = {"child": Child(child, 1), **more}
    return StepDefinition(name, after=after, **fields)  # type: ignore[arg-type]


class Family:
    """A root and all below it; letters wait in a bag until they are brought."""

    def __init__(self, **definitions: Definition) -> None:
        self.definitions = definitions
        self.now = EPOCH
        self.members: dict[WorkflowId, Workflow] = {}
        self.letters: list[Letter] = []
        self._begin("root", NewWorkflow(ROOT, JsonText("{}")))

    def _begin(self, name: str, new: NewWorkflow) -> None:
        begun = start(self.definitions[name], new, now=self.now, render=render)
        self._take(name, begun)

    def _take(self, name: str, changes: Changes) -> None:
        workflow = changes.workflow
        self.members[workflow.id] = workflow
        assert violations(self.definitions[name], workflow) == []
        for child in changes.children:
            assert child.id not in self.members, "a child was started twice"
            self._begin_child(child)
        self.letters += changes.letters

    def _begin_child(self, child: ChildStart) -> None:
        self._begin(child.definition.name, child_of(child))

    def name_of(self, workflow: Workflow) -> str:
        """Which of the definitions a member runs."""
        return "root" if workflow.id == ROOT else workflow.definition.name

    def apply(self, known: WorkflowId, event: Event) -> Verdict:
        """Let something happen to one member."""
        workflow = self.members[known]
        name = self.name_of(workflow)
        changes = advance(self.definitions[name], workflow, event, now=self.now, render=render)
        self._take(name, changes)
        return changes.verdict

    def bring(self, letter: Letter) -> None:
        """Bring a letter; what is not legal any more is dropped, as a store does."""
        try:
            self.apply(letter.to, letter.event)
        except IllegalTransition:
            return

    def bring_all(self) -> None:
        """Bring letters until there are none."""
        while self.letters:
            self.bring(self.letters.pop(0))

    def claim(self, known: WorkflowId, key: StepKey) -> None:
        """Claim a step, as a store would."""
        workflow = self.members[known]
        found = workflow.steps[key]
        self.now = max(self.now, found.due_at or self.now)
        run = replace(
            found.run,
            attempt=found.run.attempt + 1,
            started_at=found.run.started_at or self.now,
            claimed_at=self.now,
        )
        if found.action is Action.COMPENSATE:
            held = replace(found, compensate=run, lease_until=self.now)
        else:
            held = replace(found, execute=run, lease_until=self.now, status=StepStatus.RUNNING)
        self.members[known] = replace(workflow, steps={**workflow.steps, key: held})

    def answer(self, known: WorkflowId, name: str, kind: OutcomeKind = OutcomeKind.DONE) -> None:
        """Claim and answer a step of one member."""
        key = key_of(name)
        self.claim(known, key)
        found = self.members[known].steps[key]
        output = JsonText('{"paid":1}') if kind is OutcomeKind.DONE else None
        outcome = Outcome(kind, output)
        self.apply(known, Answered(key, found.action, found.run.attempt, outcome))

    def status(self, known: WorkflowId = ROOT) -> WorkflowStatus:
        """How a member stands."""
        return self.members[known].status


CHILD = definition(step("a"), output=Template(JsonText("a"), constant=False))


def family(*steps: StepDefinition, child: Definition = CHILD) -> Family:
    """A root of these steps, and one kind of child."""
    named = Definition("child", 1, child.steps, output=child.output)
    return Family(root=definition(*steps), child=named)


def test_a_child_is_a_workflow_of_its_own_with_the_parents_end() -> None:
    house = family(runs("pay"), step("ship", "pay"))
    child = child_id(ROOT, PAY)
    parent = house.members[child].parent
    assert parent is not None
    assert (parent.workflow, parent.step, parent.root, parent.depth) == (ROOT, PAY, ROOT, 1)
    house.answer(child, "a")
    assert house.status(child) is WorkflowStatus.COMPLETED
    house.bring_all()
    paid = house.members[ROOT].steps[PAY]
    assert (paid.status, paid.output) == (StepStatus.SUCCEEDED, '{"paid":1}')
    house.answer(ROOT, "ship")
    assert house.status() is WorkflowStatus.COMPLETED


def test_a_child_that_completed_is_undone_with_its_parent() -> None:
    house = family(runs("pay"), step("ship", "pay"))
    child = child_id(ROOT, PAY)
    house.answer(child, "a")
    house.bring_all()
    house.answer(ROOT, "ship", OutcomeKind.REFUSED)
    assert house.members[ROOT].steps[PAY].status is StepStatus.COMPENSATING
    house.bring_all()
    assert house.status(child) is WorkflowStatus.ROLLING_BACK
    house.answer(child, "a")
    assert house.status(child) is WorkflowStatus.ROLLED_BACK
    house.bring_all()
    assert house.status() is WorkflowStatus.ROLLED_BACK


def test_a_child_that_rolled_back_turns_its_parent_back() -> None:
    house = family(step("reserve"), runs("pay", "reserve"))
    house.answer(ROOT, "reserve")
    house.answer(child_id(ROOT, PAY), "a", OutcomeKind.REFUSED)
    house.bring_all()
    assert house.members[ROOT].steps[PAY].status is StepStatus.FAILED
    assert house.status() is WorkflowStatus.ROLLING_BACK
    house.answer(ROOT, "reserve")
    assert house.status() is WorkflowStatus.ROLLED_BACK


@pytest.mark.fault(27)
def test_a_cancel_goes_down_and_its_end_comes_up() -> None:
    house = family(runs("pay"))
    child = child_id(ROOT, PAY)
    house.apply(ROOT, CancelRequested())
    assert house.status() is WorkflowStatus.ROLLING_BACK, "it waits for its child"
    assert house.status(child) is WorkflowStatus.IN_PROGRESS
    house.bring_all()
    assert house.status(child) is WorkflowStatus.ROLLED_BACK
    assert house.status() is WorkflowStatus.ROLLED_BACK


def test_a_child_past_its_pivot_is_kept_and_its_parent_says_so() -> None:
    pivoted = definition(step("a", pivot=True), step("b", "a"))
    house = family(runs("pay"), child=pivoted)
    child = child_id(ROOT, PAY)
    house.answer(child, "a")
    house.apply(ROOT, CancelRequested())
    house.bring_all()
    assert house.status(child) is WorkflowStatus.IN_PROGRESS
    house.answer(child, "b")
    house.bring_all()
    assert house.status(child) is WorkflowStatus.COMPLETED
    assert house.status() is WorkflowStatus.ERROR
    assert "past its pivot" in str(house.members[ROOT].steps[PAY].compensation_error)


def test_only_its_parent_turns_a_completed_child_back() -> None:
    house = family(runs("pay"), step("ship", "pay"))
    child = child_id(ROOT, PAY)
    house.answer(child, "a")
    with pytest.raises(IllegalTransition):
        house.apply(child, CancelRequested())
    house.apply(child, ParentTurnedBack(Reason.FAILED))
    assert house.status(child) is WorkflowStatus.ROLLING_BACK


def test_what_a_child_tells_twice_is_told_once() -> None:
    house = family(runs("pay"), step("ship", "pay"))
    house.answer(child_id(ROOT, PAY), "a")
    (letter,) = house.letters
    house.bring(letter)
    before = house.members[ROOT]
    assert house.apply(ROOT, letter.event) is Verdict.DUPLICATE
    assert house.members[ROOT] == before


def test_a_child_in_error_is_seen_at_its_parent() -> None:
    house = family(runs("pay"))
    told = ChildTold(PAY, WorkflowStatus.ERROR, error=JsonText('{"code":"x","message":"stuck"}'))
    house.apply(ROOT, told)
    paying = house.members[ROOT].steps[PAY]
    assert paying.status is StepStatus.WAITING
    assert "stuck" in str(paying.error)


class Wants:
    """A schema that wants one body and no other."""

    def __init__(self, body: str) -> None:
        self._body = body

    def problems(self, body: JsonText) -> list[tuple[str, str]]:
        return [] if body == self._body else [("", f"must be {self._body}")]


@pytest.mark.parametrize(("wanted", "fits"), [('{"paid":1}', True), ('{"paid":2}', False)])
@pytest.mark.parametrize("items", [False, True])
def test_what_a_child_gives_must_fit_the_schema_of_its_step(
    wanted: str, fits: bool, items: bool
) -> None:
    fan_out = FanOut(Template(JsonText("[7]"), constant=True)) if items else None
    house = family(runs("pay", output_check=Wants(wanted), fan_out=fan_out), step("ship", "pay"))
    key = StepKey("pay", 0) if items else PAY
    child = child_id(ROOT, key)
    house.answer(child, "a")
    house.bring_all()
    paid = house.members[ROOT].steps[key]
    assert house.status() is (WorkflowStatus.IN_PROGRESS if fits else WorkflowStatus.ROLLING_BACK)
    if fits:
        assert paid.status is StepStatus.SUCCEEDED
        return
    assert "the output must be" in (paid.error or "")
    assert house.status(child) is WorkflowStatus.ROLLING_BACK, "what it did is undone"
    house.answer(child, "a")
    house.bring_all()
    assert house.status() is WorkflowStatus.ROLLED_BACK


@pytest.mark.parametrize("fits", [True, False])
def test_what_a_child_is_given_must_fit_its_schema(fits: bool) -> None:
    wants = Wants("{}" if fits else "[]")
    named = Definition("child", 1, CHILD.steps, output=CHILD.output, input_check=wants)
    house = Family(root=definition(runs("pay")), child=named)
    house.bring_all()
    if fits:
        assert house.status() is WorkflowStatus.IN_PROGRESS
        return
    child = house.members[child_id(ROOT, PAY)]
    assert child.status is WorkflowStatus.ROLLED_BACK
    assert child.steps[StepKey("a")].status is StepStatus.CANCELLED
    assert "the input must be []" in (house.members[ROOT].error or "")
    assert house.status() is WorkflowStatus.ROLLED_BACK


def test_terminating_a_parent_terminates_its_children() -> None:
    house = family(runs("pay"))
    house.apply(ROOT, TerminateRequested("enough"))
    house.bring_all()
    assert house.status(child_id(ROOT, PAY)) is WorkflowStatus.TERMINATED


def test_generations_are_limited() -> None:
    endless = definition(runs("again", child="child"))
    house = family(runs("pay"), child=endless)
    assert len(house.members) == MAX_DEPTH + 1
    house.bring_all()
    assert house.status() is WorkflowStatus.ROLLED_BACK


def test_a_child_has_an_id_of_its_own_that_sorts_with_its_parent() -> None:
    made = {child_id(ROOT, StepKey(name, at)) for name in ("a", "b") for at in (-1, 0, 1)}
    assert len(made) == 6
    for one in made:
        assert uuid.UUID(one).version == 7
        assert one[:13] == ROOT[:13]


# -- whatever happens -------------------------------------------------------------------------


def _random_family(draw: random.Random) -> Family:
    fan = FanOut(
        Template(JsonText("list"), constant=False), draw.choice((1, 3)), draw.choice((0, 1))
    )
    more = {"fan_out": fan, "input": Template(JsonText("each"), constant=False)}
    kinds = [runs("s1", "s0"), runs("s1", "s0", **more), runs("s1", "s0", optional=True)]
    root = definition(step("s0"), draw.choice(kinds), runs("s2", "s0"), step("s3", "s1", "s2"))
    inner = [step("a"), step("b", "a")]
    if draw.random() < 0.4:
        inner = [step("a"), runs("b", "a", child="grandchild")]
    child = Definition("child", 1, tuple(inner))
    return Family(root=root, child=child, grandchild=Definition("grandchild", 1, (step("x"),)))


def _one_event(draw: random.Random, house: Family) -> None:
    if house.letters and draw.random() < 0.3:
        letter = draw.choice(house.letters)
        if draw.random() < 0.8:
            house.letters.remove(letter)  # else it is brought again
        house.bring(letter)
        return
    if draw.random() < 0.01:
        known = draw.choice(list(house.members))
        try:
            house.apply(known, CancelRequested())
        except IllegalTransition:
            return
        return
    ready = [
        (known, key)
        for known, workflow in house.members.items()
        for key, one in workflow.steps.items()
        if one.leased or (one.status in CLAIMABLE and one.due_at is not None)
    ]
    if not ready:
        return
    known, key = draw.choice(ready)
    if not house.members[known].steps[key].leased:
        house.claim(known, key)
        return
    one = house.members[known].steps[key]
    executes = one.action is Action.EXECUTE
    kinds = [OutcomeKind.DONE] * 8 + [OutcomeKind.UNKNOWN, OutcomeKind.REFUSED] * executes
    kind = draw.choice(kinds)
    if executes and draw.random() < 0.05:
        house.apply(known, LeaseEnded(key, one.action, one.run.attempt))
    else:
        house.apply(known, Answered(key, one.action, one.run.attempt, Outcome(kind)))


@pytest.mark.fault(27)
def test_families_end_together() -> None:
    ends: Counter[str] = Counter()
    for seed in range(600):
        draw = random.Random(seed)
        house = _random_family(draw)
        for _ in range(1_500):
            if house.status() in WORKFLOW_ENDS and not house.letters:
                break
            _one_event(draw, house)
        root = house.members[ROOT]
        assert root.status in WORKFLOW_ENDS, f"seed {seed}: {root.status}"
        ends[root.status] += 1
        for one in house.members.values():
            if root.status is WorkflowStatus.ROLLED_BACK:
                assert one.status is WorkflowStatus.ROLLED_BACK, f"seed {seed}: {one.id}"
            else:
                assert one.status in WORKFLOW_ENDS, f"seed {seed}: {one.id}"
    assert min(ends["completed"], ends["rolled_back"]) > 50, ends
