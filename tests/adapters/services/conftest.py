"""A server of bytes, and clients of it that are closed in the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from sidecar.adapters.clock import SystemClock
from sidecar.adapters.services.http import HttpService
from tests.adapters.services.raw_server import Connected, RawServer


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with RawServer() as running:
        yield running


@pytest.fixture
async def connected(server: RawServer) -> AsyncIterator[Connected]:
    made: list[HttpService] = []

    async def connect(url: str | None = None, **options: object) -> HttpService:
        given: Any = options
        service = HttpService(url or server.url, clock=SystemClock(), **given)
        made.append(service)
        await service.open()
        return service

    yield connect
    for each in made:
        await each.close()
