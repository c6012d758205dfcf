"""What a batch has decided to write, before it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from sidecar.adapters.postgres import records
from sidecar.ports.store import Batch, LetterId, Start
from sidecar.saga.changes import Changes
from sidecar.saga.definition import Definition
from sidecar.saga.states import CLAIMABLE, Action, StepStatus
from sidecar.saga.turns import InLine, Stand, Standing
from sidecar.saga.workflow import Step, StepKey, Workflow, WorkflowId

Key = tuple[WorkflowId, StepKey]

_BODIES = (
    "input",
    "output",
    "error",
    "compensation_input",
    "compensation_output",
    "compensation_error",
)


@dataclass(slots=True)
class Written:
    """What the batch has decided to write: workflows, their steps, their history.

    `after` holds every workflow as it will be; of those that existed, `before` has the state that
    was decided on. `new` are the others, `fresh` the steps that have no row yet,
    `priorities` those of them that have one, `claims` the steps that the batch holds from now on.
    """

    after: dict[WorkflowId, Workflow] = field(default_factory=dict)
    before: dict[WorkflowId, Workflow] = field(default_factory=dict)
    new: dict[WorkflowId, records.NewRow] = field(default_factory=dict)
    steps: dict[Key, Step] = field(default_factory=dict)
    fresh: set[Key] = field(default_factory=set)
    priorities: dict[Key, int] = field(default_factory=dict)
    succeeded: set[Key] = field(default_factory=set)
    events: list[records.EventRecord] = field(default_factory=list)
    claims: set[Key] = field(default_factory=set)
    items: list[dict[str, Any]] = field(default_factory=list)
    kept: dict[tuple[WorkflowId, int], dict[str, Any]] = field(default_factory=dict)
    unkept: list[dict[str, Any]] = field(default_factory=list)
    children: list[Changes] = field(default_factory=list)
    letters: list[dict[str, Any]] = field(default_factory=list)
    brought: list[dict[str, Any]] = field(default_factory=list)
    stands: dict[InLine, Stand] = field(default_factory=dict)

    def begin(self, start: Start, changes: Changes, *, quick: bool) -> None:
        """Keep a new workflow; `quick` if what speaks against it is still to be looked for."""
        self.new[changes.workflow.id] = records.NewRow(
            renders=start.definition.renders,
            central=start.definition.central,
            input_hash=start.input_hash,
            reserve=quick and start.start_key is not None,
            checks=quick,
            latest=quick and start.latest,
            priority=start.definition.priority,
        )
        self._add(changes, (), start.definition)

    def begin_child(self, changes: Changes, definition: Definition) -> None:
        """Keep a workflow that another one has started."""
        self.new[changes.workflow.id] = records.NewRow(
            renders=definition.renders,
            central=definition.central,
            input_hash="",
            reserve=False,
            checks=False,
            latest=False,
            priority=definition.priority,
        )
        self.children.append(changes)
        self._add(changes, (), definition)

    def brings(self, letter: LetterId) -> None:
        """Forget a letter, whatever came of it."""
        self.brought.append(records.letter_id_record(letter))

    def add(self, changes: Changes, before: Workflow, definition: Definition) -> None:
        """Keep the result of one decision on `before`."""
        self.before.setdefault(before.id, before)
        self._add(changes, before.steps, definition)

    def _add(
        self,
        changes: Changes,
        before: Mapping[StepKey, Step] | tuple[()],
        definition: Definition,
    ) -> None:
        workflow = changes.workflow
        known = workflow.id
        self.after[known] = workflow
        for step in changes.steps:
            self._keep((known, step.key), step, before, definition)
        for event in changes.events:
            self.events.append(records.event_record(known, event))
            if event.step is not None and event.after == StepStatus.SUCCEEDED:
                self.succeeded.add((known, StepKey(event.step, event.index)))

        for new in changes.items:
            self.items.append(records.items_record(known, new))
        # Only where somebody stands in the end counts: one statement does not see what it writes
        # itself, and could not take away the row of one who came and went with this batch.
        self.stands |= {stand.who: stand for stand in changes.turns}
        self.letters += [records.letter_record(workflow, letter) for letter in changes.letters]
        for signal in changes.kept:
            self.kept[known, signal.number] = records.signal_record(known, signal)
        for number in changes.taken:
            if self.kept.pop((known, number), None) is None:
                self.unkept.append({"workflow_id": known, "number": number})

    def _keep(
        self,
        key: Key,
        step: Step,
        before: Mapping[StepKey, Step] | tuple[()],
        definition: Definition,
    ) -> None:
        """Keep a step as it will be."""
        earlier = self.steps.get(key)
        if earlier is not None:
            step = _with_bodies_of(earlier, step)
        elif step.key not in before:
            self.fresh.add(key)
            if step.key.step in definition.priorities:
                self.priorities[key] = definition.priorities[step.key.step]
        self.steps[key] = step

    def claim_next(self, batch: Batch, changes: Changes, now: datetime) -> None:
        """Claim one step that a transition queued for the batch's own service.

        To be called once all decisions are made: what one of them queued, a later one may
        have taken away. The database sets the lease; the one here is only a sign of it.
        """
        workflow = self.after[changes.workflow.id]
        if workflow.paused:
            return
        for queued in changes.queued:
            key = (workflow.id, queued.key)
            step = self.steps.get(key)
            if step is None:  # it is rung for, but not written
                continue
            mine = step.service == batch.service and step.status in CLAIMABLE
            if not mine or step.leased or step.due_at is None or step.due_at > now:
                continue
            run = step.run
            run = replace(
                run, attempt=run.attempt + 1, started_at=run.started_at or now, claimed_at=now
            )
            match step.action:
                case Action.COMPENSATE:
                    step = replace(step, lease_until=now, compensate=run)
                case Action.STATUS:
                    step = replace(step, lease_until=now, execute=run)
                case Action.EXECUTE:
                    step = replace(step, status=StepStatus.RUNNING, lease_until=now, execute=run)
            self.steps[key] = step
            self.claims.add(key)
            self.after[workflow.id] = replace(workflow, steps={**workflow.steps, step.key: step})
            return

    def records(self) -> dict[str, str]:
        """Return the parameters of the writing statement, a list of records each."""
        if not self.after:
            return {"brought": records.packed(self.brought)} if self.brought else {}
        fresh: list[records.StepRecord] = []
        moved: list[records.StepRecord] = []
        for key, step in self.steps.items():
            record = records.step_record(
                key[0],
                step,
                succeeded=key in self.succeeded,
                claim=key in self.claims,
                priority=self.priorities.get(key, 0),
            )
            (fresh if key in self.fresh else moved).append(record)
        workflows = [
            records.moved_workflow_record(self.after[known], before)
            for known, before in self.before.items()
        ]
        starting = [
            records.new_workflow_record(self.after[known], new) for known, new in self.new.items()
        ]
        return {
            "moved": records.packed(workflows),
            "starting": records.packed(starting),
            "steps": records.packed(moved),
            "fresh": records.packed(fresh),
            "events": records.packed(self.events),
            "items": records.packed(self.items),
            "kept": records.packed(list(self.kept.values())),
            "unkept": records.packed(self.unkept),
            "letters": records.packed(self.letters),
            "brought": records.packed(self.brought),
            **self._stand_records(),
        }

    def _stand_records(self) -> dict[str, str]:
        stands = self.stands.values()
        stays = [records.stand_record(one) for one in stands if one.standing is not Standing.NONE]
        gone = [records.stand_key_record(one) for one in stands if one.standing is Standing.NONE]
        return {"stands": records.packed(stays), "gone": records.packed(gone)}


def _with_bodies_of(earlier: Step, later: Step) -> Step:
    """Keep bodies that an earlier decision of the same batch wrote."""
    kept = {name: getattr(earlier, name) for name in _BODIES if getattr(later, name) is None}
    return replace(later, **kept)
