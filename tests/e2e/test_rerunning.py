"""A terminated workflow is run again: a real sidecar, a real PostgreSQL, a service's ledger."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.asking import ask
from tests.chaos.book import Entry, Fact
from tests.chaos.faults import Kind, Rule
from tests.chaos.ledger import Ledger
from tests.chaos.sidecars import Sidecar

pytestmark = [pytest.mark.e2e, pytest.mark.postgres, pytest.mark.timeout(120)]

WITHIN_S = 40.0


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def sidecar(database: str, tmp_path: Path, ledger: Ledger) -> Iterator[Sidecar]:
    migrate = (sys.executable, "-m", "sidecar.cli.main", "migrate", "--dsn", database)
    subprocess.run(migrate, check=True, stdout=subprocess.DEVNULL)
    config = {"service_url": ledger.url, "store": {"dsn": database}}
    made = Sidecar("payments-1", "payments", tmp_path, config)
    made.start()
    try:
        made.process.wait_until(made.ready, within_s=WITHIN_S)
        yield made
    finally:
        made.end()


def step(name: str, **more: Any) -> dict[str, Any]:
    paths = {"execute": f"/do/{name}", "compensate": f"/undo/{name}"}
    return {"name": name, "service": "payments", "timeout": "20s", **paths, **more}


def begun(sidecar: Sidecar, path: str, body: Any) -> str:
    status, told = ask(sidecar.api, path, body)
    assert status == 201, told
    return str(told["id"])


def came(ledger: Ledger, action: str) -> list[Entry]:
    return [one for one in ledger.entries() if one.action == action]


@pytest.mark.parametrize("last", ["well", "refuse"])
def test_every_effect_is_there_once_or_undone(sidecar: Sidecar, ledger: Ledger, last: str) -> None:
    steps = [step("one"), step("two"), step("three", input={"behave": last})]
    status, told = ask(sidecar.api, "/v1/definitions", {"name": "order", "steps": steps})
    assert status == 201, told
    ledger.fault(Rule(Kind.ACT_THEN_HANG, step="two", action="execute", times=1))
    old = begun(sidecar, "/v1/workflows", {"definition": "order", "input": {"n": 1}})
    sidecar.process.wait_until(lambda: bool(ledger.fired()), within_s=WITHIN_S)
    status, told = ask(sidecar.api, f"/v1/workflows/{old}/terminate", {"reason": "enough"})
    assert status == 202, told
    new = begun(sidecar, f"/v1/workflows/{old}/rerun", {})
    status, view = ask(sidecar.api, f"/v1/workflows/{new}?wait=40s")
    assert status == 200
    facts = [(one.key, one.fact) for one in came(ledger, "execute")]
    assert facts == [
        (f"{old}/one/execute", Fact.APPLIED),
        (f"{old}/two/execute", Fact.APPLIED),
        (f"{old}/two/execute", Fact.REPEATED),
        (f"{new}/three/execute", Fact.APPLIED if last == "well" else Fact.REFUSED),
    ]
    undone = [(one.key, one.fact) for one in came(ledger, "compensate")]
    if last == "well":
        assert (view["status"], undone) == ("completed", [])
    else:
        assert view["status"] == "rolled_back"
        assert undone == [
            (f"{old}/two/compensate", Fact.APPLIED),
            (f"{old}/one/compensate", Fact.APPLIED),
        ]
    assert {one.workflow for one in came(ledger, "compensate")} <= {new}
    assert ask(sidecar.api, f"/v1/workflows/{old}")[1]["status"] == "terminated"
    assert ask(sidecar.api, "/v1/debt")[1]["services"] == []
