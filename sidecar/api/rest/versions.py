"""The operations on the versions of a definition."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from sidecar.api.rest import reading
from sidecar.api.rest.encoding import definition_line, stamp
from sidecar.api.rest.face import FACE, reply
from sidecar.engine.versioning import COUNT_UP_TO
from sidecar.ports.versions import VersionLine, VersionState


async def list_(request: web.Request) -> web.Response:
    """Answer with a page of the versions of a definition, newest first."""
    face = request.app[FACE]
    namespace = reading.namespace(request, face.namespace)
    reading.only(request, "cursor", "limit")
    page = await face.oversight.versions.list(
        namespace,
        request.match_info["name"],
        cursor=request.query.get("cursor"),
        limit=reading.limit(request),
    )
    return reply({"versions": [_line(one) for one in page.items], "next_cursor": page.next_cursor})


async def deprecate(request: web.Request) -> web.Response:
    """Have whoever starts this version be told that there is a better one."""
    return await _set(request, VersionState.DEPRECATED)


async def retire(request: web.Request) -> web.Response:
    """Let nobody start this version any more."""
    return await _set(request, VersionState.RETIRED)


async def restore(request: web.Request) -> web.Response:
    """Take back that a version is deprecated or retired."""
    return await _set(request, VersionState.ACTIVE)


async def delete(request: web.Request) -> web.Response:
    """Delete a retired version to which nothing refers."""
    namespace, name, version = _named(request)
    await request.app[FACE].oversight.versions.delete(namespace, name, version)
    return reply({"name": name, "version": version, "state": "deleted"})


async def _set(request: web.Request, state: VersionState) -> web.Response:
    namespace, name, version = _named(request)
    versions = request.app[FACE].oversight.versions
    return reply(definition_line(await versions.set_state(namespace, name, version, state)))


def _named(request: web.Request) -> tuple[str, str, int]:
    namespace = reading.namespace(request, request.app[FACE].namespace)
    reading.only(request)
    version = reading.number(request.match_info["version"], "version")
    return namespace, request.match_info["name"], version


def _line(one: VersionLine) -> dict[str, Any]:
    return {
        "namespace": one.namespace,
        "name": one.name,
        "version": one.version,
        "hash": one.hash,
        "created_at": stamp(one.created_at),
        "state": one.state,
        "current": one.current,
        "open_workflows": min(one.open, COUNT_UP_TO),
        "open_workflows_more": one.open > COUNT_UP_TO,
    }
