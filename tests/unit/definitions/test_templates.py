"""Templates: where expressions are found, what they may name, and what is rendered."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.definitions import render
from sidecar.definitions.documents import Document, canonical
from sidecar.definitions.expressions import Flaw
from sidecar.definitions.findings import Findings
from sidecar.definitions.splitting import Source, split
from sidecar.definitions.templates import (
    CEL,
    MAX_EXPRESSIONS,
    MAX_NODES,
    TemplateCompiler,
    Visible,
)
from sidecar.errors import RenderError
from sidecar.saga.definition import JsonText, Scope, Template

VISIBLE = Visible("ship", frozenset(("charge",)), frozenset(("charge", "ship", "later")))


def scope(given_input: Any = None, **outputs: Any) -> Scope:
    return Scope(
        workflow_id="wf-1",
        definition="order",
        version=3,
        input=canonical(given_input),
        outputs={name: None if one is None else canonical(one) for name, one in outputs.items()},
        statuses=dict.fromkeys(outputs, "succeeded"),
    )


def compile_template(value: Any, visible: Visible = VISIBLE) -> tuple[Template, Findings]:
    findings = Findings()
    compiler = TemplateCompiler(Document(value), findings, CEL)
    return compiler.compile(value, ("input",), visible), findings


def rendered(value: Any, at: Scope) -> Any:
    template, findings = compile_template(value)
    assert not findings.found
    return json.loads(render(template, at))


def test_one_expression_keeps_its_type_and_text_around_makes_text() -> None:
    at = scope({"n": 5, "s": 'a"b\\', "l": [1, {"k": "v"}], "b": True, "z": None})
    assert rendered("${input.n}", at) == 5
    assert rendered({"a": ["${input.l}"]}, at) == {"a": [[1, {"k": "v"}]]}
    assert rendered("n=${input.n}", at) == "n=5"
    assert rendered("${input.n}${input.n}", at) == "55"
    assert rendered(" ${input.n}", at) == " 5"
    assert rendered("<${input.s}>", at) == '<a"b\\>'
    assert rendered("<${input.l}>", at) == '<[1,{"k":"v"}]>'
    assert rendered("${input.b} ${input.z}", at) == "true null"


def test_outputs_statuses_and_the_workflow_are_seen() -> None:
    at = scope({}, charge={"id": "r1"})
    assert rendered("${steps.charge.output.id}", at) == "r1"
    assert rendered("${steps.charge.status}", at) == "succeeded"
    assert rendered("${workflow.id}/${workflow.definition}/${workflow.version}", at) == (
        "wf-1/order/3"
    )


def test_a_step_without_output_has_null() -> None:
    assert rendered("${steps.charge.output}", scope({}, charge=None)) is None
    with pytest.raises(RenderError, match=r"^input: .*no 'id' in steps.charge.output"):
        rendered("${steps.charge.output.id}", scope({}, charge=None))


def test_an_output_that_may_not_be_there_is_read_by_a_choice() -> None:
    choice = '${steps.charge.status == "succeeded" ? steps.charge.output.id : "none"}'
    assert rendered(choice, scope({}, charge={"id": "r1"})) == "r1"
    absent = Scope("w", "d", 1, JsonText("{}"), {}, {"charge": "skipped"})
    assert rendered(choice, absent) == "none"
    assert rendered("${steps.charge.output}", absent) is None


def test_templates_tell_what_they_read() -> None:
    template, _ = compile_template({"a": "${steps.charge.output.id}", "b": "${input.x}"})
    assert template.reads == {"charge"}
    assert not template.constant
    status, _ = compile_template("${steps.charge.status}")
    assert status.reads == frozenset()


def test_without_expressions_the_source_is_the_result() -> None:
    template, _ = compile_template({"b": "$${x} $5 $", "a": [1, None]})
    assert template.constant
    assert template.source == '{"a":[1,null],"b":"${x} $5 $"}'
    assert render(template, scope()) == template.source


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("plain", ["plain"]),
        ("", []),
        ("${a}", [Source("a", 2)]),
        ("x ${a} y ${b}", ["x ", Source("a", 4), " y ", Source("b", 11)]),
        ("$${a}", ["${a}"]),
        ("$$${a}", ["$${a}"]),
        ("$", ["$"]),
        ("$5 {x} }", ["$5 {x} }"]),
        ("${{'a': {'b': 1}}}", [Source("{'a': {'b': 1}}", 2)]),
        ("${'}'}", [Source("'}'", 2)]),
        ("${'it\\'s }'}", [Source("'it\\'s }'", 2)]),
        ("${r'\\'}", [Source("r'\\'", 2)]),
        ("${'''}'}'''}", [Source("'''}'}'''", 2)]),
        ('${"}" + "}"}', [Source('"}" + "}"', 2)]),
        ("${a // }\n}", [Source("a // }\n", 2)]),
    ],
)
def test_where_expressions_begin_and_end(text: str, pieces: list[str | Source]) -> None:
    assert split(text) == pieces


@pytest.mark.parametrize("text", ["${", "x ${a", "${'}", "${{}", "${a // }"])
def test_what_is_not_closed_is_told(text: str) -> None:
    found = split(text)
    assert isinstance(found, Flaw)
    assert found.offset == text.index("${")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${steps.chrage.output}", "did you mean 'charge'"),
        ("${steps.later.output}", "does not come before 'ship'"),
        ("${steps.ship.output}", "this very step"),
        ("${steps.charge}", "write steps.charge.output"),
        ("${steps.charge.input}", "write steps.charge.output"),
        ("${steps.charge.status.x}", "write steps.charge.output"),
        ("${has(steps.charge)}", "write steps.charge.output"),
        ("${steps}", "name one step"),
        ("${steps['charge'].output}", "name one step"),
        ("${workflow.name}", "workflow.id"),
        ("${workflow}", "workflow.id"),
        ("${secrets.x}", "an expression sees input"),
        ("a\nb ${1 +}", "line 2, column 8 of the text"),
    ],
)
def test_names_are_checked_before_anything_runs(text: str, words: str) -> None:
    _, findings = compile_template({"k": text})
    assert [path for path, _ in findings.found] == [("input", "k")]
    assert words in findings.problems()[0][1]


def test_a_compensation_sees_its_own_step() -> None:
    own = Visible("ship", frozenset(("charge", "ship")), VISIBLE.known)
    template, findings = compile_template("${steps.ship.output.id}", own)
    assert not findings.found
    assert template.reads == {"ship"}


def test_a_key_cannot_hold_an_expression() -> None:
    _, findings = compile_template({"${input.k}": 1})
    assert "only values" in findings.problems()[0][1]


def test_the_number_of_expressions_is_limited() -> None:
    _, findings = compile_template(["${1}"] * (MAX_EXPRESSIONS + 1))
    assert "expressions" in findings.problems()[0][1]


def test_the_size_of_all_expressions_is_limited() -> None:
    _, findings = compile_template(["${[" + "1," * 1_000 + "1]}"] * (MAX_NODES // 1_000 + 1))
    assert [problem for _, problem in findings.problems()] == [
        "holds expressions of more than 20000 parts in all"
    ]


def test_the_result_is_limited() -> None:
    at = scope({"s": "x" * 600_000})
    assert len(rendered("${input.s}", at)) == 600_000
    with pytest.raises(RenderError, match="1024 KiB"):
        rendered(["${input.s}", "${input.s}"], at)
    with pytest.raises(RenderError, match="1024 KiB"):
        rendered("${input.s}", scope({"s": "\u20ac" * 400_000}))


def test_the_order_of_keys_in_a_result_is_always_the_same() -> None:
    template, _ = compile_template("${[input][0]}")
    at = scope({f"k{i}": i for i in range(50)})
    assert render(template, at) == at.input


def test_state_that_is_not_json_is_a_render_error() -> None:
    template, _ = compile_template("${input.a}")
    broken = Scope("w", "d", 1, JsonText("{"), {}, {})
    with pytest.raises(RenderError, match="input cannot be read"):
        render(template, broken)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


def escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, list):
        return [escaped(one) for one in value]
    if isinstance(value, dict):
        return {escaped(key): escaped(one) for key, one in value.items()}
    return value


@given(VALUES)
def test_an_escaped_literal_renders_as_it_was(value: Any) -> None:
    assert rendered(escaped(value), scope()) == value


@given(VALUES, st.text(max_size=10))
def test_input_comes_through_whole_and_inside_text(value: Any, around: str) -> None:
    at = scope(value)
    assert rendered("${input}", at) == value
    text = value if isinstance(value, str) else canonical(value)
    # A space keeps what stands around from running into the expression.
    assert rendered(f"{escaped(around)} ${{input}}", at) == f"{around} {text}"
