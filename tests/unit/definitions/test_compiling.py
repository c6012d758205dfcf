"""Definitions as a whole: what they compile to, and that every problem is told at once."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator

from sidecar.definitions import compile_stored, parse_definition
from sidecar.definitions.documents import MAX_BYTES, canonical
from sidecar.definitions.language import language_schema
from sidecar.definitions.names import check_path
from sidecar.errors import DefinitionError
from sidecar.saga.definition import Compensation, Definition, StepDefinition, Template
from sidecar.saga.paths import path_fault
from sidecar.saga.policy import COMPENSATION_DEFAULT, FORWARD_DEFAULT, RetryPolicy

LANGUAGE = Draft202012Validator(language_schema(), offline=True)
ORDER = """
# A comment changes nothing.
name: order_processing
timeout: 1h
steps:
  - name: charge
    service: payments
    execute: /charges
    compensate: { path: /refunds, timeout: 5s, input: { id: "${steps.charge.output.id}" } }
    input: { amount: "${input.amount}" }
    timeout: 10s
    retry: { max_attempts: 5, total_budget: null }
    on_status: { 409: refused }
  - name: reserve
    service: inventory
    execute: { path: /reservations, method: PUT, timeout: 1s }
    compensate: /reservations/cancel
    after: []
  - name: ship
    service: shipping
    execute: /shipments
    compensate: none
    after: [charge, reserve]
    pivot: true
  - { name: mail, service: mail-er, execute: /mails }
"""


def problems(text: str, form: str = "yaml") -> dict[str, str]:
    with pytest.raises(DefinitionError) as caught:
        parse_definition(text, form)
    return dict(caught.value.problems)


def compiled(text: str, form: str = "yaml") -> Definition:
    parsed = parse_definition(text, form)
    assert LANGUAGE.is_valid(json.loads(parsed.document))  # what registers, editors accept
    return compile_stored(parsed.document, "default", parsed.name, 3)


def one_step(**keys: Any) -> str:
    step = {"name": "a", "service": "s", "execute": "/a", **keys}
    return json.dumps({"name": "d", "steps": [step]})


def test_a_document_becomes_a_definition() -> None:
    definition = compiled(ORDER)
    assert (definition.name, definition.version, definition.namespace) == (
        "order_processing",
        3,
        "default",
    )
    assert definition.timeout == timedelta(hours=1)
    charge, reserve, ship, mail = definition.steps
    assert charge == StepDefinition(
        name="charge",
        service="payments",
        path="/charges",
        timeout=timedelta(seconds=10),
        retry=RetryPolicy(max_attempts=5, total_budget=None),
        compensation=Compensation(
            path="/refunds",
            timeout=timedelta(seconds=5),
            input=Template(
                canonical({"id": "${steps.charge.output.id}"}), False, frozenset({"charge"})
            ),
        ),
        input=Template(canonical({"amount": "${input.amount}"}), constant=False),
        on_status=((409, "refused"),),
    )
    assert (reserve.method, reserve.timeout, reserve.after) == ("PUT", timedelta(seconds=1), ())
    assert reserve.compensation == Compensation(path="/reservations/cancel")
    assert ship.no_effect
    assert ship.pivot
    assert ship.compensation is None
    assert mail.after == ("ship",)
    assert not mail.no_effect
    assert mail.compensation is None
    assert mail.retry == FORWARD_DEFAULT


def test_a_compensation_keeps_its_own_default_policy() -> None:
    step = compiled(one_step(compensate={"path": "/b", "retry": {"max_attempts": 3}})).steps[0]
    assert step.compensation is not None
    assert step.compensation.retry.max_attempts == 3
    assert step.compensation.retry.max_interval == COMPENSATION_DEFAULT.max_interval


def test_what_execute_says_holds_for_the_step() -> None:
    execute = {
        "path": "/a",
        "input": {"x": 1},
        "retry": {"jitter": 0},
        "on_status": {"404": "done"},
    }
    step = compiled(one_step(execute=execute)).steps[0]
    assert step.input == Template(canonical({"x": 1}), constant=True)
    assert step.retry.jitter == 0
    assert step.on_status == ((404, "done"),)
    assert (
        "keep one"
        in problems(one_step(execute=execute, input={}), "json")["steps[0].execute.input"]
    )


def test_yaml_and_json_of_the_same_document_have_the_same_digest() -> None:
    from_yaml = parse_definition(ORDER)
    from_json = parse_definition(json.dumps(json.loads(from_yaml.document), indent=2), "json")
    assert from_json == from_yaml


def test_a_stored_document_compiles_under_its_stored_name() -> None:
    parsed = parse_definition(ORDER)
    definition = compile_stored(parsed.document, "tenant", "renamed", 7)
    assert (definition.namespace, definition.name, definition.version) == ("tenant", "renamed", 7)


def test_every_problem_is_told_at_once_with_its_line() -> None:
    text = """name: Order
