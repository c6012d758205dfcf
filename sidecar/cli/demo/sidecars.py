"""What the demo asks of the sidecars, over the same REST API that every client has."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import aiohttp

from sidecar.cli.demo.audit import Ended
from sidecar.cli.demo.children import DemoError
from sidecar.cli.demo.orders import Order

DEFINITION = "demo_order"

_WAIT_S = 10
_WITHIN = aiohttp.ClientTimeout(total=_WAIT_S + 20.0)
_AT_REST = frozenset({"completed", "rolled_back", "error", "terminated"})

View = Mapping[str, Any]


class Sidecar:
    """The REST API of one sidecar. Whatever it refuses is a `DemoError`."""

    def __init__(self, http: aiohttp.ClientSession, api: str) -> None:
        self._http = http
        self._api = api

    async def register(self, document: bytes) -> int:
        """Register the definition; its version."""
        headers = {"Content-Type": "application/yaml"}
        registered = await self._ask("POST", "/v1/definitions", data=document, headers=headers)
        return int(registered["version"])

    async def start(self, order: Order) -> str:
        """Start the order's workflow; its id."""
        body = {"definition": DEFINITION, "input": order.input(), "start_key": order.id}
        return str((await self._ask("POST", "/v1/workflows", json=body))["id"])

    async def ended(self, workflow: str) -> View:
        """Wait until the workflow is at rest, and return how it stands."""
        while True:
            view = await self._ask("GET", f"/v1/workflows/{workflow}?wait={_WAIT_S}s")
            if view["status"] in _AT_REST:
                return view

    async def _ask(self, method: str, path: str, **request: Any) -> View:
        url = self._api + path
        try:
            async with self._http.request(method, url, timeout=_WITHIN, **request) as answer:
                body: View = await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise DemoError(f"{method} {url}: {str(error) or type(error).__name__}") from error
        if not answer.ok:
            raise DemoError(f"{method} {url}: {answer.status} {body}")
        return body


def definition() -> bytes:
    """The workflow's definition, as it is registered."""
    return files(__package__).joinpath("order.yaml").read_bytes()


def ended(order: Order, view: View) -> Ended:
    """How the order's workflow ended, in the words of its view."""
    calls = 0
    for step in view["steps"]:
        calls += step["attempt"] + (step["compensation"] or {"attempt": 0})["attempt"]
    return Ended(order.id, order.amount, view["status"], _reason(order, view), calls)


def _reason(order: Order, view: View) -> str:
    error = view["error"] or view["last_error"]
    if view["status"] == "completed" or not error:
        return order.tells
    said = error.get("detail")
    inner = said.get("detail") if isinstance(said, dict) else None
    where = f"{error['step']}: " if error.get("step") else ""
    return where + str(inner or error.get("message") or error.get("code"))
