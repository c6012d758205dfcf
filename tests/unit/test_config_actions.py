"""The catalogue in the settings: what it may say, from where, and what is said of mistakes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from sidecar.definitions.calls import NO_EFFECT
from sidecar.definitions.catalogues import Target, read_actions
from sidecar.definitions.findings import Findings
from sidecar.saga.states import Action
from tests.unit.test_config import WHOLE, loaded, refused

OFFERED = """
actions:
  charge:
    execute: { path: /charges, method: PUT }
    compensate: { path: /refunds, method: DELETE, retry: { max_attempts: 7 } }
    status: { path: /charges/status, budget: 1m }
    timeout: 10s
    on_status: { 409: refused }
    callback_timeout: 1h
  look_up: { execute: /look, method: PATCH, compensate: none }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sidecar.yaml"


def test_a_sidecar_offers_nothing_unless_it_is_told(file: Path) -> None:
    assert loaded(file, WHOLE).actions.actions == {}


def test_a_catalogue_says_where_and_how(file: Path) -> None:
    charge, look_up = loaded(file, WHOLE + OFFERED).actions.actions.values()
    assert charge.target(Action.EXECUTE) == Target("/charges", "PUT", ((409, "refused"),))
    assert charge.target(Action.COMPENSATE) == Target("/refunds", "DELETE")
    assert charge.target(Action.STATUS) == Target("/charges/status", "GET")
    assert (charge.timeout, charge.callback_timeout) == (timedelta(seconds=10), timedelta(hours=1))
    assert look_up.target(Action.EXECUTE) == Target("/look", "PATCH")
    assert look_up.compensate is NO_EFFECT
    assert look_up.target(Action.COMPENSATE) is None
    assert look_up.target(Action.STATUS) is None


def test_the_environment_adds_actions_and_changes_them(file: Path) -> None:
    env = {
        "GOCONDUCTOR_ACTIONS__CHARGE__TIMEOUT": "20s",
        "GOCONDUCTOR_ACTIONS__CHARGE__RETRY": "{max_attempts: 3}",
        "GOCONDUCTOR_ACTIONS__PING__EXECUTE": "/ping",
    }
    actions = loaded(file, WHOLE + OFFERED, env=env).actions.actions
    assert set(actions) == {"charge", "look_up", "ping"}
    assert actions["charge"].timeout == timedelta(seconds=20)
    assert actions["charge"].retry is not None
    assert actions["charge"].retry.max_attempts == 3
    whole = {"GOCONDUCTOR_ACTIONS": "{ping: {execute: /ping, retry: {max_attempts: 2}}}"}
    assert set(loaded(file, WHOLE, env=whole).actions.actions) == {"ping"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("actions: [charge]", "actions: must be a mapping of names to actions"),
        ("actions: { charge: { exec: /a } }", "actions.charge.exec: there is no key 'exec'; did"),
        ("actions: { charge: { execute: a } }", "actions.charge.execute: must begin with /"),
        ("actions: { charge: { execute: /a, timeout: 10 } }", "actions.charge.timeout: must have"),
        ("actions: { Charge: { execute: /a } }", "actions.Charge: must begin with a letter a-z"),
        (
            "actions: { charge: { execute: { path: /a, timeout: 1s }, timeout: 2s } }",
            "actions.charge.execute.timeout: `timeout` is given for the action too; keep one",
        ),
        (
            "actions: { charge: { execute: { path: /a, input: {} } } }",
            "actions.charge.execute.input: belongs to definitions; leave it out",
        ),
        (
            "actions: { charge: { execute: /a, compensate: { path: /b, status: /c } } }",
            "actions.charge.compensate.status: `status` belongs to the action",
        ),
        (
            "actions: { charge: { execute: /a, retry: { initial_interval: 1h } } }",
            "actions.charge.retry: max_interval (30s by default) is shorter",
        ),
        ("actions: { charge: { execute: } }", "actions.charge.execute: is empty; give it a value"),
    ],
)
def test_a_mistake_is_told_by_its_key_and_its_remedy(file: Path, text: str, expected: str) -> None:
    assert expected in refused(file, f"{WHOLE}{text}\n")


def test_all_mistakes_are_told_at_once(file: Path) -> None:
    text = "actions: { a: { execute: a }, b: { execute: /b, x: 1 } }\nconcurrency: 0\n"
    told = refused(file, WHOLE + text)
    assert [key for key in ("actions.a.execute", "actions.b.x", "concurrency") if key in told] == [
        "actions.a.execute",
        "actions.b.x",
        "concurrency",
    ]


def test_a_catalogue_that_nobody_could_read_is_refused() -> None:
    """It is read by the same limit when definitions are registered."""
    findings = Findings()
    many = {f"a{number}": {"execute": "/" + "x" * 1000} for number in range(300)}
    read_actions(many, findings)
    ((where, text),) = findings.problems()
    assert where == "actions"
    assert "is larger than 256 KiB" in text
    assert read_actions(dict(list(many.items())[:200]), Findings()).actions != {}
