"""What requests and answers look like.

Requests are read through these models, and an unknown field is refused by its name. Answers are
written straight from views for speed; the models describe them in the OpenAPI document, and
tests hold every answer against it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from sidecar.ports.versions import VersionState
from sidecar.saga.events import Resolution
from sidecar.saga.states import Action, Reason, StepStatus, WorkflowStatus

CompensationStatus = Literal["compensating", "compensated", "compensation_failed"]


_REASON = "For people: it stands in the history. At most 1000 characters."


class Body(BaseModel):
    """A JSON object without surprises."""

    model_config = ConfigDict(extra="forbid", strict=True)


# -- requests -------------------------------------------------------------------------------


class StartRequest(Body):
    """Which definition to start, and with what."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "definition": "order_processing",
                    "input": {"order_id": "A-17", "amount": 49.9},
                    "start_key": "order-A-17",
                    "labels": {"tenant": "north"},
                }
            ]
        }
    )

    definition: str = Field(min_length=1, max_length=255)
    version: int | None = Field(default=None, ge=1, lt=2**31, description="Left out: the latest.")
    input: Any = Field(default=None, description="Any JSON; at most 1 MiB and 64 levels deep.")
    start_key: str | None = Field(
        default=None,
        description="Starting again with the same key and input returns the same workflow.",
    )
    labels: dict[str, str] = Field(default_factory=dict, description="At most 32.")


class EmptyRequest(Body):
    """Nothing; the body may be left out."""


class ReasonRequest(Body):
    """Why it is done; the body may be left out."""

    reason: str = Field(default="", description=_REASON)


class TerminateRequest(Body):
    """Why a workflow is stopped without being undone."""

    reason: str = Field(description=_REASON)


class SkipRequest(Body):
    """Why a step is not needed, and with what output others see it."""

    reason: str = Field(description=_REASON)
    output: Any = Field(default=None, description="Any JSON; at most 1 MiB and 64 levels deep.")
    action: Literal["execute", "compensate"] = Field(
        default="execute", description="`compensate`: on the way back, go on without undoing it."
    )


class ResolveRequest(Body):
    """What a person found out about a step, and what shows it."""

    resolution: Resolution = Field(
        strict=False,
        description="`succeeded`: its effect is there; `no_effect`: it never was, or is undone "
        "already; `compensated`: a person has undone it.",
    )
    reason: str = Field(description=_REASON)
    evidence: str = Field(description="What shows it; it stands in the history, too.")
    output: Any = Field(default=None, description="Only of what `succeeded`: the step's output.")


class SignalRequest(Body):
    """What a signal carries; the body may be left out."""

    payload: Any = Field(default=None, description="Any JSON; at most 1 MiB and 64 levels deep.")
    reason: str = Field(default="", description=_REASON)


class CompleteRequest(Body):
    """What came of an attempt; the body may be left out."""

    output: Any = Field(default=None, description="The step's output: any JSON up to 1 MiB.")


class FailRequest(Body):
    """Why an attempt failed."""

    message: str = Field(min_length=1, description="For people, at most 300 characters.")
    outcome: Literal["refused", "unknown"] = Field(
        default="refused",
        description="`refused`: a definite no, without effect; `unknown`: it may have happened.",
    )
    code: str = Field(default="failed", description="For programs, at most 64 characters.")


# -- answers --------------------------------------------------------------------------------


class StartedBody(Body):
    """A workflow was started, now or earlier with the same key."""

    id: str
    status: WorkflowStatus
    deprecated: str | None = Field(
        default=None, description="Only there if the version that it runs is deprecated."
    )


class CompensationBody(Body):
    """How the undoing of a step stands."""

    status: CompensationStatus
    attempt: int
    tries: int
    input: JsonValue
    output: JsonValue
    error: JsonValue
    started_at: datetime | None
    ended_at: datetime | None


class ItemsBody(Body):
    """How the items of a fan-out stand, as numbers; `pending` had no turn yet."""

    total: int
    pending: int
    open: int
    failed: int
    undoing: int
    not_undone: int


