"""`check` and `simulate` with actions: what is offered comes from the configuration of sidecars."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sidecar.cli.main import main

ORDER = """
name: order
steps:
  - { name: pay, service: payments, action: charge }
  - { name: ship, service: shipping, action: ship }
"""
PAYMENTS = "service: payments\nactions: { charge: { execute: /charges, compensate: /refunds } }\n"
SHIPPING = "service: shipping\nactions: { ship: { execute: /ship, compensate: none } }\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("order", ORDER), ("payments", PAYMENTS), ("shipping", SHIPPING)):
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def run(folder: Path, verb: str, *catalogues: str, more: tuple[str, ...] = ()) -> Result:
    words = [verb, str(folder / "order.yaml"), *more]
    for name in catalogues:
        words += ["--catalogue", str(folder / f"{name}.yaml")]
    return CliRunner().invoke(main, words)


def test_a_definition_is_proved_by_what_services_offer(folder: Path) -> None:
    said = run(folder, "check", "payments", "shipping")
    assert said.exit_code == 0
    assert "order: every way ends completed or fully undone" in said.stdout
    assert "GC151" not in said.stdout


def test_check_says_what_it_does_not_know(folder: Path) -> None:
    said = run(folder, "check", "payments", more=("-o", "json"))
    (report,) = json.loads(said.stdout)["reports"]
    (unknown,) = [one for one in report["findings"] if one["code"] == "GC151"]
    assert (unknown["path"], unknown["severity"]) == ("steps[1].action", "warning")
    assert "--catalogue sidecar.yaml" in unknown["advice"]


def test_an_action_that_is_not_offered_is_told_with_those_that_are(folder: Path) -> None:
    (folder / "shipping.yaml").write_text(SHIPPING.replace("ship:", "send:"))
    said = run(folder, "check", "payments", "shipping")
    assert said.exit_code == 1
    assert "shipping offers no action ship; its catalogue has: send" in said.stdout


def test_a_run_goes_by_what_services_offer(folder: Path) -> None:
    more = ("--fault", "ship=refused")
    said = run(folder, "simulate", "payments", "shipping", more=more)
    assert said.exit_code == 0, said.stderr
    assert "end: rolled_back (failed)" in said.stdout
    unknown = run(folder, "simulate", "payments", more=more)
    assert unknown.exit_code == 1
    assert "nothing is known of the actions that the definition names: ship of shipping" in (
        unknown.stderr
    )
    assert "--catalogue sidecar.yaml" in unknown.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("service: payments\n", "actions: is missing"),
        ("actions: {}\n", "service: is missing"),
        ("service: payments\nactions: [charge]\n", "actions: must be a mapping"),
        (PAYMENTS.replace("/charges", "charges"), "actions.charge.execute"),
        ("[", "holds no catalogue"),
    ],
)
def test_a_file_that_is_no_catalogue_is_told(folder: Path, text: str, expected: str) -> None:
    (folder / "payments.yaml").write_text(text)
    for verb in ("check", "simulate"):
        said = run(folder, verb, "payments")
        assert said.exit_code == 1
        assert expected in said.stderr


def test_two_catalogues_of_one_service_are_refused(folder: Path) -> None:
    (folder / "other.yaml").write_text(PAYMENTS)
    said = run(folder, "check", "payments", "other")
    assert said.exit_code == 1
    assert "an earlier --catalogue is that of payments, too" in said.stderr
    said = run(folder, "check", "nowhere")
    assert "cannot be read" in said.stderr
