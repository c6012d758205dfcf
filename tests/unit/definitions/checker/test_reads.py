"""What can be seen in the text of expressions, held against what the renderer does."""

from __future__ import annotations

import json

import pytest

from sidecar.definitions import compile_stored, parse_definition, render
from sidecar.definitions.checker.abstraction import Oracle, Roles
from sidecar.definitions.checker.reads import condition, needs
from sidecar.errors import RenderError
from sidecar.saga.definition import JsonText, Scope, Template
from tests.unit.definitions.checker.drawing import call, flow, template


def compiled(text: str) -> Template:
    document = {
        "name": "flow",
        "steps": [
            {"name": "a", "service": "s", "execute": "/a"},
            {"name": "b", "service": "s", "execute": "/b", "input": {"x": text}},
        ],
    }
    parsed = parse_definition(json.dumps(document), "json")
    found = compile_stored(parsed.document, "default", "flow", 1).steps[1].input
    assert found is not None
    return found


@pytest.mark.parametrize(
    "text",
    [
        "${steps.a.output.id}",
        "x ${steps.a.output.id} y",
        "${steps.a.output}",
        "${steps.a.output[0]}",
        "${steps.a.output.?id.orValue('')}",
        "${steps.a.?output.?id.orValue('')}",
        "${has(steps.a.output.id) ? steps.a.output.id : ''}",
        "${steps.a.output == null ? '' : steps.a.output.id}",
        "${optional.ofNonZeroValue(steps.a.output).?id.orValue('')}",
        "${steps.a.status == 'succeeded' ? steps.a.output.id : ''}",
    ],
)
def test_a_template_needs_the_output_that_it_cannot_be_rendered_without(text: str) -> None:
    made = compiled(text)
    scope = Scope("w", "flow", 1, JsonText("{}"), {"a": None}, {"a": "failed"})
    try:
        render(made, scope)
    except RenderError:
        assert needs(made) == {"a"}
    else:
        assert needs(made) == frozenset()


def test_what_must_be_of_a_kind_cannot_be_null() -> None:
    whole = template("${steps.a.output}", "a")
    assert (needs(whole), needs(whole, typed=True)) == (frozenset(), {"a"})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("input.vip", "!input.vip"),
        ("input.vip", "!(input.vip)"),
        ("input.n > 5", "input.n <= 5"),
        ("input.n < 5", "input.n >= 5"),
        ("steps.a.output.x == 'y'", "steps.a.output.x != 'y'"),
        ("size(input.x) > 1 && input.y", "!(size(input.x) > 1  &&  input.y)"),
    ],
)
def test_opposite_conditions_ask_the_same(one: str, other: str) -> None:
    asked, contrary = condition(template(f"${{{one}}}")), condition(template(f"${{{other}}}"))
    assert asked is not None
    assert contrary is not None
    assert asked[0] == contrary[0]
    assert asked[1] is not contrary[1]


@pytest.mark.parametrize("text", ["!(input.a) || (input.b)", "input.n > input.m"])
def test_other_conditions_ask_for_themselves(text: str) -> None:
    assert condition(template(f"${{{text}}}")) == (text, True)


def test_a_status_may_change_from_one_condition_to_the_next() -> None:
    assert condition(template("${steps.a.status == 'failed'}")) is None


def test_a_script_from_another_way_still_chooses() -> None:
    asked = flow(call("a", when=template("${input.x}")))
    oracle = Oracle(Roles(asked), (), script=(2,))
    when = asked.steps[0].when
    assert when is not None
    assert oracle(when, Scope("w", "flow", 1, JsonText("{}"), {}, {})) == "true"
    assert oracle.taken == [(0, 2)]
