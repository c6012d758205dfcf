"""What every handler has at hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from sidecar.api.rest.encoding import encode
from sidecar.api.rest.hosts import Hosts
from sidecar.api.rest.problems import NO_STORE
from sidecar.engine.commands import Commands
from sidecar.engine.oversight import Oversight
from sidecar.engine.queries import Queries
from sidecar.engine.tasks import Tasks
from sidecar.engine.verbs import Verbs
from sidecar.engine.waiting import WaitHub


@dataclass(frozen=True, slots=True)
class Face:
    """The application layer, the namespace that this sidecar serves, and under which names.

    `hosts` None is under any.
    """

    commands: Commands
    verbs: Verbs
    tasks: Tasks
    queries: Queries
    hub: WaitHub
    namespace: str
    hosts: Hosts | None = None
    oversight: Oversight = field(kw_only=True)


FACE = web.AppKey("face", Face)


def reply(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Return JSON; nothing between us and the client may keep it."""
    return web.Response(
        body=encode(body),
        status=status,
        content_type="application/json",
        headers=NO_STORE if headers is None else {**NO_STORE, **headers},
    )
