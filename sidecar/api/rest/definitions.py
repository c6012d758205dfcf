"""The operations on definitions."""

from __future__ import annotations

from aiohttp import web

from sidecar.api.rest import reading
from sidecar.api.rest.encoding import definition_json, definitions_json
from sidecar.api.rest.face import FACE, reply

MEDIA_TYPES = frozenset(
    {
        "application/json",
        "application/yaml",
        "application/x-yaml",
        "text/yaml",
        "text/x-yaml",
    }
)


async def register(request: web.Request) -> web.Response:
    """Keep a definition: 201 for a new version, 200 for an old one again."""
    face = request.app[FACE]
    namespace = reading.namespace(request, face.namespace)
    reading.only(request, "allow_missing")
    allow_missing = reading.flag(request, "allow_missing")
    text = await reading.body(request, MEDIA_TYPES)
    view, created, report = await face.commands.register_definition(
        namespace, text, request.content_type, allow_missing=allow_missing
    )
    body = {
        "name": view.name,
        "version": view.version,
        "hash": view.hash,
        "state": view.state,
        "verdict": report.verdict.value,
        "findings": [one.told() for one in report.findings],
    }
    if not created:
        return reply(body)
    return reply(body, 201, {"Location": f"/v1/definitions/{view.name}/versions/{view.version}"})


async def check(request: web.Request) -> web.Response:
    """Say whether a document could be registered, and what is weak in it; nothing is kept."""
    face = request.app[FACE]
    namespace = reading.namespace(request, face.namespace)
    reading.only(request, "allow_missing")
    allow_missing = reading.flag(request, "allow_missing")
    text = await reading.body(request, MEDIA_TYPES)
    found, report = await face.commands.check_definition(
        namespace, text, request.content_type, allow_missing=allow_missing
    )
    steps = [step.name for step in found.steps]
    told = report.told()
    del told["definition"]
    return reply({"name": found.name, "steps": steps, **told})


async def list_(request: web.Request) -> web.Response:
    """Answer with a page of definitions, by name."""
    face = request.app[FACE]
    namespace = reading.namespace(request, face.namespace)
    reading.only(request, "cursor", "limit")
    page = await face.queries.definitions(
        namespace, cursor=request.query.get("cursor"), limit=reading.limit(request)
    )
    return reply(definitions_json(page))


async def get(request: web.Request) -> web.Response:
    """Answer with the latest version of a definition."""
    face = request.app[FACE]
    namespace = reading.namespace(request, face.namespace)
    reading.only(request)
    view = await face.queries.definition(namespace, request.match_info["name"])
    return reply(definition_json(view))


async def get_version(request: web.Request) -> web.Response:
    """Answer with one version of a definition."""
    face = request.app[FACE]
    namespace = reading.namespace(request, face.namespace)
    reading.only(request)
    version = reading.number(request.match_info["version"], "version")
    view = await face.queries.definition(namespace, request.match_info["name"], version)
    return reply(definition_json(view))
