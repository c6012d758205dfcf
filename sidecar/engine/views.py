"""What the faces show: one value for each thing that a client can read.

REST, gRPC, the command and the pages all show these, under these names. A view is plain data:
bodies are the JSON text that the store keeps, times are aware and in UTC. Nothing here reads
the store; `sidecar.engine.queries` does.

A workflow's view answers "why is it not moving" at any moment: `waiting_on` says in words what
it waits for, `next_attempt_at` when it moves next by itself, `last_error` what went wrong last.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType

from sidecar.ports.versions import StoredDefinition
from sidecar.saga.changes import HistoryEvent
from sidecar.saga.definition import Definition, JsonText, StepDefinition
from sidecar.saga.explain import last_error, next_attempt_at, waiting_on
from sidecar.saga.states import UNDOING, StepStatus
from sidecar.saga.turns import TurnKey
from sidecar.saga.workflow import NO_INDEX, Fan, Step, StepKey, Workflow


@dataclass(frozen=True, slots=True)
class CompensationView:
    """How the undoing of one step stands; `status` is a step status of the way back."""

    status: str
    attempt: int
    tries: int
    input: JsonText | None
    output: JsonText | None
    error: JsonText | None
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class ItemsView:
    """How the items of a fan-out stand, as numbers.

    Of `total`, `pending` had no turn yet, `open` are on their way, `failed` have failed for good.
    On the way back `undoing` are being undone, and `not_undone` could not be.
    """

    total: int
    pending: int
    open: int
    failed: int
    undoing: int
    not_undone: int


@dataclass(frozen=True, slots=True)
class StepView:
    """One step; `index` is None unless it is an item of a fan-out.

    `service` is None for a step that calls none. `attempt` counts claims, `tries` what the retry
    policy counts; both speak of `execute`, and those of the way back stand in `compensation`,
    which is None until the step is undone. `items` is None but for a fan-out that has begun.
    """

    name: str
    index: int | None
    service: str | None
    status: str
    attempt: int
    tries: int
    input: JsonText | None
    output: JsonText | None
    error: JsonText | None
    started_at: datetime | None
    ended_at: datetime | None
    compensation: CompensationView | None
    items: ItemsView | None


@dataclass(frozen=True, slots=True)
class WorkflowView:
    """One workflow, whole. `started_at` is when a sidecar first took one of its steps."""

    id: str
    namespace: str
    definition: str
    version: int
    status: str
    reason: str | None
    paused: bool
    waiting_on: tuple[str, ...]
    next_attempt_at: datetime | None
    last_error: JsonText | None
    input: JsonText | None
    output: JsonText | None
    error: JsonText | None
    labels: Mapping[str, str]
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    steps: tuple[StepView, ...]


@dataclass(frozen=True, slots=True)
class WorkflowSummary:
    """One workflow as a line of a list."""

    id: str
    namespace: str
    definition: str
    version: int
    status: str
    reason: str | None
    paused: bool
    labels: Mapping[str, str]
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class EventView:
    """One line of a workflow's history; `step` is None for the workflow's own.

    `before` and `after` are shown as `from` and `to`, which are no names in Python. `details` is
    an object with what else there is to say: a person's reason, the name of a signal.
    """

    seq: int
    time: datetime
    kind: str
    step: str | None
    index: int | None
    action: str | None
    before: str | None
    after: str | None
    attempt: int | None
    cause: str
    actor: str
    details: JsonText | None


@dataclass(frozen=True, slots=True)
class DefinitionView:
    """One version of a definition; `document` is its canonical JSON, None in a list."""

    namespace: str
    name: str
    version: int
    hash: str
    created_at: datetime
    document: JsonText | None
    state: str = "active"


@dataclass(frozen=True, slots=True)
class StartedView:
    """A workflow that was started; `existed`: an earlier request with this key started it.

    `deprecated` says so of the version that it runs.
    """

    id: str
    status: str
    existed: bool
    deprecated: str | None = None


def workflow_view(
    definition: Definition,
    workflow: Workflow,
    now: datetime,
    promised: Collection[StepKey] = (),
    holders: Mapping[TurnKey, Sequence[str]] = MappingProxyType({}),
) -> WorkflowView:
    """Return the view of a workflow that was read whole, by the definition that it runs.

    `promised` and `holders` say what of others it waits for: see `sidecar.saga.explain`.
    """
    steps = tuple(
        _step_view(workflow, step)
        for written in definition.steps
        for step in _steps_of(written, workflow)
    )
    namespace, name, version = workflow.definition
    return WorkflowView(
        id=workflow.id,
        namespace=namespace,
        definition=name,
        version=version,
        status=workflow.status,
        reason=workflow.reason,
        paused=workflow.paused,
        waiting_on=tuple(waiting_on(definition, workflow, now, promised, holders)),
        next_attempt_at=next_attempt_at(workflow),
        last_error=last_error(workflow),
        input=workflow.input,
        output=workflow.output,
        error=workflow.error,
        labels=workflow.labels,
        created_at=workflow.created_at,
        started_at=min((at for step in steps if (at := step.started_at)), default=None),
        ended_at=workflow.ended_at,
        steps=steps,
    )


def workflow_summary(workflow: Workflow) -> WorkflowSummary:
    """Return the line of a list for a workflow that was read without its steps."""
    namespace, name, version = workflow.definition
    return WorkflowSummary(
        id=workflow.id,
        namespace=namespace,
        definition=name,
        version=version,
        status=workflow.status,
        reason=workflow.reason,
        paused=workflow.paused,
        labels=workflow.labels,
        created_at=workflow.created_at,
        ended_at=workflow.ended_at,
    )


def event_view(event: HistoryEvent) -> EventView:
    """Return the view of one line of a history."""
    return EventView(
        seq=event.seq,
        time=event.time,
        kind=event.kind,
        step=event.step,
        index=shown_index(event.index),
        action=event.action,
        before=event.before,
        after=event.after,
        attempt=event.attempt,
        cause=event.cause,
        actor=event.actor,
        details=event.details,
    )


def definition_view(stored: StoredDefinition, *, with_document: bool = True) -> DefinitionView:
    """Return the view of a stored version."""
    return DefinitionView(
        namespace=stored.namespace,
        name=stored.name,
        version=stored.version,
        hash=stored.hash,
        created_at=stored.created_at,
        document=stored.document if with_document else None,
        state=stored.state,
    )


def _steps_of(written: StepDefinition, workflow: Workflow) -> tuple[Step, ...]:
    """The rows of one step of the definition; a step without any is shown as if it had one."""
    plain = workflow.steps.get(StepKey(written.name))
    if plain is not None and plain.stored:
        return (plain,)
    items = [step for key, step in workflow.steps.items() if key.step == written.name]
    if items and any(step.stored for step in items):
        return tuple(sorted(items, key=lambda step: step.key.index))
    status = StepStatus.CANCELLED if workflow.turning_back else StepStatus.PENDING
    return (Step(key=StepKey(written.name), service=written.service, status=status),)


def item_view(written: StepDefinition, item: Step) -> StepView:
    """Return the view of one item of a fan-out, with or without a row."""
    return replace(_row_view(item, item.input), service=item.service or written.service)


def _step_view(workflow: Workflow, step: Step) -> StepView:
    """The view of one row."""
    # What is sent without a template of its own is the workflow's input.
    return _row_view(step, step.input or (workflow.input if step.execute.attempt else None))


def _row_view(step: Step, body: JsonText | None) -> StepView:
    run = step.execute
    return StepView(
        name=step.key.step,
        index=shown_index(step.key.index),
        service=step.service or None,
        status=step.status,
        attempt=run.attempt,
        tries=run.tries,
        input=body,
        output=step.output,
        error=step.error,
        started_at=run.started_at,
        ended_at=run.ended_at,
        compensation=_compensation_view(step) if step.status in UNDOING else None,
        items=_items_view(step.fan) if step.fan else None,
    )


def _items_view(fan: Fan) -> ItemsView:
    return ItemsView(
        total=fan.total,
        pending=fan.total - fan.opened,
        open=fan.open,
        failed=fan.failed,
        undoing=fan.undoing,
        not_undone=fan.kept,
    )


def _compensation_view(step: Step) -> CompensationView:
    """The view of a row's way back."""
    run = step.compensate
    return CompensationView(
        status=step.status,
        attempt=run.attempt,
        tries=run.tries,
        input=step.compensation_input,
        output=step.compensation_output,
        error=step.compensation_error,
        started_at=run.started_at,
        ended_at=run.ended_at,
    )


def shown_index(index: int) -> int | None:
    """An index as clients see it."""
    return None if index == NO_INDEX else index
