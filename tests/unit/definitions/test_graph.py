"""The order of the steps: names, cycles, pivots, and who sees whose output."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.definitions import compile_stored, parse_definition
from sidecar.errors import DefinitionError
from sidecar.saga.definition import Definition


def graph(*steps: dict[str, Any]) -> str:
    full = [{"service": "s", "execute": "/x", **step} for step in steps]
    return json.dumps({"name": "d", "steps": full})


def problems(text: str) -> dict[str, str]:
    with pytest.raises(DefinitionError) as caught:
        parse_definition(text, "json")
    return dict(caught.value.problems)


def compiled(text: str) -> Definition:
    parsed = parse_definition(text, "json")
    return compile_stored(parsed.document, "default", parsed.name, 3)


def test_an_unknown_predecessor_is_told() -> None:
    found = problems(graph({"name": "pay", "after": []}, {"name": "b", "after": ["pya"]}))
    assert "did you mean 'pay'" in found["steps[1].after[0]"]


def test_a_step_is_named_once_and_not_by_itself() -> None:
    text = graph({"name": "a", "after": []}, {"name": "b", "after": ["a", "b", "a"]}, {"name": "a"})
    found = problems(text)
    assert "itself" in found["steps[1].after[1]"]
    assert "twice" in found["steps[1].after[2]"]
    assert "steps[0]" in found["steps[2].name"]


def test_a_cycle_is_drawn() -> None:
    text = graph({"name": "a", "after": ["c"]}, {"name": "b"}, {"name": "c"}, {"name": "d"})
    assert "a -> b -> c -> a" in next(iter(problems(text).values()))


def test_nothing_runs_beside_a_pivot() -> None:
    text = graph({"name": "a", "after": []}, {"name": "p", "after": [], "pivot": True})
    found = problems(text)["steps[1].pivot"]
    assert "'p'" in found
    assert "'a'" in found
    fine = graph({"name": "a"}, {"name": "p", "pivot": True}, {"name": "b"}, {"name": "c"})
    assert compiled(fine).pivots == ("p",)


def test_an_input_sees_only_what_came_before() -> None:
    text = graph(
        {"name": "a", "after": []},
        {"name": "b", "after": [], "input": "${steps.a.output}"},
        {"name": "c", "after": ["b"], "input": "${steps.b.output}"},
        {"name": "d", "compensate": {"path": "/u", "input": "${steps.d.output}"}},
    )
    assert list(problems(text)) == ["steps[1].input"]
