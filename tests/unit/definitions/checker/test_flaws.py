"""Definitions with one flaw each: it is found, under its code, and by the shortest way."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest

from sidecar.definitions.checker import CODES, Limits, Report, Verdict, check, check_text, text
from sidecar.definitions.documents import read_document
from sidecar.saga.definition import Child, Definition, Join, StepDefinition
from tests.unit.definitions.checker import flawed
from tests.unit.definitions.checker.drawing import call, flow

_PIVOT_AT_THE_END = flawed.GOOD["a pivot at the end"]
DOCS = Path(__file__).parents[4] / "docs" / "checker.md"


def report(document: str) -> Report:
    return check_text(document).report


@pytest.mark.parametrize("flaw", flawed.FLAWS, ids=lambda flaw: flaw.name)
def test_a_planted_flaw_is_found(flaw: flawed.Flawed) -> None:
    found = report(flaw.document)
    codes = {one.code for one in found.findings}
    assert codes == {flaw.code, *flaw.also}
    one = next(one for one in found.findings if one.code == flaw.code)
    assert one.step == flaw.step
    assert list(one.way) == flaw.way
    assert bool(one.drawing) <= bool(one.way)
    assert one.severity is CODES[one.code].severity


def test_every_code_is_planted() -> None:
    planted = {flaw.code for flaw in flawed.FLAWS} | flawed.PLANTED_ELSEWHERE
    assert planted == set(CODES)


@pytest.mark.parametrize("name", flawed.GOOD)
def test_nothing_is_found_in_a_good_definition(name: str) -> None:
    found = report(flawed.GOOD[name])
    assert [(one.code, one.text) for one in found.findings] == []
    assert found.verdict is Verdict.PROVED
    assert found.passes(strict=True)


def test_a_place_that_is_waited_for_changes_no_outcome() -> None:
    turns = {"key": "${input.account}", "limit": 1}
    found = 0
    for flaw in flawed.FLAWS:
        plain = report(flaw.document)
        document = read_document(flaw.document, "yaml").value
        calls = [step for step in document["steps"] if "execute" in step]
        if plain.verdict is Verdict.UNREADABLE or not calls:
            continue
        for step in calls:
            step["concurrency"] = turns
        other = report(json.dumps(document))
        assert other.verdict is plain.verdict, flaw.name
        for one, also in zip(other.findings, plain.findings, strict=True):
            assert (one.code, one.step, one.way) == (also.code, also.step, also.way), flaw.name
        found += 1
    assert found > 10


def test_a_key_that_reads_what_may_be_absent_is_found_as_an_input_is() -> None:
    document = {
        "name": "flow",
        "steps": [
            {"name": "a", "service": "s", "execute": "/a", "optional": True, "compensate": "/u"},
            {
                "name": "b",
                "service": "s",
                "execute": "/b",
                "compensate": "/u",
                "concurrency": {"key": "${steps.a.output.account}"},
            },
        ],
    }
    (one,) = (one for one in report(json.dumps(document)).findings if one.code == "GC112")
    assert one.text.startswith("`concurrency` of 'b' reads the output of 'a'")
    assert one.path == ("steps", 1, "concurrency", "key")


def test_the_way_says_where_each_step_stands() -> None:
    found = report(flawed.by_name("an effect before a step that can fail").document)
    (one,) = found.findings
    assert one.drawing.splitlines() == [
        "charge      compensation_failed, after an outcome that stayed unknown  <- here",
        "└─ reserve  cancelled",
    ]


def test_the_page_tells_of_every_code() -> None:
    rows = re.findall(r"^\| (GC\d+) \| (\w+) \| (.+?) \|", DOCS.read_text("utf-8"), re.MULTILINE)
    assert rows == [(one.name, one.severity.value, one.title) for one in CODES.values()]


# -- what no document can have, or what takes more than one --------------------------------------


def test_a_pivot_that_need_not_wait_is_turned_back_past() -> None:
    """The reading of documents refuses this one; whoever makes definitions otherwise may not."""
    choice = call("p", "a", "b", pivot=True, compensation=None, join=Join.ANY)
    found = check(flow(call("a"), call("b"), choice))
    one = next(one for one in found.findings if one.code == "GC105")
    assert (one.step, list(one.way)) == (
        "p",
        ["the workflow starts", "a succeeds", "p succeeds", "b is refused"],
    )


def test_a_child_that_cannot_be_turned_back_is_an_effect_like_any_other() -> None:
    child = StepDefinition("pay", child=Child("payment", 1))
    parent = flow(child, call("ship", "pay"), timeout=timedelta(minutes=5))
    final = Definition("payment", 1, (call("charge", compensation=None, pivot=True),))
    assert check(parent).verdict is Verdict.PROVED
    found = check(parent, children={"payment": final})
    assert {one.code for one in found.findings} >= {"GC101", "GC133"}


def test_a_machine_that_forgets_to_undo_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.saga.rollback.owes_compensation", lambda *_: False)
    found = check(flow(call("a"), call("b", "a")))
    assert found.verdict is Verdict.REFUTED
    assert ["the workflow starts", "what became of a stays unknown"] in [
        list(one.way) for one in found.findings
    ]


def test_a_machine_that_comes_to_a_halt_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.saga.forward._complete_if_finished", lambda _: None)
    found = check(flow(call("a")))
    assert {one.code for one in found.findings} == {"GC108"}
    assert list(found.findings[0].way) == ["the workflow starts", "a succeeds"]


def test_a_search_that_reaches_its_bound_says_so() -> None:
    wide = flow(*(call(f"s{number}", optional=number % 2 == 0) for number in range(9)))
    found = check(wide, limits=Limits(full=10, ample=50))
    assert {one.code for one in found.findings} == {"GC190"}
    assert (found.verdict, found.method) == (Verdict.BOUNDED, "bounded")


def test_a_search_ends_in_time() -> None:
    ticks = iter(range(100))
    limits = Limits(seconds=3, clock=lambda: float(next(ticks)))
    found = check(flow(call("a"), call("b", "a"), call("c", "b"), call("d", "c")), limits=limits)
    assert found.method == "bounded"


def test_a_report_is_told_to_people() -> None:
    *said, about_pivots = text(report(_PIVOT_AT_THE_END)).splitlines()
    assert about_pivots.startswith("  - a pivot whose outcome was unknown, and what comes after")
    assert said == [
        "flow: every way ends completed or fully undone",
        "  looked at 6 states, 12 transitions: all orders of events",
        "  forward without end at worst",
        "  back 30s if each compensation is tried once, without end at worst",
        "",
        "assumed:",
        "  - a compensation that is tried for long enough succeeds",
    ]


def test_a_report_is_json_data() -> None:
    told = report(flawed.by_name("an effect before a step that can fail").document).told()
    assert json.loads(json.dumps(told)) == told
    assert told["verdict"] == "refuted"
    assert told["times"] == {"best": "0s", "worst": told["times"]["worst"], "undo_best": "30s",
                             "undo_worst": None}  # fmt: skip
