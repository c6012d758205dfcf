"""The literal table of all operations. Routing and the OpenAPI document are both made from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web
from pydantic import BaseModel

from sidecar.api.rest import definitions, events, models, operators, tasks, workflows
from sidecar.api.rest.face import reply
from sidecar.api.rest.reading import ACTOR_HEADER
from sidecar.engine.intake import MAX_ACTOR
from sidecar.engine.queries import DEFAULT_PAGE, MAX_PAGE
from sidecar.saga.states import WorkflowStatus

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
JsonSchema = dict[str, object]

DEADLINE = 30.0
"""Seconds that a request may take, beyond what it asks to wait."""

WAIT_DEADLINE = DEADLINE + 60.0


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the query, or a header."""

    name: str
    description: str
    schema: JsonSchema
    where: str = "query"


@dataclass(frozen=True, slots=True)
class Route:
    """One operation. `deadline` is in seconds, None for a stream with a deadline of its own.

    `answers` are the bodies of success by status; `problems` the statuses of failure that are
    its own. `document` says that the body is a definition.
    """

    method: str
    path: str
    handler: Handler
    operation: str
    summary: str
    answers: dict[int, type[BaseModel]]
    problems: tuple[int, ...] = ()
    query: tuple[Parameter, ...] = ()
    body: type[BaseModel] | None = None
    document: bool = False
    deadline: float | None = DEADLINE
    stream: bool = False
    headers: tuple[Parameter, ...] = field(default=())


async def health(_request: web.Request) -> web.Response:
    """Say that the process is alive."""
    return reply({"status": "ok"})


WAIT = Parameter(
    "wait",
    "Answer when the workflow has ended, or is in `error`, or this much time has passed: `30s`, "
    "`500ms`, `2m`; more than 60 s is taken as 60 s.",
    {"type": "string", "examples": ["30s"]},
)
CURSOR = Parameter("cursor", "Where the last page ended: its `next_cursor`.", {"type": "string"})
LIMIT = Parameter(
    "limit",
    "How many items a page holds at most.",
    {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE},
)
STATUS = Parameter(
    "status",
    "Only workflows in one of these; repeated or separated by commas.",
    {"type": "array", "items": {"enum": [str(one) for one in WorkflowStatus]}},
)
DEFINITION = Parameter("definition", "Only workflows of this definition.", {"type": "string"})
LABEL = Parameter(
    "label",
    "Only workflows with this label, written `name:value`; repeated: with all of them.",
    {"type": "array", "items": {"type": "string"}},
)
ALLOW_MISSING = Parameter(
    "allow_missing",
    "Take actions that no catalogue offers, with a warning: what they leave counts as not undone "
    "unless the step says what undoes it.",
    {"type": "boolean", "default": False},
)
TRACE = Parameter(
    "traceparent",
    "A W3C trace context; the workflow's calls belong to that trace.",
    {"type": "string"},
    where="header",
)
LAST_EVENT = Parameter(
    "Last-Event-ID",
    "For a stream: the number of the last event that was seen.",
    {"type": "integer", "minimum": 1},
    where="header",
)

ACTOR = Parameter(
    ACTOR_HEADER,
    "Who acts, as the history shall call them. Left out: `api`.",
    {"type": "string", "minLength": 1, "maxLength": MAX_ACTOR},
    where="header",
)


def _verb(
    path: str,
    handler: Handler,
    operation: str,
    summary: str,
    body: type[BaseModel] = models.ReasonRequest,
) -> Route:
    """Something that a person can have done to a workflow."""
    return Route(
        "POST",
        f"/v1/workflows/{{id}}/{path}",
        handler,
        operation,
        summary,
        {202: models.WorkflowBody},
        problems=(400, 404, 409, 413, 415),
        headers=(ACTOR,),
        body=body,
    )


