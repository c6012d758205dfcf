"""What must hold when all is at rest: the ledger of the services against the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sidecar.adapters.memory.tables import MemoryTables
from sidecar.adapters.services.memory import MemoryService
from sidecar.saga.definition import Definition, Join, Order
from sidecar.saga.invariants import misplaced
from sidecar.saga.states import (
    OPEN,
    WAIT_RETURNS,
    WORKFLOW_ENDS,
    Action,
    StepStatus,
    WorkflowStatus,
)
from sidecar.saga.turns import InLine, Standing, TurnKey, turn_of
from sidecar.saga.workflow import DefinitionRef, Step, StepKey, Workflow, WorkflowId
from tests.simulation.workload import Answers, Fate


def at_rest(tables: MemoryTables) -> bool:
    """Whether nothing is under way any more."""
    return not any(unrest(tables))


def unrest(tables: MemoryTables) -> Iterator[str]:
    """Say what has not come to an end."""
    stuck = _stuck_children(tables)
    if tables.letters:
        yield f"letters that nobody has brought: {list(tables.letters)}"
    for row in tables.rows.values():
        workflow = row.workflow
        steps = {
            str(key): f"{step.status} due {step.due_at} lease {step.lease_until}"
            for key, step in workflow.steps.items()
            if step.status in OPEN and not _waits_for_a_person(workflow, step)
        }
        if workflow.id in stuck or _waits_in_vain(tables, workflow, stuck):
            continue  # what it waits for needs a person
        if workflow.status not in WAIT_RETURNS or steps:
            yield f"{workflow.id}: never ended: {workflow.status}, {steps}"


def _waits_for_a_person(workflow: Workflow, step: Step) -> bool:
    """Whether a step that is open past a pivot goes on only when somebody mends the workflow."""
    waits = step.status is StepStatus.WAITING and not step.leased and step.due_at is None
    items = step.fan is not None and step.fan.open == 0
    return workflow.status is WorkflowStatus.ERROR and waits and items


def _waits_in_vain(tables: MemoryTables, workflow: Workflow, stuck: set[WorkflowId]) -> bool:
    """Whether a workflow waits for its turn behind some that need a person."""
    turn = turn_of(workflow)
    if workflow.status is not WorkflowStatus.QUEUED or turn is None or workflow.turn is None:
        return False
    holders = [one.who.workflow for one in tables.placed(turn)]
    needy = [
        one
        for one in holders
        if one in stuck or tables.rows[one].workflow.status is WorkflowStatus.ERROR
    ]
    return len(needy) == len(holders) == workflow.turn.limit


def _stuck_children(tables: MemoryTables) -> set[WorkflowId]:
    """The workflows that wait for a child, or for children of one, that needs a person."""
    stuck: set[WorkflowId] = set()
    for row in tables.rows.values():
        parent = row.workflow.parent
        needy = row.workflow.status in (WorkflowStatus.ERROR, WorkflowStatus.TERMINATED)
        while needy and parent is not None and parent.workflow not in stuck:
            stuck.add(parent.workflow)
            parent = tables.rows[parent.workflow].workflow.parent
    return stuck


class Verdict:
    """Holds the ledger of the services against what the tables say happened."""

    def __init__(
        self,
        tables: MemoryTables,
        definition: Callable[[DefinitionRef], Definition],
        service: MemoryService,
        answers: Answers,
    ) -> None:
        self._tables = tables
        self._definition = definition
        self._service = service
        self._answers = answers

    def wrong(self) -> Iterator[str]:
        """Say everything that is wrong at the end."""
        for name, entry in self._service.ledger.items():
            if entry.effects > 1:
                yield f"{name}: had its effect {entry.effects} times"
        stuck = _stuck_children(self._tables)
        yield from self._families(stuck)
        yield from self._places()
        for row in self._tables.rows.values():
            workflow = row.workflow
            definition = self._definition(workflow.definition)
            effects = self._effects(workflow)
            match workflow.status:
                case WorkflowStatus.COMPLETED:
                    found = self._completed(workflow, effects)
                case WorkflowStatus.ROLLED_BACK:
                    found = self._rolled_back(definition, effects)
                case WorkflowStatus.TERMINATED:
                    found = self._handed_over(definition, workflow, effects)
                case _ if workflow.id in stuck or _waits_in_vain(self._tables, workflow, stuck):
                    found = iter(())  # so is its child
                case _:
                    found = self._broken(definition, workflow)
            yield from (f"{workflow.id}: {text}" for text in found)
            order = _order(definition, workflow, effects)
            yield from (f"{workflow.id}: {text}" for text in order)

    def _effects(self, workflow: Workflow) -> list[tuple[StepKey, Action]]:
        """What was done for a workflow, in its order; of what it took over, by the old keys."""
        owners = {key: step.origin for key, step in workflow.steps.items() if step.origin}
        return [
            (key, action)
            for owner, key, action in self._service.effects
            if owner == owners.get(key, workflow.id)
        ]

    def _places(self) -> Iterator[str]:
        """Whoever has a place is under way, nobody else has one, and none is free for long."""
        for turn in self._tables.turns:
            for one in self._tables.placed(turn):
                status = self._tables.rows[one.who.workflow].workflow.status
                if status in WORKFLOW_ENDS or status is WorkflowStatus.QUEUED:
                    yield f"{one.who}: {status}, and has a place of {turn.key}"
            waiting = self._tables.waiting_for(turn)
            if waiting and len(self._tables.placed(turn)) < waiting[0].limit:
                yield f"{waiting[0].who} waits, although a place of {turn.key} is free"
        for row in self._tables.rows.values():
            definition = self._definition(row.workflow.definition)
            wrong = misplaced(definition, row.workflow, self._standing)
            yield from (f"{row.workflow.id}: {text}" for text in wrong)

    def _standing(self, turn: TurnKey, who: InLine) -> Standing:
        stand = self._tables.turns.get(turn, {}).get(who)
        return Standing.NONE if stand is None else stand.standing

    def _families(self, stuck: set[WorkflowId]) -> Iterator[str]:
        """Children end as their parents do."""
        rows = self._tables.rows
        for row in rows.values():
            child = row.workflow
            if child.parent is None or child.parent.workflow in stuck:
                continue
            parent = rows[child.parent.workflow].workflow
            ended = (WorkflowStatus.ROLLED_BACK, WorkflowStatus.TERMINATED)
            if parent.status is WorkflowStatus.ROLLED_BACK and child.status not in ended:
                yield f"{parent.id} was rolled back, but its child {child.id} is {child.status}"

    def _completed(
        self, workflow: Workflow, effects: list[tuple[StepKey, Action]]
    ) -> Iterator[str]:
        for key, step in workflow.steps.items():
            if not step.service or step.fan is not None:
                continue
            done = effects.count((key, Action.EXECUTE))
            if step.status is StepStatus.SUCCEEDED and done != 1:
                yield f"completed, but {key} did not have its effect once"
            if step.status is StepStatus.SKIPPED and done:
                yield f"completed, and yet {key}, which was skipped, had an effect"
            if (key, Action.COMPENSATE) in effects:
                yield f"completed, and yet {key} was undone"

    def _rolled_back(
        self, definition: Definition, effects: list[tuple[StepKey, Action]]
    ) -> Iterator[str]:
        for number, (key, action) in enumerate(effects):
            if action is not Action.EXECUTE or definition.by_name[key.step].no_effect:
                continue
            if (key, Action.COMPENSATE) not in effects[number:]:
                yield f"rolled back, but {key} was done and not undone after it"

    def _handed_over(
        self, definition: Definition, workflow: Workflow, effects: list[tuple[StepKey, Action]]
    ) -> Iterator[str]:
        """A person wanted no more of it, but what its rerun took over must be all there is."""
        if workflow.taken_over_by is None:
            return
        kept = {
            key
            for row in self._tables.rows.values()
            for key, step in row.workflow.steps.items()
            if step.origin == workflow.id
        }
        for key, action in effects:
            owed = action is Action.EXECUTE and not definition.by_name[key.step].no_effect
            if owed and key not in kept and (key, Action.COMPENSATE) not in effects:
                yield f"taken over, but not {key}, which was done and not undone"

    def _broken(self, definition: Definition, workflow: Workflow) -> Iterator[str]:
        """`error` is right only where something was made so that it cannot be undone or done."""
        for key, step in workflow.steps.items():
            fate = self._answers.fate(step.origin or workflow.id, key)
            hopeless = definition.by_name[key.step].compensation is None
            if step.fan is not None:
                continue
            if step.status is StepStatus.COMPENSATION_FAILED and (fate is Fate.CURSED or hopeless):
                return
            past = definition.past_pivot(key.step) or definition.by_name[key.step].pivot
            if step.status is StepStatus.FAILED and past:
                return
        yield f"{workflow.status} without a reason"


def _order(
    definition: Definition, workflow: Workflow, effects: list[tuple[StepKey, Action]]
) -> Iterator[str]:
    """What came before what, where the definition wants it so."""
    first: dict[tuple[str, Action], int] = {}
    last: dict[tuple[str, Action], int] = {}
    for number, (key, action) in enumerate(effects):
        first.setdefault((key.step, action), number)
        last[key.step, action] = number
    loose = any(step.join is Join.ANY for step in definition.steps)
    for step in definition.steps:
        undone = first.get((step.name, Action.COMPENSATE))
        row = workflow.steps.get(StepKey(step.name))
        plain = row is not None and row.service and row.fan is None and not step.optional
        sure = plain and row is not None and row.status is not StepStatus.SKIPPED and not loose
        for name in definition.descendants[step.name]:
            later = last.get((name, Action.COMPENSATE))
            ordered = definition.order is not Order.PARALLEL
            if ordered and undone is not None and later is not None and undone < later:
                yield f"{step.name} was undone before {name}"
            after = first.get((name, Action.EXECUTE))
            done = first.get((step.name, Action.EXECUTE))
            if sure and after is not None and (done is None or after < done):
                yield f"{name} was done before {step.name}"
