"""The operation that runs a workflow again."""

from __future__ import annotations

from aiohttp import web

from sidecar.api.rest import reading
from sidecar.api.rest.encoding import started_json
from sidecar.api.rest.face import FACE
from sidecar.api.rest.oversight_models import RerunBody
from sidecar.api.rest.workflows import started_reply


async def rerun(request: web.Request) -> web.Response:
    """Run a workflow again: 201 with the new one, 200 if this start key began it before."""
    face = request.app[FACE]
    namespace = reading.namespace(request, face.namespace)
    reading.only(request)
    body = await reading.json_request(request, RerunBody, may_be_empty=True)
    started = await face.oversight.reruns.rerun(
        namespace,
        request.match_info["id"],
        body.version,
        body.start_key,
        body.reason,
        reading.actor(request),
    )
    return started_reply(started, started_json(started))
