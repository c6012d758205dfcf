"""One of the demo's three services: an HTTP server that knows nothing of sagas but the contract.

    python -m sidecar.cli.demo.service payments --port 8081 --ledger payments.jsonl

It acts at most once for each workflow and step, answers a repeated Idempotency-Key from its book,
undoes what it did, and refuses what arrives after it was undone. And it is flaky on purpose:
see `orders.Trouble`.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from sidecar.cli.demo.ledger import Entry, Fact, Ledger
from sidecar.cli.demo.orders import LIMIT, OUT_OF_STOCK, UNDELIVERABLE, Trouble, trouble_of

_SLOW_S = 1.6  # longer than the time-out that the demo's definition gives a call
_PROBLEM = "application/problem+json"
_AFTER_ACTING = frozenset(
    {
        Trouble.FAILS_AFTER_ACTING,
        Trouble.SLOW_AFTER_ACTING,
        Trouble.RESETS_AFTER_ACTING,
        Trouble.ALWAYS_FAILS_AFTER_ACTING,
    }
)
_EVERY_TIME = frozenset({Trouble.ALWAYS_FAILS_AFTER_ACTING, Trouble.ALWAYS_RESETS})

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Trade:
    """What a service does: where, which word its receipts carry, and what it will not do."""

    execute: str
    compensate: str
    receipt: str
    refusal: Callable[[Json], str | None]


def _over_limit(asked: Json) -> str | None:
    if int(asked["amount"]) <= LIMIT:
        return None
    return f"{int(asked['amount']) / 100:.2f} is over the limit of {LIMIT / 100:.2f}"


def _out_of_stock(asked: Json) -> str | None:
    return f"no {asked['item']} in stock" if asked["item"] == OUT_OF_STOCK else None


def _undeliverable(asked: Json) -> str | None:
    if not str(asked["address"]).endswith(UNDELIVERABLE):
        return None
    return f"nobody delivers to {UNDELIVERABLE}"


TRADES = {
    "payments": Trade("/charges", "/refunds", "charge", _over_limit),
    "inventory": Trade("/reservations", "/reservations/release", "reservation", _out_of_stock),
    "shipping": Trade("/shipments", "/shipments/cancel", "tracking", _undeliverable),
}


class DemoService:
    """The handlers of one service, over its book."""

    def __init__(self, name: str, ledger: Ledger) -> None:
        self.name = name
        self._trade = TRADES[name]
        self._ledger = ledger
        self._met: set[str] = set()

    def app(self) -> web.Application:
        """The service as an aiohttp application."""
        app = web.Application()
        app.router.add_get("/healthz", self.health)
        app.router.add_post(self._trade.execute, self.execute)
        app.router.add_post(self._trade.compensate, self.compensate)
        return app

    async def health(self, _request: web.Request) -> web.Response:
        """Say that the service is there."""
        return web.json_response({"service": self.name})

    async def execute(self, request: web.Request) -> web.StreamResponse:
        """Do it, once."""
        asked = await _asked(request)
        if asked is None:
            return _problem(400, "the body is not an order in JSON")
        return await self._handle(request, "execute", asked, self._do)

    async def compensate(self, request: web.Request) -> web.StreamResponse:
        """Undo it, or see to it that it is never done."""
        asked = await _asked(request, "input")
        if asked is None:
            return _problem(422, "the body names no order to undo")
        return await self._handle(request, "compensate", asked, self._undo)

    async def _handle(
        self,
        request: web.Request,
        action: str,
        asked: Json,
        act: Callable[[str, Json], Entry],
    ) -> web.StreamResponse:
        key = request.headers.get("Idempotency-Key", "").strip('"')
        if not key.endswith(f"/{action}"):
            return _problem(400, f"the Idempotency-Key does not end in /{action}")
        trouble = trouble_of(self.name, action, str(asked["order_id"]))
        if key in self._met and trouble not in _EVERY_TIME:
            trouble = None
        self._met.add(key)
        if trouble is None or trouble in _AFTER_ACTING:
            # No await from here to the write: the same key is never acted on twice.
            entry = self._ledger.answered(key)
            if entry is None:
                entry = act(key, asked)
                self._ledger.write(entry)
            if trouble is None:
                return _answer(entry)
        return await self._fail(request, trouble)

    def _do(self, key: str, asked: Json) -> Entry:
        effect = key.removesuffix("/execute")
        if self._ledger.says(effect, Fact.BARRED) or self._ledger.says(effect, Fact.UNDONE):
            return _refusal(key, effect, asked, "this was undone before it arrived")
        why = self._trade.refusal(asked)
        if why is not None:
            return _refusal(key, effect, asked, why)
        receipt: dict[str, object] = {self._trade.receipt: f"{self.name}-{asked['order_id']}"}
        return _entry(Fact.APPLIED, key, effect, asked, 200, receipt)

    def _undo(self, key: str, asked: Json) -> Entry:
        effect = key.removesuffix("/compensate")
        applied = self._ledger.says(effect, Fact.APPLIED)
        fact = Fact.UNDONE if applied else Fact.BARRED
        return _entry(fact, key, effect, asked, 200, {"undone": applied})

    async def _fail(self, request: web.Request, trouble: Trouble) -> web.StreamResponse:
        match trouble:
            case Trouble.UNAVAILABLE:
                return _problem(503, "try again in a moment", {"Retry-After": "0"})
            case Trouble.SLOW_AFTER_ACTING:
                await asyncio.sleep(_SLOW_S)
                return _problem(500, "you should not have waited")
            case Trouble.FAILS_AFTER_ACTING | Trouble.ALWAYS_FAILS_AFTER_ACTING:
                return _problem(500, f"{self.name} stumbled after acting")
            case Trouble.RESETS_AFTER_ACTING | Trouble.ALWAYS_RESETS:
                _reset(request)
                return web.Response()


async def _asked(request: web.Request, within: str | None = None) -> Json | None:
    """The order that a body speaks of; None for what is not one. A 5xx would be tried again."""
    try:
        body = await request.json()
    except (ValueError, RecursionError):  # the second: nested too deeply for the reader
        return None
    if within is not None and isinstance(body, dict):
        body = body.get(within)
    return body if isinstance(body, dict) and "order_id" in body else None


def _entry(
    fact: Fact, key: str, effect: str, asked: Json, status: int, answer: dict[str, object]
) -> Entry:
    amount = int(asked.get("amount", 0))
    return Entry(fact, key, effect, str(asked["order_id"]), amount, status, answer)


def _refusal(key: str, effect: str, asked: Json, why: str) -> Entry:
    return _entry(Fact.REFUSED, key, effect, asked, 422, {"title": "refused", "detail": why})


def _answer(entry: Entry) -> web.Response:
    kind = _PROBLEM if entry.fact is Fact.REFUSED else "application/json"
    return web.json_response(entry.answer, status=entry.status, content_type=kind)


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(
        {"detail": detail}, status=status, headers=headers, content_type=_PROBLEM
    )


def _reset(request: web.Request) -> None:
    """Break the connection as a crash would: the client gets RST, never an answer."""
    if request.transport is None:
        return
    connection = request.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()


async def serve(name: str, port: int, ledger: Path) -> None:
    """Serve on loopback until told to stop."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    book = Ledger(ledger)
    runner = web.AppRunner(DemoService(name, book).app(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await stopped.wait()
    finally:
        await runner.cleanup()
        book.close()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="One of the services of the demo.")
    parser.add_argument("name", choices=sorted(TRADES))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ledger", type=Path, required=True)
    given = parser.parse_args()
    asyncio.run(serve(given.name, given.port, given.ledger))


if __name__ == "__main__":
    main()
