"""The operations on workflows, as a client sees them."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import pytest
from aiohttp import ClientResponse

from sidecar.errors import Overloaded, StoreDataError, StoreUnavailable
from sidecar.saga.states import WorkflowStatus
from sidecar.saga.workflow import WorkflowId
from tests.unit.api.conftest import Checked
from tests.unit.engine.faces import until

START = {"definition": "order", "input": {"amount": 1}}


async def waiting(rest: Checked) -> None:
    await until(lambda: rest.faces.hub.waiters)


async def end(rest: Checked, id_: str, status: WorkflowStatus = WorkflowStatus.COMPLETED) -> None:
    await until(lambda: WorkflowId(id_) in rest.faces.store.workflows)
    rest.faces.store.put(rest.faces.store.workflows[WorkflowId(id_)], status=status)


async def test_a_start_is_201_and_the_same_again_200(rest: Checked) -> None:
    body = {**START, "start_key": "k", "labels": {"tenant": "north"}}
    first, started = await rest.post("/v1/workflows", body)
    second, again = await rest.post("/v1/workflows", body)
    other, problem = await rest.post("/v1/workflows", {**body, "input": {"amount": 2}})
    assert (first, second, other) == (201, 200, 422)
    assert started == again
    assert set(started) == {"id", "status"}
    assert (problem["code"], problem["field"]) == ("start_key_reused", "start_key")


async def test_a_start_says_where_the_workflow_is(rest: Checked) -> None:
    async with rest.client.post("/v1/workflows", json=START) as answer:
        location = answer.headers["Location"]
    status, view = await rest.get(location)
    assert (status, view["input"]) == (200, {"amount": 1})


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "definition"),
        ({"definition": 1}, "definition"),
        ({**START, "status": "completed"}, "status"),
        ({**START, "inputs": {}}, "inputs"),
        ({**START, "version": 0}, "version"),
        ({**START, "version": "1"}, "version"),
        ({**START, "labels": {"a": 1}}, "labels.a"),
        ({**START, "labels": []}, "labels"),
        ({**START, "start_key": "x" * 256}, "start_key"),
        ({**START, "input": {"a": "\0"}}, "input.a"),
        ([], None),
    ],
)
async def test_a_body_that_is_wrong_is_refused_by_its_field(
    rest: Checked, body: Any, field: str | None
) -> None:
    status, problem = await rest.post("/v1/workflows", body)
    assert (status, problem["code"]) == (422, "invalid_request")
    assert problem.get("field") == field
    assert rest.faces.store.workflows == {}


async def test_a_body_that_is_not_json_is_refused(rest: Checked) -> None:
    headers = {"Content-Type": "application/json"}
    for raw in (b"{", b"", b"\xff", b'{"definition": NaN}'):
        status, problem = await rest.ask("POST", "/v1/workflows", data=raw, headers=headers)
        assert (status, problem["code"]) == (400, "malformed_json")


async def test_a_body_of_another_type_or_compressed_is_refused(rest: Checked) -> None:
    for headers in (
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ):
        status, problem = await rest.ask(
            "POST", "/v1/workflows", data=json.dumps(START), headers=headers
        )
        assert (status, problem["code"]) == (415, "unsupported_media_type")


async def test_one_byte_too_many_is_refused(rest: Checked) -> None:
    headers = {"Content-Type": "application/json"}
    empty = len(json.dumps({"definition": "order", "input": ""}))

    def body(size: int) -> io.BytesIO:
        return io.BytesIO(
            json.dumps({"definition": "order", "input": "x" * (size - empty)}).encode()
        )

    limit = 1024 * 1024
    status, _ = await rest.ask("POST", "/v1/workflows", data=body(limit), headers=headers)
    assert status == 201
    status, problem = await rest.ask("POST", "/v1/workflows", data=body(limit + 1), headers=headers)
    assert (status, problem["code"]) == (413, "too_large")


async def test_a_start_that_waits_answers_with_the_end(rest: Checked) -> None:
    asked = asyncio.create_task(rest.post("/v1/workflows", START, params={"wait": "30s"}))
    await waiting(rest)
    await end(rest, "00000000-0000-7000-8000-000000000001")
    status, view = await asked
    assert (status, view["status"]) == (201, "completed")


async def test_a_start_that_waits_for_an_older_one_answers_with_its_end(rest: Checked) -> None:
    body = {**START, "start_key": "k"}
    _, first = await rest.post("/v1/workflows", body)
    await end(rest, first["id"])
    status, view = await rest.post("/v1/workflows", body, params={"wait": "30s"})
    assert (status, view["id"], view["status"]) == (200, first["id"], "completed")


async def test_a_wait_ends_with_its_time(rest: Checked) -> None:
    status, view = await rest.post("/v1/workflows", START, params={"wait": "1ms"})
    assert (status, view["status"]) == (201, "in_progress")
    status, view = await rest.get(f"/v1/workflows/{view['id']}", params={"wait": "1ms"})
    assert (status, view["status"]) == (200, "in_progress")


@pytest.mark.parametrize("status", ["completed", "rolled_back", "error"])
async def test_reading_waits_for_the_end(rest: Checked, status: str) -> None:
    _, started = await rest.post("/v1/workflows", START)
    asked = asyncio.create_task(rest.get(f"/v1/workflows/{started['id']}", params={"wait": "2m"}))
    await waiting(rest)
    await end(rest, started["id"], WorkflowStatus(status))
    assert (await asked)[1]["status"] == status


@pytest.mark.parametrize("wait", ["", "30", "-1s", "s", "1h30", "1e3s"])
async def test_a_wait_that_is_no_span_of_time_is_refused(rest: Checked, wait: str) -> None:
    status, problem = await rest.post("/v1/workflows", START, params={"wait": wait})
    assert (status, problem["field"]) == (422, "wait")
    assert rest.faces.store.workflows == {}


async def test_a_view_has_every_field_of_the_contract(rest: Checked) -> None:
    _, started = await rest.post("/v1/workflows", START)
    _, view = await rest.get(f"/v1/workflows/{started['id']}")
    assert " ".join(view) == (
        "id namespace definition version status reason paused waiting_on next_attempt_at "
        "last_error input output error labels created_at started_at ended_at steps"
    )
    assert " ".join(view["steps"][0]) == (
        "name index service status attempt tries input output error started_at ended_at "
        "compensation items"
    )


async def test_what_is_not_there_is_404(rest: Checked) -> None:
    for path in ("x", "00000000-0000-7000-8000-0000000000ff", "%00", "a%0Ab"):
        for tail in ("", "?wait=1s", "/events"):
            status, problem = await rest.get(f"/v1/workflows/{path}{tail}")
            assert (status, problem["code"]) == (404, "not_found")
    status, problem = await rest.post("/v1/workflows", {"definition": "none"})
    assert (status, problem["field"]) == (404, "definition")


async def test_a_list_is_filtered_and_paged(rest: Checked) -> None:
    for tenant in ("north", "south", "north"):
        await rest.post("/v1/workflows", {**START, "labels": {"tenant": tenant}})
    path = "/v1/workflows?label=tenant:north&definition=order&status=in_progress,queued&limit=1"
    _, first = await rest.get(path)
    _, rest_of_it = await rest.get(f"{path}&cursor={first['next_cursor']}")
    assert [len(first["workflows"]), len(rest_of_it["workflows"])] == [1, 1]
    assert rest_of_it["next_cursor"] is None
    _, none = await rest.get("/v1/workflows?status=completed&status=error")
    assert none == {"workflows": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=done", "status"),
        ("label=x", "label"),
        ("label=a:1&label=a:2", "label"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("limit=²", "limit"),
        ("cursor=x", "cursor"),
        ("statsu=error", "statsu"),
        ("definition=%00", "definition"),
    ],
)
async def test_a_list_refuses_what_it_does_not_understand(
    rest: Checked, query: str, field: str
) -> None:
    status, problem = await rest.get(f"/v1/workflows?{query}")
    assert (status, problem["field"]) == (422, field)


async def test_cancel_is_202_the_same_again_and_409_when_finished(rest: Checked) -> None:
    _, started = await rest.post("/v1/workflows", START)
    path = f"/v1/workflows/{started['id']}/cancel"
    first, view = await rest.ask("POST", path)
    second, again = await rest.ask("POST", path)
    assert (first, second, view["reason"]) == (202, 202, "cancelled")
    assert again["status"] == view["status"]
    _, other = await rest.post("/v1/workflows", START)
    await end(rest, other["id"])
    status, problem = await rest.ask("POST", f"/v1/workflows/{other['id']}/cancel")
    assert (status, problem["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (StoreUnavailable("connection to 10.0.0.1 lost: SELECT"), 503, "store_unavailable"),
        (Overloaded(), 503, "overloaded"),
        (StoreDataError("SELECT failed"), 422, "store_data"),
        (RuntimeError("SELECT secret"), 500, "internal"),
    ],
)
async def test_what_goes_wrong_inside_is_not_told_outside(
    rest: Checked, error: Any, status: int, code: str
) -> None:
    rest.faces.store.broken = error
    got, problem = await rest.post("/v1/workflows", START)
    assert (got, problem["code"]) == (status, code)
    assert "SELECT" not in str(problem)


async def test_a_client_is_told_when_to_come_back(rest: Checked) -> None:
    rest.faces.store.broken = StoreUnavailable()
    async with rest.client.get("/v1/workflows") as answer:
        assert answer.headers["Retry-After"] == "1"


async def test_a_start_that_is_durable_is_told_even_if_it_cannot_be_read(rest: Checked) -> None:
    asked = asyncio.create_task(rest.post("/v1/workflows", START, params={"wait": "30s"}))
    await waiting(rest)
    await until(lambda: rest.faces.store.workflows)
    rest.faces.store.broken = StoreUnavailable()
    await rest.faces.hub.close()
    status, started = await asked
    assert (status, set(started)) == (201, {"id", "status"})


async def test_the_history_is_a_page(rest: Checked) -> None:
    _, started = await rest.post("/v1/workflows", START)
    _, page = await rest.get(f"/v1/workflows/{started['id']}/events?limit=1")
    assert page["events"][0]["seq"] == 1
    assert page["next_cursor"] is not None
    assert {"from", "to"} <= set(page["events"][0])


async def messages(answer: ClientResponse) -> list[dict[str, Any]]:
    """The events of a stream, read to its end."""
    text = (await answer.content.read()).decode()
    lines = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines]


async def test_the_history_can_be_followed_to_the_end(rest: Checked) -> None:
    _, started = await rest.post("/v1/workflows", START)
    path = f"/v1/workflows/{started['id']}/events"
    async with rest.client.get(path, headers={"Accept": "text/event-stream"}) as answer:
        assert answer.content_type == "text/event-stream"
        await rest.ask("POST", f"/v1/workflows/{started['id']}/cancel")
        seen = await messages(answer)
    assert [one["seq"] for one in seen] == list(range(1, len(seen) + 1))
    assert seen[-1]["to"] == "rolled_back"
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "2"}
    async with rest.client.get(path, headers=headers) as answer:
        assert (await messages(answer))[0]["seq"] == 3


@pytest.mark.fault(70)
async def test_a_stream_ends_when_the_sidecar_goes(rest: Checked) -> None:
    _, started = await rest.post("/v1/workflows", START)
    path = f"/v1/workflows/{started['id']}/events"
    async with rest.client.get(path, headers={"Accept": "text/event-stream"}) as answer:
        await waiting(rest)
        await rest.faces.hub.close()
        assert len(await messages(answer)) >= 1
