"""A transition while it is being made: the new state, and the history of how it came about.

A draft starts from a workflow, is moved by signals that the literal tables allow, and is
frozen into `Changes`. An exception on the way leaves the workflow untouched, since nothing
outside the draft was ever changed.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from sidecar.errors import IncompleteState
from sidecar.saga.changes import (
    Changes,
    ChildStart,
    HistoryEvent,
    Letter,
    NewItems,
    Verdict,
)
from sidecar.saga.debts import may_owe, owes
from sidecar.saga.definition import Definition, Each, JsonText, Render, Scope, Template
from sidecar.saga.events import ChildTold, Told
from sidecar.saga.seen import Own, Plain
from sidecar.saga.states import (
    CLAIMABLE,
    WAIT_RETURNS,
    WORKFLOW_ENDS,
    Action,
    StepSignal,
    StepStatus,
    WorkflowSignal,
    WorkflowStatus,
    step_after,
    workflow_after,
)
from sidecar.saga.turns import stands
from sidecar.saga.workflow import Signal, Step, StepKey, Workflow, WorkflowId


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a transition needs to know besides the state: when, who, and how to render."""

    now: datetime
    actor: str
    render: Render


class Draft:
    """One workflow on its way to its next state."""

    def __init__(self, definition: Definition, workflow: Workflow, at: Circumstances) -> None:
        self.definition = definition
        self.now = at.now
        self.actor = at.actor
        self.id = workflow.id
        self.parent = workflow.parent
        self.deadline_at = workflow.deadline_at
        self.trace = workflow.trace
        self.owes_since = workflow.owes_since
        self.taken_over_by = workflow.taken_over_by
        self.status = workflow.status
        self.reason = workflow.reason
        self.paused = workflow.paused
        self.turn = workflow.turn
        self.steps: dict[StepKey, Step] = dict(workflow.steps)
        self.signals: list[Signal] = list(workflow.signals)
        self.takes_away = False
        self.opened_with = 0
        self._original = workflow
        self._render = at.render
        self._changed: dict[StepKey, None] = {}
        self._rung: dict[StepKey, None] = {}
        self._elements: dict[StepKey, JsonText] = {}
        self._items: list[NewItems] = []
        self._kept: list[Signal] = []
        self._taken: list[int] = []
        self._children: list[ChildStart] = []
        self._letters: list[Letter] = []
        self._events: list[HistoryEvent] = []
        self._fields: dict[str, Any] = {}
        self._scope: Scope | None = None

    # -- looking ------------------------------------------------------------------------------

    def step(self, key: StepKey) -> Step:
        """Return a step, one without a row as `pending`."""
        found = self.steps.get(key)
        if found is None:
            defined = self.definition.by_name[key.step]
            found = Step(key=key, service=defined.service)
        return found

    def named(self, name: str) -> Step:
        """Return the plain step of that name."""
        return self.step(StepKey(name))

    def in_order(self) -> list[Step]:
        """Return all that have a row, whatever order they were read in: as written, by index."""
        place = {step.name: at for at, step in enumerate(self.definition.steps)}
        return sorted(self.steps.values(), key=lambda one: (place[one.key.step], one.key.index))

    def items(self, name: str) -> list[Step]:
        """Return the items of a fan-out that have a row, by their index.

        Raises `IncompleteState`.
        """
        self.need_whole()
        return sorted(
            (step for step in self.steps.values() if step.is_item and step.key.step == name),
            key=lambda step: step.key.index,
        )

    def element(self, key: StepKey) -> JsonText:
        """Return the element of an item. Raises `IncompleteState`."""
        found = self._elements.get(key) or self._original.elements.get(key)
        if found is None:
            raise IncompleteState(f"the element of {key} was not read")
        return found

    def need_whole(self) -> None:
        """Raise `IncompleteState` unless all items of all fan-outs were read."""
        if self._original.partial:
            raise IncompleteState

    def past_pivot(self, name: str) -> bool:
        """Whether step `name` comes after a pivot that was not skipped."""
        before = self.definition.ancestors[name]
        return any(
            pivot in before and self.named(pivot).status is not StepStatus.SKIPPED
            for pivot in self.definition.pivots
        )

    @property
    def input(self) -> JsonText:
        """The input of the workflow, where the definition renders anything."""
        return self._original.input or JsonText("null")

    @property
    def turning_back(self) -> bool:
        """Whether the workflow has turned back."""
        return self.reason is not None

    # -- moving -------------------------------------------------------------------------------

    def signal(
        self,
        signal: WorkflowSignal,
        cause: str,
        *,
        details: JsonText | None = None,
        **fields: Any,
    ) -> None:
        """Move the workflow, and set fields of it."""
        before, self.status = self.status, workflow_after(self.status, signal)
        self._fields.update(fields)
        if "reason" in fields:
            self.reason = fields["reason"]
        if self.status in WORKFLOW_ENDS:
            self.paused = False
        if self.status in WAIT_RETURNS:
            self._fields["ended_at"] = None if self.status is WorkflowStatus.ERROR else self.now
        elif before in WORKFLOW_ENDS:
            self._fields["ended_at"] = None
        self.note("workflow", cause, before=before, after=self.status, details=details)
        if self.parent is not None and self.status in WAIT_RETURNS:
            self.tell_parent()

    def hand_over(self, to: WorkflowId) -> None:
        """Let another workflow have what this one did, and owe what it owes."""
        self.taken_over_by = self._fields["taken_over_by"] = to

    def set(self, **fields: Any) -> None:
        """Set fields of the workflow that no status depends on."""
        self._fields.update(fields)

    def move(
        self,
        step: Step,
        signal: StepSignal,
        cause: str,
        *,
        details: JsonText | None = None,
        **fields: Any,
    ) -> Step:
        """Move a step, set fields of it, and write the history's line. Returns the new step."""
        after = step_after(str(step.key), step.status, signal)
        moved = replace(step, status=after, **fields)
        self.steps[step.key] = moved
        self._changed[step.key] = None
        attempt = moved.run.attempt or None
        kind = "compensation" if moved.action is Action.COMPENSATE else "step"
        self.note(
            kind,
            cause,
            step=moved,
            before=step.status,
            after=after,
            attempt=attempt,
            details=details,
        )
        return moved

    def put(self, step: Step) -> Step:
        """Set fields of a step on which its status does not depend; history says nothing of it."""
        self.steps[step.key] = step
        self._changed[step.key] = None
        return step

    def ring(self, step: Step) -> None:
        """Ring for a step that could be claimed all along."""
        self._rung[step.key] = None

    def add_items(self, name: str, elements: JsonText, each: list[JsonText]) -> None:
        """Keep the elements of a fan-out that begins."""
        self._items.append(NewItems(name, elements, len(each)))
        self._elements |= {StepKey(name, index): one for index, one in enumerate(each)}

    def start_child(self, child: ChildStart) -> None:
        """Start a workflow in the same transaction."""
        self._children.append(child)

    def tell(self, to: WorkflowId, event: Told) -> None:
        """Send a letter to another workflow."""
        self._letters.append(Letter(to, event))

    def tell_parent(self, *, kept: bool = False, error: JsonText | None = None) -> None:
        """Tell the parent how this workflow stands."""
        if self.parent is None:
            return
        told = ChildTold(
            self.parent.step,
            self.status,
            output=self._fields.get("output", self._original.output),
            error=error or self._fields.get("error", self._original.error),
            kept=kept,
            child=self.id,
        )
        self.tell(self.parent.workflow, told)

    def next_signal(self) -> int:
        """Return the number of a signal that has just come."""
        number: int = self._fields.get("last_signal", self._original.last_signal) + 1
        self._fields["last_signal"] = number
        return number

    def keep_signal(self, signal: Signal) -> None:
        """Keep a signal for a step that will wait for it."""
        self.signals.append(signal)
        self._kept.append(signal)

    def take_signal(self, name: str) -> Signal | None:
        """Take the oldest kept signal of that name, if there is one."""
        found = next((one for one in self.signals if one.name == name), None)
        if found is not None:
            self.signals.remove(found)
            if found in self._kept:
                self._kept.remove(found)
            else:
                self._taken.append(found.number)
        return found

    def note(
        self,
        kind: str,
        cause: str,
        *,
        step: Step | None = None,
        before: str | None = None,
        after: str | None = None,
        attempt: int | None = None,
        action: Action | None = None,
        time: datetime | None = None,
        actor: str | None = None,
        details: JsonText | None = None,
    ) -> None:
        """Write one line of history."""
        key = step.key if step else None
        event = HistoryEvent(
            seq=self._original.last_seq + len(self._events) + 1,
            time=time or self.now,
            kind=kind,
            cause=cause,
            actor=actor or self.actor,
            step=key.step if key else None,
            index=key.index if key else StepKey("").index,
            action=action or (step.action if step else None),
            before=before,
            after=after,
            attempt=attempt,
            details=details,
        )
        self._events.append(event)

    def rendered(self, template: Template, item: Step | None = None) -> JsonText:
        """Render a template from the present state, for an item of a fan-out as it sees it.

        What was taken over is rendered with the id in its keys: its service knows no other.
        Raises `RenderError` and `IncompleteState`.
        """
        if template.constant:
            return template.source
        if self._scope is None:
            original = self._original
            self._scope = Scope(
                workflow_id=original.id,
                definition=self.definition.name,
                version=self.definition.version,
                input=self.input,
                outputs=Plain(self.definition.by_name, self.named, self._output),
                statuses=Plain(self.definition.by_name, self.named, lambda step: step.status.value),
            )
        scope = self._scope
        if item is not None and item.origin is not None:
            scope = dataclasses.replace(scope, workflow_id=item.origin)
        if item is not None and item.is_item:
            own = item.key.step
            scope = dataclasses.replace(
                scope,
                each=Each(item.key.index, self.element(item.key)),
                outputs=Own(scope.outputs, own, item.output),
                statuses=Own(scope.statuses, own, item.status.value),
            )
        return self._render(template, scope)

    def _output(self, step: Step) -> JsonText | None:
        """The output of a step as others read it: of a fan-out, those of its items."""
        if step.fan is None:
            return step.output
        outputs = ["null"] * step.fan.total
        for item in self.items(step.key.step):
            if item.output is not None and item.status is not StepStatus.FAILED:
                outputs[item.key.index] = item.output
        return JsonText(f"[{','.join(outputs)}]")

    # -- ending -------------------------------------------------------------------------------

    def changes(self, verdict: Verdict = Verdict.APPLIED) -> Changes:
        """Freeze the draft."""
        changed = tuple(self.steps[key] for key in self._changed)
        if not self._events and not changed and not self._letters:
            return Changes(workflow=self._original, verdict=verdict)
        workflow = replace(
            self._original,
            owes_since=self._owes_since(),
            status=self.status,
            paused=self.paused,
            steps=self.steps,
            signals=tuple(self.signals) if self.signals else (),
            elements=(
                {**self._original.elements, **self._elements}
                if self._elements
                else self._original.elements
            ),
            revision=self._original.revision + 1,
            last_seq=self._original.last_seq + len(self._events),
            **self._fields,
        )
        rung = [self.steps[key] for key in self._rung if key not in self._changed]
        return Changes(
            workflow=workflow,
            verdict=verdict,
            steps=changed,
            queued=tuple(one for one in (*changed, *rung) if _can_be_claimed(one)),
            events=tuple(self._events),
            items=tuple(self._items),
            kept=tuple(self._kept),
            taken=tuple(self._taken),
            children=tuple(self._children),
            letters=tuple(self._letters),
            turns=stands(self.definition, self._original, workflow, changed, self.now),
            takes_away=self.takes_away,
            ended=self.status in WAIT_RETURNS and self._original.status != self.status,
        )

    def _owes_since(self) -> datetime | None:
        """Since when effects are owed their undoing; None if none is."""
        taken = self.taken_over_by
        if not may_owe(self.status, turning_back=self.turning_back, taken_over_by=taken):
            return None
        since = self._original.owes_since or self.now
        return since if owes(self.definition, self.steps.values()) else None


def _can_be_claimed(step: Step) -> bool:
    return step.status in CLAIMABLE and not step.leased and step.due_at is not None