timeout: PT1H
lables: {}
steps:
  - name: charge
    service: payments
    exectue: /charges
    after: [shp]
    input: { a: "${foo}" }
  - name: ship
    service: shipping
    execute: https://host/x
    after: []
"""
    found = problems(text)
    assert set(found) == {
        "name",
        "timeout",
        "lables",
        "steps[0].execute",
        "steps[0].exectue",
        "steps[0].after[0]",
        "steps[0].input.a",
        "steps[1].execute",
    }
    assert "(line 1)" in found["name"]
    assert "did you mean 'execute'" in found["steps[0].exectue"]
    assert "did you mean 'ship'" in found["steps[0].after[0]"]
    assert "(line 9, column 20)" in found["steps[0].input.a"]
    assert "service_url" in found["steps[1].execute"]


def test_the_defaults_may_be_written_out() -> None:
    document = {
        **json.loads(one_step(join="all")),
        "compensation": {"mode": "service", "order": "reverse"},
    }
    assert compiled(json.dumps(document), "json").steps


@pytest.mark.parametrize(
    "path",
    [
        "charges",
        "http://evil/x",
        "//evil/x",
        "/a b",
        "/a\n",
        "/a\r\nHost: x",
        "/../x",
        "/a/..",
        "/a/%2e%2E/b",
        "/%252e%252e/x",
        "/a/%25252E./b",
        "/a/%252e%255c/b",
        "/a%2fb",
        "/a%5cb",
        "/a%0d",
        "/a%",
        "/a#b",
        "/a\\b",
        "/\u00e9",
        "",
        "/" + "x" * 2_000,
        "/${input.x}",
    ],
)
def test_a_path_is_never_more_than_a_path(path: str) -> None:
    assert "steps[0].execute" in problems(one_step(execute=path), "json")
    assert "steps[0].compensate" in problems(one_step(compensate={"path": path}), "json") or (
        "steps[0].compensate.path" in problems(one_step(compensate={"path": path}), "json")
    )


@pytest.mark.parametrize("path", ["/", "/a/b-c_d.e~f", "/a%20b", "/a?b=c&d=/e", "/a:b@c"])
def test_ordinary_paths_pass(path: str) -> None:
    assert compiled(one_step(execute=path), "json").steps[0].path == path


@given(st.lists(st.sampled_from(["/", ".", "%", "25", "2e", "2F", "5c", "a", "?"]), max_size=9))
def test_a_path_that_registers_is_never_refused_by_a_call(parts: list[str]) -> None:
    try:
        path = check_path("/" + "".join(parts))
    except ValueError:
        return
    assert path_fault(path) is None


@pytest.mark.parametrize(
    ("keys", "path", "words"),
    [
        ({"name": "Charge"}, "steps[0].name", "a-z"),
        ({"name": "a" * 64}, "steps[0].name", "63"),
        ({"name": "a-b"}, "steps[0].name", "a-z"),
        ({"service": "http://x"}, "steps[0].service", "payments"),
        ({"timeout": "0ms"}, "steps[0].timeout", "from 1ms to 1d"),
        ({"timeout": 30}, "steps[0].timeout", "unit"),
        ({"retry": {"max_attempts": 0}}, "steps[0].retry.max_attempts", "at least 1"),
        ({"retry": {"max_attempts": "5"}}, "steps[0].retry.max_attempts", "whole number"),
        ({"retry": {"max_attempts": True}}, "steps[0].retry.max_attempts", "whole number"),
        ({"retry": {"jitter": 1.5}}, "steps[0].retry.jitter", "at most 1"),
        ({"retry": {"backoff_coefficient": 0.5}}, "steps[0].retry.backoff_coefficient", "least 1"),
        ({"retry": {"initial_interval": "1m"}}, "steps[0].retry", "30s by default"),
        ({"retry": 5}, "steps[0].retry", "mapping"),
        ({"retry": None}, "steps[0].retry", "is empty"),
        ({"input": None}, "steps[0].input", "is empty"),
        ({"retry": {"jitter": None}}, "steps[0].retry.jitter", "is empty"),
        ({"pivot": "yes"}, "steps[0].pivot", "true or false"),
        ({"after": "b"}, "steps[0].after", "write [b]"),
        ({"after": [1]}, "steps[0].after[0]", "text"),
        ({"on_status": {"99": "done"}}, "steps[0].on_status", "HTTP statuses"),
        ({"on_status": {"409": "maybe"}}, "steps[0].on_status", "refused"),
        ({"execute": {"path": "/a", "method": "GET"}}, "steps[0].execute.method", "'POST'"),
        ({"execute": {"method": "PUT"}}, "steps[0].execute.path", "missing"),
        ({"execute": 5}, "steps[0].execute", "mapping"),
    ],
)
def test_each_key_has_its_bounds(keys: dict[str, Any], path: str, words: str) -> None:
    assert words in problems(one_step(**keys), "json")[path]


def test_the_shape_of_the_whole() -> None:
    assert "mapping" in problems("[]")[""]
    assert "missing" in problems("name: x")["steps"]
    assert "at least 1" in problems("name: x\nsteps: []")["steps"]
    assert "list" in problems("name: x\nsteps: {}")["steps"]
    assert "mapping" in problems("name: x\nsteps: [a]")["steps[0]"]


def test_a_thousand_steps_and_no_more() -> None:
    steps = [{"name": f"s{i}", "service": "s", "execute": "/a"} for i in range(1_001)]
    assert len(compiled(json.dumps({"name": "d", "steps": steps[:1_000]}), "json").steps) == 1_000
    assert "1000" in problems(json.dumps({"name": "d", "steps": steps}), "json")["steps"]


def test_a_flood_of_problems_is_cut_and_counted() -> None:
    text = "name: x\n" + "".join(f"k{i}: 1\n" for i in range(5_000))
    with pytest.raises(DefinitionError) as caught:
        parse_definition(text)
    assert len(caught.value.problems) == 101
    assert "more problems" in caught.value.problems[-1][1]


NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
SPANS = st.sampled_from(["200ms", "1s", "5m", "1h"])


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(NAMES, min_size=1, max_size=8, unique=True))
    steps = []
    for index, name in enumerate(names):
        step: dict[str, Any] = {"name": name, "service": draw(NAMES), "execute": f"/{name}"}
        if draw(st.booleans()):
            step["after"] = draw(
                st.lists(st.sampled_from(names[:index]), unique=True) if index else st.just([])
            )
        if draw(st.booleans()):
            step["timeout"] = draw(SPANS)
        if draw(st.booleans()):
            step["retry"] = {"max_attempts": draw(st.none() | st.integers(1, 9))}
        step["compensate"] = draw(st.sampled_from(["none", "/undo", {"path": "/u", "input": {}}]))
        if draw(st.booleans()):
            step["input"] = {"x": "${input.x}", "y": draw(st.text(max_size=5)).replace("$", "")}
        steps.append(step)
    return {"name": draw(NAMES), "steps": steps}


@given(documents())
def test_documents_survive_the_round_trip(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    if "\\u0000" in text:
        return
    parsed = parse_definition(text, "json")
    again = parse_definition(parsed.document, "json")
    assert again == parsed
    assert LANGUAGE.is_valid(document)
    first = compile_stored(parsed.document, "default", parsed.name, 1)
    assert compile_stored(again.document, "default", again.name, 1) == first
    assert [step.name for step in first.steps] == [step["name"] for step in document["steps"]]
    assert set(first.topological) == set(first.by_name)


@given(documents(), st.randoms())
def test_layout_order_and_format_make_no_difference(document: dict[str, Any], dice: Any) -> None:
    text = json.dumps(document)
    if "\\u0000" in text or "\\ud" in text:
        return
    wanted = parse_definition(text, "json").digest

    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            keys = list(value)
            dice.shuffle(keys)
            return {key: shuffled(value[key]) for key in keys}
        return [shuffled(one) for one in value] if isinstance(value, list) else value

    other = json.dumps(shuffled(document), indent=2)
    assert parse_definition(other, "json").digest == wanted
    # JSON is YAML, as long as it escapes nothing: with a comment it is YAML only.
    if "\\" not in other:
        assert parse_definition(f"# a comment\n{other}\n", "yaml").digest == wanted


def test_a_document_that_grows_beyond_the_limit_is_refused() -> None:
    document = "name: a\nsteps: [{name: a, service: b, execute: /a, input: {text: '%s'}}]"
    # In YAML a quote takes one byte, in JSON two.
    with pytest.raises(DefinitionError, match="written as JSON"):
        parse_definition(document % ('"' * (MAX_BYTES // 2)))
    parsed = parse_definition(document % ('"' * (MAX_BYTES // 2 - 200)))
    assert compile_stored(parsed.document, "default", parsed.name, 1).steps
