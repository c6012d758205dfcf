"""A transition while it is being made: the new state, and the history of how it came about.

A draft starts from a workflow, is moved by signals that the literal tables allow, and is
frozen into `Changes`. An exception on the way leaves the workflow untouched, since nothing
outside the draft was ever changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from msgspec.structs import replace

from sidecar.saga.changes import Changes, HistoryEvent, Verdict
from sidecar.saga.definition import Definition, JsonText, Render, Scope, Template
from sidecar.saga.states import (
    CLAIMABLE,
    WAIT_RETURNS,
    Action,
    StepSignal,
    StepStatus,
    WorkflowSignal,
    WorkflowStatus,
    step_after,
    workflow_after,
)
from sidecar.saga.workflow import Step, StepKey, Workflow


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
        self.status = workflow.status
        self.reason = workflow.reason
        self.steps: dict[StepKey, Step] = dict(workflow.steps)
        self.takes_away = False
        self._original = workflow
        self._render = at.render
        self._changed: dict[StepKey, None] = {}
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

    def statuses(self, names: Iterable[str]) -> list[StepStatus]:
        """Return the statuses of the plain steps of those names."""
        return [self.named(name).status for name in names]

    @property
    def turning_back(self) -> bool:
        """Whether the workflow has turned back."""
        return self.reason is not None

    # -- moving -------------------------------------------------------------------------------

    def signal(self, signal: WorkflowSignal, cause: str, **fields: Any) -> None:
        """Move the workflow, and set fields of it."""
        before, self.status = self.status, workflow_after(self.status, signal)
        self._fields.update(fields)
        if "reason" in fields:
            self.reason = fields["reason"]
        if self.status in WAIT_RETURNS:
            self._fields["ended_at"] = None if self.status is WorkflowStatus.ERROR else self.now
        self.note("workflow", cause, before=before, after=self.status)

    def set(self, **fields: Any) -> None:
        """Set fields of the workflow that no status depends on."""
        self._fields.update(fields)

    def move(self, step: Step, signal: StepSignal, cause: str, **fields: Any) -> Step:
        """Move a step, set fields of it, and write the history's line. Returns the new step."""
        after = step_after(str(step.key), step.status, signal)
        moved = replace(step, status=after, **fields)
        self.steps[step.key] = moved
        self._changed[step.key] = None
        attempt = moved.run.attempt or None
        kind = "compensation" if moved.action is Action.COMPENSATE else "step"
        self.note(kind, cause, step=moved, before=step.status, after=after, attempt=attempt)
        return moved

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
        )
        self._events.append(event)

    def rendered(self, template: Template) -> JsonText:
        """Render an input from the present state. Raises `RenderError`."""
        if template.constant:
            return template.source
        if self._scope is None:
            original = self._original
            self._scope = Scope(
                workflow_id=original.id,
                definition=self.definition.name,
                version=self.definition.version,
                input=original.input or JsonText("null"),
                outputs=_Plain(self, lambda step: step.output),
                statuses=_Plain(self, lambda step: step.status.value),
            )
        return self._render(template, self._scope)

    # -- ending -------------------------------------------------------------------------------

    def changes(self, verdict: Verdict = Verdict.APPLIED) -> Changes:
        """Freeze the draft."""
        changed = tuple(self.steps[key] for key in self._changed)
        if not self._events:
            return Changes(workflow=self._original, verdict=verdict)
        workflow = replace(
            self._original,
            status=self.status,
            steps=self.steps,
            revision=self._original.revision + 1,
            last_seq=self._original.last_seq + len(self._events),
            **self._fields,
        )
        return Changes(
            workflow=workflow,
            verdict=verdict,
            steps=changed,
            queued=tuple(step for step in changed if step.status in CLAIMABLE and not step.leased),
            events=tuple(self._events),
            takes_away=self.takes_away,
            ended=self.status in WAIT_RETURNS and self._original.status != self.status,
        )


_Of = TypeVar("_Of")


class _Plain(Mapping[str, _Of]):
    """Something of each plain step as it is now, looked up only where it is asked for."""

    def __init__(self, draft: Draft, of: Callable[[Step], _Of]) -> None:
        self._draft = draft
        self._of = of

    def __getitem__(self, name: str) -> _Of:
        if name not in self._draft.definition.by_name:
            raise KeyError(name)
        return self._of(self._draft.named(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._draft.definition.by_name)

    def __len__(self) -> int:
        return len(self._draft.definition.by_name)
