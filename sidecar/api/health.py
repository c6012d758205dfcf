"""The metrics and health listener, apart from the API.

`/healthz` tells whether the process is alive (never whether others are: a restart would mend
nothing); `/readyz` whether it takes work: the store answers, the service's gate is open, and
nothing that commits has failed of late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import orjson
from aiohttp import web

from sidecar.engine.agent import Agent
from sidecar.errors import StoreError

READY_WITHIN_S = 2.0
_NO_STORE = {"Cache-Control": "no-store"}


def build_health_app(agent: Agent, render_metrics: Callable[[], bytes]) -> web.Application:
    """Return the application for the metrics port."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n", headers=_NO_STORE)

    async def readyz(_request: web.Request) -> web.Response:
        checks = {"store": await _store_answers(agent), "gate": agent.gate.is_open}
        ready = all(checks.values()) and agent.ready
        body = {
            "ready": ready,
            **checks,
            "gate_reason": agent.gate.reason,
            "commits": agent.committer.sound,
            "draining": agent.heartbeat.draining,
        }
        status = 200 if ready else 503
        return web.Response(
            body=orjson.dumps(body),
            status=status,
            content_type="application/json",
            headers=_NO_STORE,
        )

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(
            body=render_metrics(), headers={"Content-Type": "text/plain; version=0.0.4"}
        )

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    return app


async def _store_answers(agent: Agent) -> bool:
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            await agent.ping_store()
    except (StoreError, TimeoutError):
        return False
    return True
