"""The REST face over the twins, and a client that holds every answer against the document."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer

from sidecar.api.rest.app import build_app
from sidecar.api.rest.hosts import Hosts
from sidecar.api.rest.openapi import document
from tests.unit.api.schema import problems
from tests.unit.engine.faces import Faces

DESCRIPTION = document()


class Checked:
    """A client: each answer must be described, and must be as described."""

    def __init__(self, client: TestClient[Any, Any], faces: Faces) -> None:
        self.client, self.faces = client, faces

    async def ask(self, method: str, path: str, **values: Any) -> tuple[int, Any]:
        """Return the status and the body."""
        async with self.client.request(method, path, **values) as answer:
            body = await answer.json()
            self._check(method, answer, body)
            return answer.status, body

    async def get(self, path: str, **values: Any) -> tuple[int, Any]:
        return await self.ask("GET", path, **values)

    async def post(self, path: str, body: Any = None, **values: Any) -> tuple[int, Any]:
        return await self.ask("POST", path, json=body, **values)

    def _check(self, method: str, answer: ClientResponse, body: Any) -> None:
        assert answer.headers["Cache-Control"] == "no-store"
        operation = _operation(method, answer.url.path)
        if operation is None:
            schema: Any = {"$ref": "#/components/schemas/Problem"}
        else:
            described = operation["responses"][str(answer.status)]["content"]
            schema = described[answer.content_type]["schema"]
        assert problems(body, schema, DESCRIPTION) == []
        if answer.status >= 400:
            assert answer.content_type == "application/problem+json"
            assert body["status"] == answer.status


def _operation(method: str, path: str) -> Any:
    """The operation of the document that a path belongs to."""
    parts = path.split("/")
    for template, operations in sorted(
        DESCRIPTION["paths"].items(), key=lambda one: one[0].count("{")
    ):
        wanted = template.split("/")
        if len(wanted) == len(parts) and all(
            one == part or one.startswith("{") for one, part in zip(wanted, parts, strict=True)
        ):
            return operations.get(method.lower())
    return None


@pytest.fixture
async def rest() -> AsyncIterator[Checked]:
    """The application, with the definition `order` registered."""
    faces = Faces()
    await faces.register()
    await faces.hub.open()
    hosts = Hosts(frozenset({"sagas.example.org"}))
    app = build_app(faces.face(hosts))
    async with TestClient(TestServer(app)) as client:
        yield Checked(client, faces)
    await faces.hub.close()
