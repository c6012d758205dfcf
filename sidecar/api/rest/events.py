"""A workflow's history: by page, or as a stream that follows it live.

The stream is `text/event-stream`: each message has the event's number as its `id`, so a client
that comes back with `Last-Event-ID` goes on where it was. The stream ends when the workflow
has ended and all of its history was sent.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from sidecar.api.rest import reading
from sidecar.api.rest.encoding import encode, event_json, events_json
from sidecar.api.rest.face import FACE, Face, reply
from sidecar.api.rest.problems import NO_STORE
from sidecar.engine.queries import MAX_PAGE, event_cursor, workflow_id
from sidecar.errors import Overloaded, StoreError
from sidecar.saga.states import WORKFLOW_ENDS
from sidecar.saga.workflow import WorkflowId

STREAM = "text/event-stream"
LOOK_EVERY = 1.0
"""Seconds between two looks for new events while a stream has nothing to send."""

STREAM_FOR = 600.0
"""Seconds after which a stream ends; the client comes back with `Last-Event-ID`."""


async def events(request: web.Request) -> web.StreamResponse:
    """Answer with a page of the history, or follow it if the client accepts a stream."""
    face = request.app[FACE]
    namespace = reading.namespace(request, face.namespace)
    reading.only(request, "cursor", "limit")
    id_ = request.match_info["id"]
    if STREAM in request.headers.get("Accept", ""):
        return await _follow(request, face, namespace, id_)
    page = await face.queries.events(
        namespace, id_, cursor=request.query.get("cursor"), limit=reading.limit(request)
    )
    return reply(events_json(page))


async def _follow(request: web.Request, face: Face, namespace: str, id_: str) -> web.StreamResponse:
    """Send the history as it comes about."""
    seen = 0
    if (last := request.headers.get("Last-Event-ID")) is not None:
        seen = reading.number(last, "Last-Event-ID")
    await face.queries.get(namespace, id_)
    response = web.StreamResponse(headers={**NO_STORE, "Content-Type": STREAM})
    await response.prepare(request)
    try:
        async with asyncio.timeout(STREAM_FOR):
            await _send_until_ended(face, namespace, workflow_id(id_), response, seen)
    except (TimeoutError, ConnectionError, StoreError, Overloaded):
        # The answer has begun, so all that can be said is its end: the client comes back with
        # the number of the last event that it has seen, and misses nothing.
        return response
    return response


async def _send_until_ended(
    face: Face, namespace: str, id_: WorkflowId, response: web.StreamResponse, seen: int
) -> None:
    """Send what comes after event `seen`, until the workflow ended and all of it was sent."""
    while not face.hub.closed:
        with face.hub.watch(id_) as watch:
            # Read before the events: if it has ended here, they are complete.
            view = await face.queries.get(namespace, id_)
            seen, more = await _send_new(face, namespace, id_, response, seen)
            if more:
                continue
            if view.status in WORKFLOW_ENDS:
                return
            # A comment: it tells the client, and us, that the connection lives.
            await response.write(b":\n\n")
            await watch.until_ended(LOOK_EVERY)


async def _send_new(
    face: Face, namespace: str, id_: str, response: web.StreamResponse, seen: int
) -> tuple[int, bool]:
    """Send one page of what is new; return the last number sent, and whether there is more."""
    page = await face.queries.events(namespace, id_, cursor=event_cursor(seen), limit=MAX_PAGE)
    for event in page.items:
        data = encode(event_json(event))
        await response.write(b"id: %d\ndata: %b\n\n" % (event.seq, data))
        seen = event.seq
    return seen, page.next_cursor is not None
