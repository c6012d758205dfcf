"""Priorities as documents say them: of a definition, and of its calls."""

from __future__ import annotations

import pytest

from tests.unit.definitions.test_steps import call, compiled, problems


def test_a_call_has_the_priority_of_its_definition_unless_it_has_its_own() -> None:
    pause = {"name": "b", "wait": {"duration": "1s"}}
    definition = compiled(
        call("a"), pause, call("c", priority=0), call("d", priority=9), priority=4
    )
    assert [step.priority for step in definition.steps] == [4, 0, 0, 9]
    assert definition.priorities == {"a": 4, "d": 9}
    assert compiled(call("a")).priorities == {}


@pytest.mark.parametrize(
    ("given", "told"), [(10, "at most 9"), (-1, "at least 0"), ("5", "number")]
)
def test_a_priority_is_a_number_from_0_to_9(given: object, told: str) -> None:
    assert told in problems(call("a", priority=given))["steps[0].priority"]


def test_only_calls_have_a_priority() -> None:
    found = problems({"name": "a", "wait": {"duration": "1s"}, "priority": 1})
    assert "does not belong to a step that waits" in found["steps[0].priority"]
    found = problems({"name": "a", "workflow": "other", "priority": 1})
    assert "does not belong to a step that runs a child" in found["steps[0].priority"]
