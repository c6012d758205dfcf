"""Small worlds for the machine's tests: definitions, claims and answers without a store."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from sidecar.errors import RenderError
from sidecar.saga.changes import Changes
from sidecar.saga.definition import (
    Compensation,
    Definition,
    JsonText,
    Scope,
    StepDefinition,
    Template,
)
from sidecar.saga.events import Answered, Event
from sidecar.saga.invariants import violations
from sidecar.saga.machine import NewWorkflow, advance, start
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.policy import RetryPolicy
from sidecar.saga.states import Action, StepStatus
from sidecar.saga.workflow import Step, StepKey, Workflow, WorkflowId

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
QUICK = RetryPolicy(max_attempts=3, total_budget=timedelta(minutes=1))
THREE_UNDOS = RetryPolicy(max_attempts=3, total_budget=None)


def render(template: Template, scope: Scope) -> JsonText:
    """Render a template whose source names a step: its output; `!` cannot be rendered.

    Other sources are `true` and `false`, a `list`, a `moment`, what an item sees as `each` (and
    cannot be rendered for one that is `odd`), the id of the `workflow`, and the outputs of all
    `steps`.
    """
    source = template.source
    index = scope.each.index if scope.each else 0
    if source == "!" or (source == "odd" and index % 2):
        raise RenderError("cannot be rendered")
    made = {
        "true": "true",
        "false": "false",
        "list": '[1, 2.5, "three", [4]]',
        "moment": json.dumps((EPOCH + timedelta(seconds=90)).isoformat()),
        "each": scope.each.item if scope.each else "",
        "odd": scope.each.item if scope.each else "",
        "workflow": json.dumps(scope.workflow_id),
    }
    if source in made:
        return JsonText(made[source])
    if source == "steps":
        return JsonText(f"[{','.join(one or 'null' for one in scope.outputs.values())}]")
    return scope.outputs[template.source] or JsonText("null")


def step(name: str, *after: str, **more: object) -> StepDefinition:
    """A step of service `svc-<name>` with a compensation, tried three times."""
    fields: dict[str, object] = {
        "retry": QUICK,
        "compensation": Compensation(f"/undo/{name}", retry=THREE_UNDOS),
    }
    chosen: dict[str, Any] = {**fields, **more}
    return StepDefinition(name, f"svc-{name}", f"/do/{name}", after, **chosen)


def definition(*steps: StepDefinition, **more: Any) -> Definition:
    """A definition of these steps."""
    return Definition("order", 1, steps, **more)


def key_of(name: str) -> StepKey:
    """`charge`, or an item like `charge[3]`."""
    step_name, _, index = name.rstrip("]").partition("[")
    return StepKey(step_name, int(index)) if index else StepKey(step_name)


class Run:
    """One workflow in a world of its own clock."""

    def __init__(self, defined: Definition) -> None:
        self.definition = defined
        self.now = EPOCH
        self.began = start(
            defined, NewWorkflow(WorkflowId("w"), JsonText("{}")), now=self.now, render=render
        )
        self.workflow: Workflow = self.began.workflow
        self.check()

    def step(self, name: str) -> Step:
        """The step of that name; it must have a row."""
        return self.workflow.steps[key_of(name)]

    def status(self, name: str) -> StepStatus:
        """The status of a step; pending if it has no row."""
        found = self.workflow.steps.get(key_of(name))
        return found.status if found else StepStatus.PENDING

    def claim(self, name: str) -> int:
        """Claim as a store would; return the attempt."""
        found = self.step(name)
        self.now = max(self.now, found.due_at or self.now)
        run = replace(
            found.run,
            attempt=found.run.attempt + 1,
            started_at=found.run.started_at or self.now,
            claimed_at=self.now,
        )
        field = "compensate" if found.action is Action.COMPENSATE else "execute"
        asks = found.action is not Action.EXECUTE
        status = found.status if asks else StepStatus.RUNNING
        lease = self.now + timedelta(seconds=35)
        changed: dict[str, Any] = {field: run}
        held = replace(found, status=status, lease_until=lease, **changed)
        self.workflow = replace(self.workflow, steps={**self.workflow.steps, held.key: held})
        return run.attempt

    def apply(self, event: Event) -> Changes:
        """Advance by one event, and check every invariant."""
        changes = advance(self.definition, self.workflow, event, now=self.now, render=render)
        self.workflow = changes.workflow
        self.check()
        return changes

    def answer(self, name: str, kind: OutcomeKind, **more: Any) -> Changes:
        """Claim a step if nobody holds it, and answer."""
        if not self.step(name).leased:
            self.claim(name)
        found = self.step(name)
        outcome = Outcome(kind, **more)
        return self.apply(Answered(found.key, found.action, found.run.attempt, outcome))

    def done(self, *names: str) -> None:
        """Let these steps succeed, or be compensated, one after the other."""
        for name in names:
            self.answer(name, OutcomeKind.DONE, output=JsonText("{}"))

    def check(self) -> None:
        """Fail on any violation."""
        assert violations(self.definition, self.workflow) == []
