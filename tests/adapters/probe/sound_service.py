"""A service that keeps the contract, in memory; each broken one is this with one thing wrong.

The face (`Service`) knows HTTP and nothing of how keys are kept; it is served over PostgreSQL too.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

from sidecar.ports.probe import Endpoint, Probed
from sidecar.saga.definition import JsonText

COMPENSATED = "this was undone before it arrived"


class HasApp(Protocol):
    """What can be served."""

    def app(self) -> web.Application:
        """Its handlers."""


class Service(ABC):
    """The HTTP face of a service with one action, a status and a count of effects."""

    handler_cancellation = False
    """Whether the server ends the work of a client that has gone."""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/charges", self.execute)
        app.router.add_post("/refunds", self.compensate)
        app.router.add_get("/charges/status", self.status)
        app.router.add_get("/effects", self.effects)
        return app

    async def execute(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await self.read(request)
        except (ValueError, RecursionError):
            return problem(400, "the body cannot be read")
        return await self.do(step_of(request), body)

    async def compensate(self, request: web.Request) -> web.StreamResponse:
        return await self.undo(step_of(request), await request.json())

    async def read(self, request: web.Request) -> Any:
        return json.loads(await request.read())

    async def effects(self, request: web.Request) -> web.Response:
        return web.json_response(await self.count())

    async def status(self, request: web.Request) -> web.Response:
        outcome = await self.outcome(step_of(request))
        if outcome is None:
            return problem(404, "nothing is known of this key")
        return web.json_response({"outcome": outcome})

    @abstractmethod
    async def do(self, step: str, body: Any) -> web.StreamResponse:
        """Answer an execute."""

    @abstractmethod
    async def undo(self, step: str, body: Any) -> web.StreamResponse:
        """Answer a compensation."""

    @abstractmethod
    async def count(self) -> int:
        """How many effects stand: executed less undone."""

    @abstractmethod
    async def outcome(self, step: str) -> str | None:
        """What became of the execute, as far as that can be promised."""


@dataclass
class Row:
    """The barrier's row of one step."""

    state: str
    answer: Any = None


class MemoryService(Service):
    """Keeps its barrier in a dictionary, with a lock for each step."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.acted: Counter[str] = Counter()
        self.receipts = 0

    async def do(self, step: str, body: Any) -> web.StreamResponse:
        async with self.locks[step]:
            return self.do_locked(step, body)

    def do_locked(self, step: str, body: Any) -> web.StreamResponse:
        row = self.rows.get(step)
        if row is None:
            row = self.rows[step] = Row("done", self.act(step))
        if row.state == "compensated":
            return problem(410, COMPENSATED)
        return web.json_response(row.answer, status=201)

    async def undo(self, step: str, body: Any) -> web.StreamResponse:
        async with self.locks[step]:
            return self.undo_locked(step)

    def undo_locked(self, step: str) -> web.StreamResponse:
        row = self.rows.get(step)
        if row is not None and row.state == "done":
            self.acted[step] -= 1
        self.rows[step] = Row("compensated")
        return web.Response()

    def act(self, step: str) -> Any:
        self.acted[step] += 1
        self.receipts += 1
        return {"receipt": self.receipts}

    async def count(self) -> int:
        return self.acted.total()

    async def outcome(self, step: str) -> str | None:
        row = self.rows.get(step)
        return None if row is None else {"done": "succeeded"}.get(row.state, "refused")


def problem(status: int, detail: str) -> web.Response:
    """An answer that says what is wrong."""
    return web.json_response(
        {"detail": detail}, status=status, content_type="application/problem+json"
    )


def step_of(request: web.Request) -> str:
    """The idempotency key without its action."""
    key = request.headers["Idempotency-Key"]
    assert key.startswith('"')
    assert key.endswith('"')
    return key.strip('"').rpartition("/")[0]


@asynccontextmanager
async def served(service: HasApp, socket: Path | None = None) -> AsyncIterator[str]:
    """The service on a port of its own, or on a socket; its URL."""
    runner = web.AppRunner(
        service.app(),
        access_log=None,
        handler_cancellation=getattr(service, "handler_cancellation", False),
        shutdown_timeout=1.0,
    )
    await runner.setup()
    try:
        if socket is not None:
            await web.UnixSite(runner, str(socket)).start()
            yield f"unix://{socket}"
        else:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def probed(url: str, **changed: Any) -> Probed:
    """Everything that can be asked of these services."""
    given: dict[str, Any] = {
        "execute": Endpoint("/charges"),
        "compensate": Endpoint("/refunds"),
        "status": "/charges/status",
        "effects": "/effects",
        "input": JsonText('{"amount": 12}'),
        "timeout": 5.0,
        **changed,
    }
    return Probed(url=url, action="charge", **given)
