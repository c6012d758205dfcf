"""Catalogues from end to end: real sidecars, a real PostgreSQL, a service whose paths move."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from sidecar.cli.main import main
from tests.chaos.sidecars import Sidecar
from tests.e2e.far import WITHIN_S, Asked, Far, ask

pytestmark = [pytest.mark.e2e, pytest.mark.postgres, pytest.mark.timeout(120)]

OFFERED = {
    "charge": {"execute": "/charges", "compensate": {"path": "/refunds", "method": "PUT"}},
    "ship": {"execute": "/shipments", "compensate": "none", "on_status": {409: "refused"}},
}
MOVED = {**OFFERED, "charge": {"execute": "/v2/charges", "compensate": "/v2/refunds"}}
ORDER: dict[str, Any] = {
    "name": "order",
    "steps": [
        {"name": "pay", "service": "payments", "action": "charge"},
        {"name": "packed", "wait": {"signal": "packed", "timeout": "1h"}},
        {"name": "send", "service": "payments", "action": "ship"},
    ],
}


@dataclass
class Deployments:
    """The replicas of one service."""

    far: Far
    database: str
    folder: Path
    stack: ExitStack

    def deploy(self, name: str, actions: dict[str, Any]) -> Sidecar:
        """Start a replica that offers these actions, and wait until it is ready."""
        config = {"service_url": self.far.url, "store": {"dsn": self.database}, "actions": actions}
        sidecar = Sidecar(name, "payments", self.folder, config)
        self.stack.callback(sidecar.end)
        sidecar.start()
        sidecar.process.wait_until(sidecar.ready, within_s=WITHIN_S)
        return sidecar


@pytest.fixture
def payments(database: str, tmp_path: Path) -> Iterator[Deployments]:
    migrate = (sys.executable, "-m", "sidecar.cli.main", "migrate", "--dsn", database)
    subprocess.run(migrate, check=True, stdout=subprocess.DEVNULL)
    with ExitStack() as stack:
        far = stack.enter_context(Far())
        yield Deployments(far, database, tmp_path, stack)


def begin(at: Sidecar, name: str = "order") -> str:
    status, told = ask(at, "/v1/workflows", {"definition": name, "input": {"amount": 3}})
    assert status == 201, told
    return str(told["id"])


def told(at: Sidecar) -> dict[str, Any]:
    """What a sidecar tells of the only service."""
    (service,) = ask(at, "/v1/services", method="GET")[1]["services"]
    return dict(service)


def called(asked: Asked) -> tuple[str, str]:
    return asked.method, asked.path


def test_a_deploy_moves_what_undoes_a_workflow_that_runs(payments: Deployments) -> None:
    far = payments.far
    old = payments.deploy("old", OFFERED)
    assert (told(old)["catalogue"], set(told(old)["actions"])) == (1, {"charge", "ship"})
    status, registered = ask(old, "/v1/definitions", ORDER)
    assert (status, registered["verdict"], registered["findings"]) == (201, "proved", [])
    workflow = begin(old)
    assert called(far.next()) == ("POST", "/charges")
    old.end()

    new = payments.deploy("new", MOVED)
    assert told(new)["catalogue"] == 2
    far.answers["/shipments"] = lambda _: (409, {"code": "no_van"})
    ask(new, f"/v1/workflows/{workflow}/signals/packed")
    _, view = ask(new, f"/v1/workflows/{workflow}?wait=40s", method="GET")
    assert (view["status"], view["reason"]) == ("rolled_back", "failed")
    assert [called(far.next()) for _ in "12"] == [("POST", "/shipments"), ("POST", "/v2/refunds")]

    assert [ask(new, "/v1/definitions", ORDER)[1]["version"] for _ in "12"] == [2, 2]
    document = ask(new, "/v1/definitions/order/versions/1", method="GET")[1]["document"]
    assert document["steps"][0]["pinned"] == {"catalogue": 1, "compensate": {}}


def test_replicas_that_differ_are_seen(payments: Deployments) -> None:
    first = payments.deploy("first", OFFERED)
    second = payments.deploy("second", OFFERED)
    first.process.wait_until(lambda: len(told(first)["sidecars"]) == 2, within_s=WITHIN_S)
    assert not told(first)["differs"]
    second.end()
    payments.deploy("third", MOVED)
    first.process.wait_until(lambda: told(first)["differs"], within_s=WITHIN_S)
    shown = CliRunner().invoke(main, ["services", "--server", first.api])
    assert shown.exit_code == 0
    assert "charge, ship" in shown.stdout
    assert "do not have the same catalogue" in shown.stderr


def test_what_is_not_offered_is_refused_or_waits_for_a_deploy(
    payments: Deployments, tmp_path: Path
) -> None:
    early = payments.deploy("early", {"ship": OFFERED["ship"]})
    status, problem = ask(early, "/v1/definitions", ORDER)
    assert status == 422
    assert [one["field"] for one in problem["problems"]] == ["steps[0].action"]
    assert "its catalogue (version 1) has: ship" in problem["problems"][0]["message"]

    file = tmp_path / "order.yaml"
    file.write_text(yaml.safe_dump(ORDER))
    apply = ["apply", str(file), "--server", early.api]
    assert CliRunner().invoke(main, apply).exit_code == 1
    taken = CliRunner().invoke(main, [*apply, "--allow-missing", "-o", "json"])
    assert taken.exit_code == 0
    assert "GC151" in {one["code"] for one in json.loads(taken.stdout)["findings"]}
    workflow = begin(early)

    def waits() -> bool:
        _, view = ask(early, f"/v1/workflows/{workflow}", method="GET")
        told = " ".join(view["waiting_on"])
        error = view["last_error"]
        return bool(error) and error["code"] == "action_not_offered" and "has no action" in told

    early.process.wait_until(waits, within_s=WITHIN_S)
    early.end()
    payments.deploy("late", OFFERED)
    assert called(payments.far.next()) == ("POST", "/charges")
