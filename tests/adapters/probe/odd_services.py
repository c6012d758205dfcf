"""Services that are wrong in every way, or right in an unusual one."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from multidict import CIMultiDictProxy

from tests.adapters.probe.sound_service import MemoryService, Service, problem


class NoKeys(Service):
    """It acts whenever it is asked."""

    def __init__(self) -> None:
        self.acted = self.receipts = 0

    async def do(self, step: str, body: Any) -> web.StreamResponse:
        self.acted += 1
        self.receipts += 1
        return web.json_response({"receipt": self.receipts})

    async def undo(self, step: str, body: Any) -> web.StreamResponse:
        self.acted -= 1
        return web.Response()

    async def count(self) -> int:
        return self.acted

    async def outcome(self, step: str) -> str | None:
        return None


class BusyAtFirst(MemoryService):
    """The first request with each key is told to come again."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status_first, self.met = status, set[tuple[str, str]]()

    async def do(self, step: str, body: Any) -> web.StreamResponse:
        return self._first("do", step) or await super().do(step, body)

    async def undo(self, step: str, body: Any) -> web.StreamResponse:
        return self._first("undo", step) or await super().undo(step, body)

    def _first(self, action: str, step: str) -> web.Response | None:
        if (action, step) in self.met:
            return None
        self.met.add((action, step))
        return problem(self.status_first, "come again")


class AlwaysAnswers(MemoryService):
    def __init__(self, status: int) -> None:
        super().__init__()
        self.always = status

    async def do(self, step: str, body: Any) -> web.StreamResponse:
        return problem(self.always, "always this")


class AnswersBytes(MemoryService):
    """It keeps the contract, but for the body of what it answers."""

    def __init__(self, body: bytes, headers: dict[str, str]) -> None:
        super().__init__()
        self.body, self.headers = body, headers

    async def do(self, step: str, body: Any) -> web.StreamResponse:
        done = await super().do(step, body)
        if done.status == 410:
            return done
        headers = {"Content-Type": "application/json", **self.headers}
        return web.Response(status=201, body=self.body, headers=headers)


class NeverAnswers(MemoryService):
    async def do(self, step: str, body: Any) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError


class NeedsNewOrders(MemoryService):
    """An order can be charged once, whoever asks."""

    def __init__(self) -> None:
        super().__init__()
        self.orders: dict[str, str] = {}

    async def do(self, step: str, body: Any) -> web.StreamResponse:
        if self.orders.setdefault(body["order"], step) != step:
            return problem(422, "this order is charged already")
        return await super().do(step, body)


class Listens(MemoryService):
    """It keeps the headers of every execute and compensation."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[CIMultiDictProxy[str]] = []

    async def execute(self, request: web.Request) -> web.StreamResponse:
        self.heard.append(request.headers)
        return await super().execute(request)

    async def compensate(self, request: web.Request) -> web.StreamResponse:
        self.heard.append(request.headers)
        return await super().compensate(request)
