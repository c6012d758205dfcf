"""The operations on workflows."""

from __future__ import annotations

from aiohttp import web

from sidecar.api.rest import reading
from sidecar.api.rest.encoding import items_json, started_json, workflow_json, workflows_json
from sidecar.api.rest.face import FACE, Face, reply
from sidecar.api.rest.models import StartRequest
from sidecar.engine.queries import workflow_id
from sidecar.engine.views import StartedView, WorkflowView
from sidecar.errors import StoreError
from sidecar.saga.states import WAIT_RETURNS

DEPRECATED_HEADER = "GoConductor-Deprecated"
"""Says of the version that a start began, whatever the body is, that it is deprecated."""


async def start(request: web.Request) -> web.Response:
    """Start a workflow; with `wait`, answer with its view when it ended or the time is over."""
    face = request.app[FACE]
    namespace = reading.namespace(request, face.namespace)
    reading.only(request, "wait")
    seconds = reading.wait_seconds(request)
    body = await reading.json_request(request, StartRequest)
    actor = reading.actor(request)
    id_ = face.commands.new_id()

    async def begin() -> StartedView:
        return await face.commands.start(
            namespace,
            body.definition,
            body.version,
            body.input,
            body.start_key,
            body.labels,
            request.headers.get("traceparent"),
            id=id_,
            actor=actor,
        )

    if seconds == 0:
        started = await begin()
        return started_reply(started, started_json(started))
    # Watched before it is started: however soon it ends, the end is not missed.
    with face.hub.watch(id_) as watch:
        started = await begin()
        if started.id == id_:
            await watch.until_ended(seconds)
            view = await _view_after_start(face, namespace, started)
            return started_reply(
                started, started_json(started) if view is None else workflow_json(view)
            )
    view = await _when_ended(face, namespace, started.id, seconds)
    return started_reply(started, workflow_json(view))


async def get(request: web.Request) -> web.Response:
    """Answer with one workflow; with `wait`, when it ended or the time is over."""
    face = request.app[FACE]
    namespace = reading.namespace(request, face.namespace)
    reading.only(request, "wait")
    seconds = reading.wait_seconds(request)
    view = await _when_ended(face, namespace, request.match_info["id"], seconds)
    return reply(workflow_json(view))


async def list_(request: web.Request) -> web.Response:
    """Answer with a page of workflows, newest first."""
    face = request.app[FACE]
    namespace = reading.namespace(request, face.namespace)
    reading.only(request, "status", "definition", "label", "cursor", "limit")
    page = await face.queries.list(
        namespace,
        status=reading.statuses(request),
        definition=reading.text(request, "definition"),
        labels=reading.labels(request),
        cursor=request.query.get("cursor"),
        limit=reading.limit(request),
    )
    return reply(workflows_json(page))


async def items(request: web.Request) -> web.Response:
    """Answer with a page of the items of a fan-out, by their index."""
    face = request.app[FACE]
    namespace = reading.namespace(request, face.namespace)
    reading.only(request, "cursor", "limit")
    page = await face.queries.items(
        namespace,
        request.match_info["id"],
        request.match_info["step"],
        cursor=request.query.get("cursor"),
        limit=reading.limit(request),
    )
    return reply(items_json(page))


async def _when_ended(face: Face, namespace: str, id_: str, seconds: float) -> WorkflowView:
    """The view of a workflow, as soon as it needs no more waiting for."""
    if seconds == 0:
        return await face.queries.get(namespace, id_)
    # Watched before it is read: an end in between is not missed.
    with face.hub.watch(workflow_id(id_)) as watch:
        view = await face.queries.get(namespace, id_)
        if view.status in WAIT_RETURNS:
            return view
        await watch.until_ended(seconds)
        # Still as one who waits: the end of this process waits for those.
        return await face.queries.get(namespace, id_)


async def _view_after_start(
    face: Face, namespace: str, started: StartedView
) -> WorkflowView | None:
    """The view of a workflow just started; None if the store cannot be read now.

    The start is durable, so the client must learn of it even then.
    """
    try:
        return await face.queries.get(namespace, started.id)
    except StoreError:
        return None


def started_reply(started: StartedView, body: dict[str, object]) -> web.Response:
    """The answer to a start: 201, or 200 if it had been started before."""
    told = {} if started.deprecated is None else {DEPRECATED_HEADER: started.deprecated}
    if started.existed:
        return reply(body, headers=told)
    return reply(body, 201, {"Location": f"/v1/workflows/{started.id}", **told})
