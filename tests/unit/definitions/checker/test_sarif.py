"""SARIF as editors and code hosts read it."""

from __future__ import annotations

import json
from typing import Any

from sidecar.definitions.checker import check_text, sarif
from tests.unit.definitions.checker import flawed


def results(document: str, form: str = "yaml") -> list[dict[str, Any]]:
    log = sarif([("order.yaml", check_text(document, form))], "1.2.3")
    assert json.loads(json.dumps(log)) == log
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["version"] == "1.2.3"
    for one in run["results"]:
        assert driver["rules"][one["ruleIndex"]]["id"] == one["ruleId"]
    return list(run["results"])


def test_a_finding_stands_at_its_line() -> None:
    (one,) = results(flawed.by_name("a budget too small").document)
    (location,) = one["locations"]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "order.yaml"},
        "region": {"startLine": 8, "startColumn": 10},
    }
    assert location["logicalLocations"] == [{"fullyQualifiedName": "steps[0].retry"}]
    assert (one["ruleId"], one["level"]) == ("GC143", "warning")


def test_the_message_tells_the_way() -> None:
    (one,) = results(flawed.by_name("an effect before a step that can fail").document)
    assert (
        "1. the workflow starts\n2. what became of charge stays unknown" in one["message"]["text"]
    )
    assert one["level"] == "error"


def test_what_is_no_definition_stands_at_its_line_too() -> None:
    found = results("name: flow\nsteps:\n  - name: a\n    servce: s\n    execute: /a\n")
    places = [one["locations"][0]["physicalLocation"]["region"]["startLine"] for one in found]
    assert {one["ruleId"] for one in found} == {"GC100"}
    assert places == [4, 3]


def test_json_has_no_lines() -> None:
    document = '{"name": "flow", "steps": [{"name": "a", "service": "s", "execute": "/a"}]}'
    (one,) = results(document, "json")
    assert "region" not in one["locations"][0]["physicalLocation"]
