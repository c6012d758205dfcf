"""The application: every route, and what happens around all of them."""

from __future__ import annotations

import asyncio

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from sidecar.api.rest import problems
from sidecar.api.rest.encoding import encode
from sidecar.api.rest.face import FACE, Face
from sidecar.api.rest.openapi import document
from sidecar.api.rest.operations import ROUTES
from sidecar.api.rest.problems import NO_STORE
from sidecar.api.rest.reading import check_origin
from sidecar.api.rest.routes import Route
from sidecar.engine.intake import MAX_BYTES
from sidecar.errors import GoConductorError

_log = structlog.get_logger(__name__)


def build_app(face: Face) -> web.Application:
    """Return the application for the namespace that this sidecar serves."""
    app = web.Application(middlewares=[_guard], client_max_size=MAX_BYTES)
    app[FACE] = face
    for route in ROUTES:
        app.router.add_route(route.method, route.path, _bounded(route))
    description = encode(document())

    async def openapi(_request: web.Request) -> web.Response:
        return web.Response(body=description, content_type="application/json", headers=NO_STORE)

    app.router.add_get("/openapi.json", openapi)
    return app


def _bounded(route: Route) -> Handler:
    """The handler of a route, held to its deadline."""
    handler, deadline = route.handler, route.deadline
    if deadline is None:
        return handler

    async def bounded(request: web.Request) -> web.StreamResponse:
        async with asyncio.timeout(deadline):
            return await handler(request)

    return bounded


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever goes wrong into an answer that a client can understand."""
    hosts = request.app[FACE].hosts
    try:
        if hosts is not None:
            hosts.check(request)
        check_origin(request)
        return await handler(request)
    except GoConductorError as error:
        answer = problems.of_error(error)
        if answer.status == web.HTTPInternalServerError.status_code:
            _log.exception("request failed", method=request.method, path=request.path)
        return answer
    except web.HTTPException as error:
        allowed = error.headers.get("Allow")
        return problems.of_http(error.status, {"Allow": allowed} if allowed else None)
    except TimeoutError:
        _log.warning("request timed out", method=request.method, path=request.path)
        return problems.timed_out()
    except web.RequestPayloadError:
        return problems.of_http(400)
    except Exception:  # noqa: BLE001 - the last edge: logged, and never shown to the client
        _log.exception("request failed", method=request.method, path=request.path)
        return problems.internal()
