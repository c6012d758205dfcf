"""The callbacks of services: what became of an attempt that was answered with 202.

Whoever holds the token may speak for its attempt, and for nothing else.
"""

from __future__ import annotations

from aiohttp import web

from sidecar.api.rest import models, reading
from sidecar.api.rest.encoding import stamp
from sidecar.api.rest.face import FACE, reply
from sidecar.engine.tasks import Tasks


def _tasks(request: web.Request) -> tuple[Tasks, str]:
    face = request.app[FACE]
    reading.namespace(request, face.namespace)
    reading.only(request)
    return face.tasks, request.match_info["token"]


async def complete(request: web.Request) -> web.Response:
    """The attempt is done."""
    tasks, token = _tasks(request)
    body = await reading.json_request(request, models.CompleteRequest, may_be_empty=True)
    await tasks.complete(token, body.output)
    return reply({})


async def fail(request: web.Request) -> web.Response:
    """The attempt failed."""
    tasks, token = _tasks(request)
    body = await reading.json_request(request, models.FailRequest, may_be_empty=True)
    await tasks.fail(token, body.message, outcome=body.outcome, code=body.code)
    return reply({})


async def heartbeat(request: web.Request) -> web.Response:
    """The service is still at it."""
    tasks, token = _tasks(request)
    await reading.json_request(request, models.EmptyRequest, may_be_empty=True)
    return reply({"deadline": stamp(await tasks.heartbeat(token))})


async def fence(request: web.Request) -> web.Response:
    """Whether the attempt may still have its effect."""
    tasks, token = _tasks(request)
    await tasks.fence(token)
    return reply({})
