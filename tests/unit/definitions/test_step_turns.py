"""`concurrency` of steps: what it may say, what its key sees, and where it does not belong."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.saga.definition import Concurrency, JsonText, Template
from tests.unit.definitions.test_steps import call, compiled, problems, source, wait


def test_the_turns_of_steps_are_read() -> None:
    turns = {"key": "${each.item.shop} ${steps.a.output.id}", "limit": 3}
    steps = (call("a"), call("b", for_each="${input.l}", concurrency=turns))
    read = compiled(*steps).steps[1].concurrency
    assert read is not None
    assert (source(read.key), read.limit) == ('"${each.item.shop} ${steps.a.output.id}"', 3)
    assert read.key in compiled(*steps).templates
    assert compiled(call("a", concurrency={"key": "one"})).steps[0].concurrency == Concurrency(
        Template(JsonText('"one"'), constant=True), 1
    )


@pytest.mark.parametrize(
    ("step", "where", "says"),
    [
        (call("a", concurrency={}), ".key", "is missing"),
        (call("a", concurrency={"key": "x", "limit": 0}), ".limit", "at least 1"),
        (call("a", concurrency={"key": "x", "limt": 1}), ".limt", "did you mean 'limit'?"),
        (call("a", concurrency={"key": "x", "release_on_error": True}), ".release_on_error", "no"),
        (call("a", concurrency={"key": "${each.item}"}), ".key", "each"),
        (call("a", concurrency={"key": "${steps.a.output}"}), ".key", "this very step"),
        (
            wait(duration="1s") | {"concurrency": {"key": "x"}},
            "",
            "a step that waits; leave it out",
        ),
        (
            {"name": "a", "workflow": "other", "concurrency": {"key": "x"}},
            "",
            "a step that runs a child; write it into the definition that the child runs",
        ),
    ],
)
def test_a_slip_in_the_turns_of_a_step_is_told(step: dict[str, Any], where: str, says: str) -> None:
    assert says in problems(step)[f"steps[0].concurrency{where}"]
