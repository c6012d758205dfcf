"""The operation on what is owed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import orjson
from aiohttp import web

from sidecar.api.rest import reading
from sidecar.api.rest.encoding import stamp
from sidecar.api.rest.face import FACE, reply
from sidecar.definitions.durations import parse_duration
from sidecar.engine.debt import OVERDUE_AFTER, DebtView, ServiceDebt
from sidecar.errors import InvalidRequest


async def get(request: web.Request) -> web.Response:
    """Answer with what is owed by each service, and a page of it one by one, the oldest first."""
    face = request.app[FACE]
    namespace = reading.namespace(request, face.namespace)
    reading.only(request, "older_than", "service", "cursor", "limit")
    book = face.oversight.debt
    older_than = _older_than(request)
    page = await book.list(
        namespace,
        service=reading.text(request, "service"),
        cursor=request.query.get("cursor"),
        limit=reading.limit(request),
    )
    summary = await book.summary(namespace, older_than)
    return reply(
        {
            "older_than_s": older_than.total_seconds(),
            "services": [_service(one) for one in summary.services],
            "more": summary.more,
            "entries": [_entry(one) for one in page.items],
            "next_cursor": page.next_cursor,
        }
    )


def _older_than(request: web.Request) -> timedelta:
    text = request.query.get("older_than")
    if text is None:
        return OVERDUE_AFTER
    try:
        return parse_duration(text)
    except ValueError as error:
        raise InvalidRequest(f"older_than {error}.", field="older_than") from None


def _service(one: ServiceDebt) -> dict[str, Any]:
    return {
        "service": one.service or None,
        "owed": one.owed,
        "overdue": one.overdue,
        "failed": one.failed,
        "oldest_at": stamp(one.oldest_at),
        "oldest_age_s": round(one.oldest_age_s, 3),
    }


def _entry(one: DebtView) -> dict[str, Any]:
    return {
        "workflow": one.workflow,
        "definition": one.definition,
        "version": one.version,
        "workflow_status": one.workflow_status,
        "step": one.step,
        "index": one.index,
        "service": one.service,
        "status": one.status,
        "since": stamp(one.since),
        "age_s": round(one.age_s, 3),
        "tries": one.tries,
        "next_attempt_at": stamp(one.next_attempt_at),
        "error": None if one.error is None else orjson.Fragment(one.error),
    }
