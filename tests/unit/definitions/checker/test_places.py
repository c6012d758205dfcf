"""Definitions that take turns and occur again below themselves: whoever closes the circle hears."""

from __future__ import annotations

import pytest

from sidecar.definitions.checker import Finding, check
from sidecar.saga.definition import Child, Concurrency, Definition, StepDefinition, Template
from sidecar.saga.definition import JsonText as Text
from tests.unit.definitions.checker.drawing import call, template

ONE = Concurrency(Template(Text('"one"'), constant=True), 1)
EACH = Concurrency(template("account"), 3)


def runs(name: str, *children: str, turns: Concurrency | None = None) -> Definition:
    """A definition with a call, and a step that runs each of these."""
    below = (StepDefinition(f"run_{one}", child=Child(one, 1)) for one in children)
    return Definition(name, 1, (call("first"), *below), concurrency=turns)


def found(checked: Definition, *below: Definition) -> list[Finding]:
    report = check(checked, children={one.name: one for one in below})
    return [one for one in report.findings if one.code in ("GC135", "GC136")]


@pytest.mark.parametrize(("turns", "code"), [(ONE, "GC135"), (EACH, "GC136")])
def test_one_that_runs_itself_is_found(turns: Concurrency, code: str) -> None:
    (one,) = found(runs("a", "other", "a", turns=turns))
    assert (one.code, one.step, one.path) == (code, "run_a", ("steps", 2, "workflow"))
    assert "'a' keeps" in one.text


def test_it_is_found_through_levels_and_whoever_is_checked() -> None:
    family = runs("a", "b", turns=ONE), runs("b", "aside", "c"), runs("c", "a"), runs("aside")
    told = {one.name: found(one, *family) for one in (*family, runs("root", "aside", "b"))}
    assert {name: [one.step for one in some] for name, some in told.items()} == {
        "a": ["run_b"],
        "b": ["run_c"],
        "c": ["run_a"],
        "aside": [],
        "root": ["run_b"],
    }
    assert told["root"][0].text == (
        "'a' keeps the only place of its key and runs 'b', which runs 'c', which runs 'a' again: "
        "that one can wait for the place of the first for ever"
    )


def test_each_that_takes_turns_is_told_of() -> None:
    family = runs("a", "b", turns=ONE), runs("b", "a", turns=EACH)
    for one in family:
        assert [each.code for each in found(one, *family)] == ["GC135", "GC136"]


def test_what_takes_no_turns_or_does_not_occur_again_is_not_found() -> None:
    assert found(runs("a", "a")) == []
    assert found(runs("a", "b", "b", turns=ONE), runs("b", "c", turns=ONE)) == []
    assert found(runs("root", "b", turns=ONE), runs("b", "b")) == []