class StepBody(Body):
    """One step of a workflow; `index` is null unless it is an item of a fan-out.

    `service` is null for a step that only waits, `items` but for a fan-out that has begun.
    """

    name: str
    index: int | None
    service: str | None
    status: StepStatus
    attempt: int
    tries: int
    input: JsonValue
    output: JsonValue
    error: JsonValue
    started_at: datetime | None
    ended_at: datetime | None
    compensation: CompensationBody | None
    items: ItemsBody | None


class ItemPage(Body):
    """A page of the items of a fan-out, by their index."""

    items: list[StepBody]
    next_cursor: str | None


class WorkflowBody(Body):
    """One workflow, whole. `waiting_on` says why it is not moving, while it is not."""

    id: str
    namespace: str
    definition: str
    version: int
    status: WorkflowStatus
    reason: Reason | None
    paused: bool
    waiting_on: list[str]
    next_attempt_at: datetime | None
    last_error: JsonValue
    input: JsonValue
    output: JsonValue
    error: JsonValue
    labels: dict[str, str]
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    steps: list[StepBody]


class WorkflowLine(Body):
    """One workflow in a list."""

    id: str
    namespace: str
    definition: str
    version: int
    status: WorkflowStatus
    reason: Reason | None
    paused: bool
    labels: dict[str, str]
    created_at: datetime
    ended_at: datetime | None


class WorkflowPage(Body):
    """A page of workflows, newest first."""

    workflows: list[WorkflowLine]
    next_cursor: str | None


class EventBody(Body):
    """One line of a workflow's history; `step` is null for the workflow's own.

    `details` holds what else there is to say: a person's `reason`, the `name` of a signal.
    """

    seq: int
    time: datetime
    kind: str
    step: str | None
    index: int | None
    action: Action | None
    from_: str | None = Field(alias="from")
    to: str | None
    attempt: int | None
    cause: str
    actor: str
    details: dict[str, JsonValue] | None


class EventPage(Body):
    """A page of a workflow's history, in its order."""

    events: list[EventBody]
    next_cursor: str | None


class FindingBody(Body):
    """Something that the checker found; `way` is how it comes about, `drawing` what it looks like.

    `docs/checker.md` lists the codes.
    """

    code: str
    severity: Literal["error", "warning", "info"]
    path: str
    step: str | None
    message: str
    advice: str
    way: list[str]
    drawing: str | None


class RegisteredBody(Body):
    """The version that a document has been given, and what the checker found in it."""

    name: str
    version: int
    hash: str
    state: Literal["active", "deprecated", "retired"]
    verdict: str
    findings: list[FindingBody]


class CheckedBody(Body):
    """A document that can be registered, the steps that it holds, and what is weak in it.

    `times` are spans like `1m30s`, null where there is no end.
    """

    name: str
    steps: list[str]
    verdict: str
    method: str
    states: int
    transitions: int
    findings: list[FindingBody]
    assumptions: list[str]
    times: dict[str, str | None]


class DefinitionLine(Body):
    """The latest version of one definition, in a list."""

    namespace: str
    name: str
    version: int
    hash: str
    created_at: datetime
    state: VersionState


class DefinitionBody(DefinitionLine):
    """One version of a definition with its document."""

    document: dict[str, JsonValue]


class DefinitionPage(Body):
    """A page of definitions, by name."""

    definitions: list[DefinitionLine]
    next_cursor: str | None


class TakenBody(Body):
    """It was taken, now or when it was said before."""


class HeartbeatBody(Body):
    """Until when the attempt must end, or say again that it goes on."""

    deadline: datetime | None


class HealthBody(Body):
    """The process is alive; whether it is ready says `/readyz` of the metrics port."""

    status: Literal["ok"]


class Fault(Body):
    """One thing that is wrong with a document."""

    field: str
    message: str


class Problem(Body):
    """An error (RFC 9457). `code` is stable, `detail` is for people, `field` names the culprit."""

    title: str
    status: int
    code: str
    detail: str
    field: str | None = None
    problems: list[Fault] | None = None


ANSWERS: tuple[type[BaseModel], ...] = (
    StartedBody,
    WorkflowBody,
    WorkflowPage,
    EventPage,
    ItemPage,
    TakenBody,
    HeartbeatBody,
    RegisteredBody,
    CheckedBody,
    DefinitionBody,
    DefinitionPage,
    HealthBody,
    Problem,
)
