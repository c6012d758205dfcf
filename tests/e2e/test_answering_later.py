"""Two sidecars, a real PostgreSQL and a real service: callbacks, questions, signals, timers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.sidecars import Sidecar
from tests.e2e.far import WITHIN_S, Asked, Far, ask

pytestmark = [pytest.mark.e2e, pytest.mark.postgres, pytest.mark.timeout(120)]

HASTY = {"max_attempts": 1}
ONCE_MORE = {"max_attempts": 2, "initial_interval": "50ms"}


@dataclass
class Pair:
    """The sidecars of two services that are one program, and a client."""

    far: Far
    payments: Sidecar
    shipping: Sidecar

    def ask(
        self, at: Sidecar, path: str, body: Any = None, *, method: str = "POST"
    ) -> tuple[int, Any]:
        """Ask a sidecar as a client or as a service does."""
        return ask(at, path, body, method=method)

    def begin(self, *steps: dict[str, Any], body: Any = None, **more: Any) -> str:
        """Register a definition and start a workflow of it; return its id."""
        document = {"name": "later", "steps": steps, **more}
        status, told = self.ask(self.payments, "/v1/definitions", document)
        assert status in (200, 201), told
        status, told = self.ask(
            self.payments, "/v1/workflows", {"definition": "later", "input": body}
        )
        assert status == 201, told
        return str(told["id"])

    def ended(self, workflow: str) -> Any:
        """The view of a workflow that has ended."""
        _, view = self.ask(self.shipping, f"/v1/workflows/{workflow}?wait=40s", method="GET")
        return view

    def history(self, workflow: str) -> list[dict[str, Any]]:
        """What happened to a workflow."""
        path = f"/v1/workflows/{workflow}/events?limit=100"
        told: list[dict[str, Any]] = self.ask(self.shipping, path, method="GET")[1]["events"]
        return told


@pytest.fixture
def pair(database: str, tmp_path: Path) -> Iterator[Pair]:
    migrate = (sys.executable, "-m", "sidecar.cli.main", "migrate", "--dsn", database)
    subprocess.run(migrate, check=True, stdout=subprocess.DEVNULL)
    with Far() as far:
        config = {"service_url": far.url, "store": {"dsn": database}}
        both = [Sidecar(f"{one}-1", one, tmp_path, config) for one in ("payments", "shipping")]
        try:
            for sidecar in both:
                sidecar.start()
            for sidecar in both:
                sidecar.process.wait_until(sidecar.ready, within_s=WITHIN_S)
            yield Pair(far, *both)
        finally:
            for sidecar in both:
                sidecar.end()


def call(name: str, service: str = "payments", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "service": service,
        "execute": f"/{name}",
        "compensate": f"/undo/{name}",
        "timeout": "5s",
        **more,
    }


def taken_on(_asked: Asked) -> tuple[int, Any]:
    return 202, {"job": 7}


def path_of(asked: Asked) -> str:
    """Where the attempt is finished, at whatever sidecar."""
    return "/v1/tasks/" + asked.headers["goconductor-callback"].rpartition("/")[2]


def test_an_attempt_is_finished_at_another_sidecar(pair: Pair) -> None:
    pair.far.answers["/charge"] = taken_on
    workflow = pair.begin(call("charge"), call("ship", "shipping"))
    asked = pair.far.next()
    assert asked.headers["goconductor-callback"].startswith(f"{pair.payments.api}/v1/tasks/")
    task = path_of(asked)
    assert pair.ask(pair.shipping, f"{task}/fence", method="GET") == (200, {})
    status, beat = pair.ask(pair.shipping, f"{task}/heartbeat")
    assert status == 200
    assert beat["deadline"]
    for sidecar in (pair.shipping, pair.payments):
        assert pair.ask(sidecar, f"{task}/complete", {"output": {"id": 7}}) == (200, {})
    view = pair.ended(workflow)
    assert (view["status"], view["steps"][0]["output"]) == ("completed", {"id": 7})
    assert view["steps"][0]["attempt"] == 1
    assert pair.ask(pair.payments, f"{task}/fail", {"message": "or not"})[0] == 409
    assert pair.ask(pair.payments, f"{task}/fence", method="GET")[0] == 409
    kinds = [one["kind"] for one in pair.history(workflow)]
    assert kinds.count("late_answer") == 1
    assert pair.far.next().path == "/ship"


def test_what_is_not_finished_in_time_is_undone_and_then_too_late(pair: Pair) -> None:
    pair.far.answers["/charge"] = taken_on
    workflow = pair.begin(call("charge", callback_timeout="300ms", retry=HASTY))
    task = path_of(pair.far.next())
    view = pair.ended(workflow)
    assert (view["status"], view["steps"][0]["error"]["code"]) == (
        "rolled_back",
        "callback_timeout",
    )
    undone = pair.far.next()
    assert (undone.path, undone.body["outcome"]) == ("/undo/charge", "unknown")
    status, problem = pair.ask(pair.shipping, f"{task}/complete", {"output": 1})
    assert (status, problem["code"]) == (409, "conflict")
    late = pair.history(workflow)[-1]
    assert (late["kind"], late["cause"], late["actor"]) == ("late_answer", "done", "service")


def test_what_is_unknown_is_asked_for(pair: Pair) -> None:
    pair.far.answers["/charge"] = lambda _: (500, {})
    pair.far.answers["/charge/status"] = lambda _: (
        200,
        {"outcome": "succeeded", "output": {"id": 1}},
    )
    workflow = pair.begin(call("charge", status="/charge/status", retry=ONCE_MORE))
    view = pair.ended(workflow)
    assert (view["status"], view["steps"][0]["output"]) == ("completed", {"id": 1})
    first, second, question = pair.far.next(), pair.far.next(), pair.far.next()
    assert (question.method, question.path, question.body) == ("GET", "/charge/status", None)
    keys = {one.headers["idempotency-key"] for one in (first, second, question)}
    assert keys == {f'"{workflow}/charge/execute"'}


def test_an_approval_lets_a_fan_out_be_followed_by_what_was_waiting(pair: Pair) -> None:
    workflow = pair.begin(
        call("reserve", for_each="${input.lines}", max_parallel=2),
        {"name": "rest", "wait": {"duration": "200ms"}},
        {"name": "approve", "wait": {"signal": "approved", "timeout": "1h"}},
        call("ship", "shipping", input="${steps.approve.output.payload}"),
        body={"lines": ["a", "b", "c", "d"]},
    )
    url = f"/v1/workflows/{workflow}"
    keys = {pair.far.next().headers["idempotency-key"] for _ in range(4)}
    assert keys == {f'"{workflow}/reserve[{index}]/execute"' for index in range(4)}

    def waits() -> bool:
        lines = pair.ask(pair.shipping, url, method="GET")[1]["waiting_on"]
        return any("waits for the signal approved" in line for line in lines)

    pair.payments.process.wait_until(waits, within_s=WITHIN_S)
    _, page = pair.ask(pair.shipping, f"{url}/steps/reserve/items?limit=3", method="GET")
    assert [(one["index"], one["input"]) for one in page["items"]] == [(0, "a"), (1, "b"), (2, "c")]
    status, _ = pair.ask(pair.shipping, f"{url}/pause", {"reason": "lunch"})
    assert status == 202
    body = {"payload": {"by": "anna"}, "reason": "looked at it"}
    assert pair.ask(pair.shipping, f"{url}/signals/approved", body)[0] == 202
    assert pair.ask(pair.payments, f"{url}/resume")[0] == 202
    view = pair.ended(workflow)
    assert view["status"] == "completed"
    assert view["steps"][0]["items"] == {
        "total": 4,
        "pending": 0,
        "open": 0,
        "failed": 0,
        "undoing": 0,
        "not_undone": 0,
    }
    assert pair.far.next().body == {"by": "anna"}
    said = [one for one in pair.history(workflow) if one["details"]]
    assert [(one["actor"], one["details"]["reason"]) for one in said] == [
        ("anna", "lunch"),
        ("anna", "looked at it"),
    ]
    assert said[1]["details"]["name"] == "approved"


def test_an_operator_ends_what_is_stuck(pair: Pair) -> None:
    pair.far.answers["/ship"] = lambda _: (422, {"title": "no"})
    pair.far.answers["/undo/charge"] = lambda _: (422, {"title": "too late"})
    workflow = pair.begin(call("charge"), call("ship", "shipping"))
    assert pair.ended(workflow)["status"] == "error"
    url = f"/v1/workflows/{workflow}"
    body = {"resolution": "compensated", "reason": "refunded by hand", "evidence": "statement"}
    for _ in range(2):
        status, view = pair.ask(pair.shipping, f"{url}/steps/charge/resolve", body)
        assert (status, view["status"]) == (202, "rolled_back")
    status, problem = pair.ask(pair.payments, f"{url}/terminate", {"reason": "late"})
    assert (status, problem["code"]) == (409, "conflict")
