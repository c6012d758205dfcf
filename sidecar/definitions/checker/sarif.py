"""Findings as SARIF 2.1.0, which editors and code hosts show beside the lines they are about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sidecar.definitions.checker.checking import Checked, place_of
from sidecar.definitions.checker.codes import CODES, Severity
from sidecar.definitions.checker.report import Finding
from sidecar.definitions.findings import written

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}


def sarif(checked: Sequence[tuple[str, Checked]], version: str) -> dict[str, Any]:
    """Return one log of the reports of some files, each with its name; `version` is ours."""
    used = sorted({one.code for _, each in checked for one in each.report.findings})
    rules = [_rule(code) for code in used]
    results = [
        _result(name, one, each, used.index(one.code))
        for name, each in checked
        for one in each.report.findings
    ]
    driver = {"name": "goconductor", "version": version, "rules": rules}
    run = {"tool": {"driver": driver}, "results": results, "columnKind": "unicodeCodePoints"}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(code: str) -> dict[str, Any]:
    known = CODES[code]
    return {
        "id": code,
        "shortDescription": {"text": known.title},
        "help": {"text": known.advice},
        "defaultConfiguration": {"level": _LEVELS[known.severity]},
    }


def _result(name: str, one: Finding, checked: Checked, rule: int) -> dict[str, Any]:
    way = "".join(f"\n{number}. {event}" for number, event in enumerate(one.way, 1))
    location: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": name}}}
    place = place_of(one, checked.positions)
    if place is not None:
        region = {"startLine": place.line, "startColumn": place.column}
        location["physicalLocation"]["region"] = region
    if one.path:
        location["logicalLocations"] = [{"fullyQualifiedName": written(one.path)}]
    return {
        "ruleId": one.code,
        "ruleIndex": rule,
        "level": _LEVELS[one.severity],
        "message": {"text": f"{one.text}{way}\nDo: {one.advice}."},
        "locations": [location],
    }
