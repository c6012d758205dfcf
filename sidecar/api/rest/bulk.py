"""The operations on bulk jobs."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from sidecar.api.rest import reading
from sidecar.api.rest.encoding import stamp
from sidecar.api.rest.face import FACE, reply
from sidecar.api.rest.oversight_models import BulkBody, BulkFilterBody
from sidecar.engine.bulk import BulkRequest
from sidecar.errors import InvalidRequest
from sidecar.ports.bulk import BulkFilter, BulkJob, BulkMember, BulkResult


async def begin(request: web.Request) -> web.Response:
    """Begin a job: 202; with `dry_run` tell what it would choose: 200."""
    face = request.app[FACE]
    namespace = reading.namespace(request, face.namespace)
    reading.only(request)
    body = await reading.json_request(request, BulkBody)
    asked = BulkRequest(
        verb=body.verb,
        filter=_filter(body.filter),
        reason=body.reason,
        signal=body.signal,
        payload=body.payload,
        limit=body.limit,
        actor=reading.actor(request),
    )
    bulk = face.oversight.bulk
    if body.dry_run:
        found = await bulk.dry_run(namespace, asked)
        return reply({"selected": found.count, "more": found.more, "first": list(found.first)})
    job = await bulk.begin(namespace, asked)
    return reply(_job(job), 202, {"Location": f"/v1/bulk/{job.id}"})


async def get(request: web.Request) -> web.Response:
    """Answer with a job and a page of what became of its workflows."""
    face = request.app[FACE]
    namespace = reading.namespace(request, face.namespace)
    reading.only(request, "result", "cursor", "limit")
    bulk = face.oversight.bulk
    result, limit = _result(request), reading.limit(request)
    job = await bulk.get(namespace, request.match_info["job"])
    page = await bulk.members(job, result=result, cursor=request.query.get("cursor"), limit=limit)
    members = [_member(one) for one in page.items]
    return reply({**_job(job), "workflows": members, "next_cursor": page.next_cursor})


async def list_(request: web.Request) -> web.Response:
    """Answer with a page of jobs, newest first."""
    face = request.app[FACE]
    namespace = reading.namespace(request, face.namespace)
    reading.only(request, "cursor", "limit")
    page = await face.oversight.bulk.list(
        namespace, cursor=request.query.get("cursor"), limit=reading.limit(request)
    )
    return reply({"jobs": [_job(one) for one in page.items], "next_cursor": page.next_cursor})


async def stop(request: web.Request) -> web.Response:
    """Let no more workflows of a job have their turn."""
    face = request.app[FACE]
    namespace = reading.namespace(request, face.namespace)
    reading.only(request)
    return reply(
        _job(await face.oversight.bulk.stop_job(namespace, request.match_info["job"])), 202
    )


def _filter(body: BulkFilterBody) -> BulkFilter:
    return BulkFilter(
        status=frozenset(body.status),
        definition=body.definition,
        version=body.version,
        labels=body.labels,
        created_before=body.created_before,
        created_after=body.created_after,
    )


def _result(request: web.Request) -> BulkResult | None:
    text = request.query.get("result")
    try:
        return None if text is None else BulkResult(text)
    except ValueError:
        known = ", ".join(BulkResult)
        raise InvalidRequest(f"result must be one of: {known}.", field="result") from None


def _job(job: BulkJob) -> dict[str, Any]:
    return {
        "id": job.id,
        "verb": job.verb,
        "arguments": orjson.Fragment(job.arguments),
        "filter": orjson.Fragment(job.filter),
        "actor": job.actor,
        "status": job.status,
        "selected": job.selected,
        "more": job.more,
        "open": job.selected - job.done - job.refused - job.failed,
        "done": job.done,
        "refused": job.refused,
        "failed": job.failed,
        "moved_at": stamp(job.moved_at),
        "created_at": stamp(job.created_at),
        "ended_at": stamp(job.ended_at),
    }


def _member(one: BulkMember) -> dict[str, Any]:
    return {"id": one.workflow, "result": one.result, "detail": one.detail}
