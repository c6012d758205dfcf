"""The operation on services: who lives, and what they offer."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from sidecar.api.rest import reading
from sidecar.api.rest.encoding import stamp
from sidecar.api.rest.face import FACE, reply
from sidecar.engine.services import ServiceView
from sidecar.ports.records import SidecarRecord


async def list_(request: web.Request) -> web.Response:
    """Answer with a page of services, by name."""
    face = request.app[FACE]
    namespace = reading.namespace(request, face.namespace)
    reading.only(request, "cursor", "limit")
    page = await face.oversight.services.list(
        namespace, cursor=request.query.get("cursor"), limit=reading.limit(request)
    )
    services = [_service(one) for one in page.items]
    return reply({"services": services, "next_cursor": page.next_cursor})


def _service(view: ServiceView) -> dict[str, Any]:
    return {
        "service": view.service,
        "catalogue": view.catalogue,
        "differs": view.differs,
        "actions": view.actions,
        "sidecars": [_sidecar(one) for one in view.sidecars],
    }


def _sidecar(record: SidecarRecord) -> dict[str, Any]:
    beat = record.beat
    return {
        "incarnation": beat.incarnation,
        "host": beat.host,
        "version": beat.version,
        "ready": beat.ready,
        "draining": beat.draining,
        "catalogue": beat.catalogue,
        "started_at": stamp(record.started_at),
        "seen_at": stamp(record.seen_at),
    }
