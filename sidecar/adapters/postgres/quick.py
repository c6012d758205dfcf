"""Decisions without reading: on the states that claims have brought.

    kept state ─▶ advance ─▶ one statement that writes if the revision is still the same

Only what goes straight ahead is decided here. Whatever else happens (the state is not known, the
event is late, illegal, takes steps away, speaks of an item or starts a child, a definition must be
loaded) is left to `sidecar.adapters.postgres.commit`, which reads under the workflow's lock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from sidecar.adapters.postgres.compiled import CompiledDefinitions
from sidecar.adapters.postgres.kept import KeptStates
from sidecar.adapters.postgres.written import Written
from sidecar.errors import IllegalTransition, IncompleteState, RenderError
from sidecar.ports.store import Batch, Moved, Started, Transition
from sidecar.saga import machine
from sidecar.saga.changes import Changes, Verdict
from sidecar.saga.definition import Render
from sidecar.saga.events import Answered
from sidecar.saga.workflow import NO_INDEX, Workflow, WorkflowId


@dataclass(slots=True)
class Quick:
    """The members of a batch that could be decided, by their places in it."""

    written: Written = field(default_factory=Written)
    starts: dict[int, Started] = field(default_factory=dict)
    transitions: dict[int, Moved] = field(default_factory=dict)


class QuickDecisions:
    """Decides what can be decided on what is kept."""

    def __init__(self, kept: KeptStates, definitions: CompiledDefinitions, render: Render) -> None:
        self._kept = kept
        self._definitions = definitions
        self._render = render

    def decide(self, batch: Batch) -> Quick:
        """Return the decisions; members that are missing from them are still to be decided."""
        quick = Quick()
        now = self._kept.now()
        if now is None or batch.epoch is not None:
            return quick
        self._start_all(batch, quick, now)
        decided = self._advance_all(batch, now)
        for place, changes in decided.items():
            known = changes.workflow.id
            before = self._kept.get(known)
            definition = self._definitions.peek(changes.workflow.definition)
            if before is None or definition is None:
                raise AssertionError(f"workflow {known} was decided on and is not known")
            quick.written.add(changes, before, definition)
            quick.transitions[place] = Moved(changes)
        for place, changes in decided.items():
            if batch.transitions[place].claim_next:
                quick.written.claim_next(batch, changes, now)
        for place, started in quick.starts.items():
            if batch.starts[place].claim_next and started.changes is not None:
                quick.written.claim_next(batch, started.changes, now)
        return quick

    def _start_all(self, batch: Batch, quick: Quick, now: datetime) -> None:
        for place, start in enumerate(batch.starts):
            if start.id in quick.written.after or start.rerun is not None:
                continue
            self._definitions.keep(start.definition)
            changes = machine.start(
                start.definition, start.new, now=now, render=self._render, actor=start.actor
            )
            if changes.children:
                continue  # they are read, and started, in a transaction
            quick.written.begin(start, changes, quick=True)
            quick.starts[place] = Started(start.id, changes.workflow.status, changes=changes)

    def _advance_all(self, batch: Batch, now: datetime) -> dict[int, Changes]:
        decided: dict[int, Changes] = {}
        present: dict[WorkflowId, Workflow] = {}
        left: set[WorkflowId] = set()
        for place, one in enumerate(batch.transitions):
            if one.workflow in left:
                continue
            workflow = present.get(one.workflow) or self._kept.get(one.workflow)
            changes = self._advance(one, workflow, now) if workflow else None
            if changes is None:
                left.add(one.workflow)
            else:
                decided[place] = changes
                present[one.workflow] = changes.workflow
        if left:
            decided = {at: one for at, one in decided.items() if one.workflow.id not in left}
        return decided

    def _advance(self, one: Transition, workflow: Workflow, now: datetime) -> Changes | None:
        definition = self._definitions.peek(workflow.definition)
        event = one.event
        if one.wait or definition is None or not isinstance(event, Answered):
            return None
        if event.step.step not in definition.by_name or event.step.index != NO_INDEX:
            return None
        try:
            changes = machine.advance(definition, workflow, event, now=now, render=self._render)
        except (IllegalTransition, IncompleteState, RenderError):
            return None
        alone = not (changes.takes_away or changes.children)
        sound = changes.verdict is Verdict.APPLIED and changes.writes and alone
        return changes if sound else None
