"""Versions of a definition as a client sees them: their states, their workflows, their end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from aiohttp.test_utils import TestClient, TestServer

from sidecar.api.rest.app import build_app
from tests.conformance.store_play import call, register
from tests.unit.api.conftest import Checked
from tests.unit.engine.overseen import Overseen

ORDER = "/v1/definitions/order"


@pytest.fixture
async def sidecar() -> AsyncIterator[Overseen]:
    async with Overseen().working() as overseen:
        yield overseen


@pytest.fixture
async def api(sidecar: Overseen) -> AsyncIterator[Checked]:
    for step in ("one", "two", "three"):
        await register(sidecar.store, call(step))
    async with TestClient(TestServer(build_app(sidecar.face()))) as client:
        yield Checked(client, cast("Any", sidecar))


async def test_versions_are_listed_newest_first_by_page(api: Checked) -> None:
    await api.post("/v1/workflows", {"definition": "order", "version": 2})
    _, first = await api.get(f"{ORDER}/versions?limit=2")
    _, rest = await api.get(f"{ORDER}/versions?limit=2&cursor={first['next_cursor']}")
    found = [
        (one["version"], one["state"], one["open_workflows"], one["open_workflows_more"])
        for one in (*first["versions"], *rest["versions"])
    ]
    assert found == [
        (3, "active", 0, False),
        (2, "active", 1, False),
        (1, "active", 0, False),
    ]
    assert rest["next_cursor"] is None
    assert (await api.get("/v1/definitions/none/versions"))[0] == 404
    assert (await api.get(f"{ORDER}/versions?cursor=x"))[0] == 422


async def test_a_deprecated_version_starts_and_says_so(api: Checked) -> None:
    for _ in range(2):
        status, line = await api.post(f"{ORDER}/versions/2/deprecate")
        assert (status, line["state"]) == (200, "deprecated")
    body = {"definition": "order", "version": 2}
    async with api.client.post("/v1/workflows", json=body) as answer:
        started = await answer.json()
        assert answer.status == 201
        assert started["deprecated"] == "Version 2 of definition order is deprecated."
        assert answer.headers["GoConductor-Deprecated"] == started["deprecated"]
    status, started = await api.post("/v1/workflows", {"definition": "order"})
    assert (status, sorted(started)) == (201, ["id", "status"])
    assert (await api.post(f"{ORDER}/versions/2/restore"))[1]["state"] == "active"
    assert "deprecated" not in (await api.post("/v1/workflows", body))[1]


async def test_a_retired_version_is_refused_with_what_to_start_instead(api: Checked) -> None:
    assert (await api.post(f"{ORDER}/versions/3/retire"))[1]["state"] == "retired"
    status, problem = await api.post("/v1/workflows", {"definition": "order", "version": 3})
    assert (status, problem["code"], problem["field"]) == (409, "conflict", "version")
    assert problem["detail"] == "Version 3 of definition order is retired; start version 2."
    status, started = await api.post("/v1/workflows", {"definition": "order"})
    _, view = await api.get(f"/v1/workflows/{started['id']}")
    assert (status, view["version"]) == (201, 2)
    assert (await api.get(ORDER))[1]["version"] == 2
    for version in (1, 2):
        await api.post(f"{ORDER}/versions/{version}/retire")
    status, problem = await api.post("/v1/workflows", {"definition": "order"})
    assert (status, problem["code"]) == (409, "conflict")
    assert "All versions of definition order are retired" in problem["detail"]


async def test_a_version_is_deleted_when_nothing_refers_to_it(
    api: Checked, sidecar: Overseen
) -> None:
    await api.post("/v1/workflows", {"definition": "order", "version": 1})
    status, problem = await api.ask("DELETE", f"{ORDER}/versions/2")
    assert (status, "only a version that is retired" in problem["detail"]) == (409, True)
    for version in (1, 2):
        await api.post(f"{ORDER}/versions/{version}/retire")
    assert (await api.ask("DELETE", f"{ORDER}/versions/2"))[0] == 409
    sidecar.clock.advance(61)
    status, problem = await api.ask("DELETE", f"{ORDER}/versions/1")
    assert (status, "workflows that run it" in problem["detail"]) == (409, True)
    status, gone = await api.ask("DELETE", f"{ORDER}/versions/2")
    assert (status, gone) == (200, {"name": "order", "version": 2, "state": "deleted"})
    assert (await api.get(f"{ORDER}/versions/2"))[0] == 404
    assert (await api.ask("DELETE", f"{ORDER}/versions/2"))[0] == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [("versions/9/retire", 404), ("versions/0/retire", 422), ("versions/1/forget", 404)],
)
async def test_what_is_not_there_is_not_found(api: Checked, path: str, status: int) -> None:
    assert (await api.post(f"{ORDER}/{path}"))[0] == status