def _callback(
    path: str,
    handler: Handler,
    operation: str,
    summary: str,
    body: type[BaseModel],
    answer: type[BaseModel] = models.TakenBody,
) -> Route:
    """Something that a service may say of an attempt that it took on."""
    return Route(
        "POST",
        f"/v1/tasks/{{token}}/{path}",
        handler,
        operation,
        summary,
        {200: answer},
        problems=(400, 404, 409, 413, 415),
        body=body,
    )


ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/v1/definitions",
        definitions.register,
        "registerDefinition",
        "Register a definition; the same document again is the same version",
        {201: models.RegisteredBody, 200: models.RegisteredBody},
        problems=(409, 413, 415, 422),
        query=(ALLOW_MISSING,),
        document=True,
    ),
    Route(
        "GET",
        "/v1/definitions",
        definitions.list_,
        "listDefinitions",
        "List definitions by name, the latest version of each",
        {200: models.DefinitionPage},
        problems=(422,),
        query=(CURSOR, LIMIT),
    ),
    Route(
        "POST",
        "/v1/definitions/check",
        definitions.check,
        "checkDefinition",
        "Check a document without keeping it",
        {200: models.CheckedBody},
        problems=(409, 413, 415, 422),
        query=(ALLOW_MISSING,),
        document=True,
    ),
    Route(
        "GET",
        "/v1/definitions/{name}",
        definitions.get,
        "getDefinition",
        "Read the latest version of a definition",
        {200: models.DefinitionBody},
        problems=(404,),
    ),
    Route(
        "GET",
        "/v1/definitions/{name}/versions/{version}",
        definitions.get_version,
        "getDefinitionVersion",
        "Read one version of a definition",
        {200: models.DefinitionBody},
        problems=(404, 422),
    ),
    Route(
        "POST",
        "/v1/workflows",
        workflows.start,
        "startWorkflow",
        "Start a workflow; with `wait`, answer with its view when it has ended",
        {201: models.StartedBody, 200: models.StartedBody},
        problems=(400, 404, 409, 413, 415, 422),
        query=(WAIT,),
        headers=(TRACE, ACTOR),
        body=models.StartRequest,
        deadline=WAIT_DEADLINE,
    ),
    Route(
        "GET",
        "/v1/workflows",
        workflows.list_,
        "listWorkflows",
        "List workflows, newest first",
        {200: models.WorkflowPage},
        problems=(422,),
        query=(STATUS, DEFINITION, LABEL, CURSOR, LIMIT),
    ),
    Route(
        "GET",
        "/v1/workflows/{id}",
        workflows.get,
        "getWorkflow",
        "Read one workflow, or wait for its end",
        {200: models.WorkflowBody},
        problems=(404, 422),
        query=(WAIT,),
        deadline=WAIT_DEADLINE,
    ),
    Route(
        "GET",
        "/v1/workflows/{id}/events",
        events.events,
        "listEvents",
        "Read a workflow's history, or follow it (`Accept: text/event-stream`)",
        {200: models.EventPage},
        problems=(404, 422),
        query=(CURSOR, LIMIT),
        headers=(LAST_EVENT,),
        deadline=None,
        stream=True,
    ),
    Route(
        "GET",
        "/v1/workflows/{id}/steps/{step}/items",
        workflows.items,
        "listItems",
        "Read the items of a fan-out by their index",
        {200: models.ItemPage},
        problems=(404, 422),
        query=(CURSOR, LIMIT),
    ),
    _verb(
        "cancel",
        operators.cancel,
        "cancelWorkflow",
        "Undo a workflow; the same again while it is being undone, or was",
    ),
    _verb("pause", operators.pause, "pauseWorkflow", "Let nothing more be called for a workflow"),
    _verb("resume", operators.resume, "resumeWorkflow", "Let a paused workflow go on"),
    _verb(
        "retry",
        operators.retry,
        "retryWorkflow",
        "Try now all that waits for its next try or has failed for good, with the same keys",
    ),
    _verb(
        "terminate",
        operators.terminate,
        "terminateWorkflow",
        "Stop a workflow where it stands, without undoing anything",
        models.TerminateRequest,
    ),
    _verb(
        "signals/{name}",
        operators.signal,
        "sendSignal",
        "Send a signal; it is kept until a step waits for it",
        models.SignalRequest,
    ),
    _verb(
        "steps/{step}/retry",
        operators.retry,
        "retryStep",
        "Try one step or item now, with the same key",
    ),
    _verb(
        "steps/{step}/skip",
        operators.skip,
        "skipStep",
        "Go on without a step or item, or without undoing it",
        models.SkipRequest,
    ),
    _verb(
        "steps/{step}/resolve",
        operators.resolve,
        "resolveStep",
        "Settle a step or item by what a person found out",
        models.ResolveRequest,
    ),
    _callback(
        "complete",
        tasks.complete,
        "completeTask",
        "Say that an attempt is done; the same when it is said again",
        models.CompleteRequest,
    ),
    _callback(
        "fail",
        tasks.fail,
        "failTask",
        "Say that an attempt failed; the same when it is said again",
        models.FailRequest,
    ),
    _callback(
        "heartbeat",
        tasks.heartbeat,
        "heartbeatTask",
        "Say that an attempt still goes on: its time begins anew",
        models.EmptyRequest,
        models.HeartbeatBody,
    ),
    Route(
        "GET",
        "/v1/tasks/{token}/fence",
        tasks.fence,
        "fenceTask",
        "Whether an attempt is the current one, and may have its effect",
        {200: models.TakenBody},
        problems=(404, 409),
    ),
    Route(
        "GET",
        "/healthz",
        health,
        "health",
        "Whether the process is alive",
        {200: models.HealthBody},
    ),
)
