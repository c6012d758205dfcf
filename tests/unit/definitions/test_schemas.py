"""JSON Schemas: read at registration, held against bodies, and never a way to hang."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest

from sidecar.definitions import compile_stored, parse_definition
from sidecar.definitions.documents import canonical
from sidecar.definitions.findings import Findings
from sidecar.definitions.schemas import MOST_PROBLEMS, compile_schema
from sidecar.errors import DefinitionError
from sidecar.saga.definition import BodyCheck, JsonText

HANGS_S = 10.0
"""What is not bounded takes minutes, or has no end; a loaded machine needs less than this."""


def check(schema: dict[str, Any]) -> BodyCheck:
    findings = Findings()
    found = compile_schema(schema, ("schema",), findings)
    assert found is not None, findings.problems()
    return found


def faults(schema: dict[str, Any]) -> dict[str, str]:
    findings = Findings()
    assert compile_schema(schema, ("s",), findings) is None
    return dict(findings.problems())


def problems(schema: dict[str, Any], body: Any) -> list[tuple[str, str]]:
    return check(schema).problems(canonical(body))


def seconds(schema: dict[str, Any], body: Any) -> tuple[float, list[tuple[str, str]]]:
    compiled, text = check(schema), canonical(body)
    begun = time.process_time()
    found = compiled.problems(text)
    return time.process_time() - begun, found


ORDER = {
    "type": "object",
    "required": ["order_id", "amount"],
    "properties": {
        "order_id": {"type": "string", "pattern": "^[a-z]+-[0-9]+$"},
        "amount": {"type": "number", "exclusiveMinimum": 0},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
        "due": {"format": "date-time"},
    },
    "$defs": {"line": {"type": "object", "required": ["sku"]}},
    "additionalProperties": False,
}


def test_a_definition_carries_its_schemas() -> None:
    step = {"name": "a", "service": "s", "execute": "/a", "output_schema": {"const": None}}
    document = {"name": "d", "input": {"schema": ORDER}, "steps": [step]}
    parsed = parse_definition(json.dumps(document), "json")
    compiled = compile_stored(parsed.document, "default", "d", 1)
    assert compiled.input_schema == canonical(ORDER)
    assert compiled.input_check is not None
    assert compiled.input_check.problems(JsonText("{}"))
    own = compiled.steps[0]
    assert own.output_schema == '{"const":null}'
    assert own.output_check is not None
    assert own.output_check.problems(JsonText("null")) == []
    assert own.output_check.problems(JsonText("1")) != []


def test_what_is_wrong_in_a_definition_is_told_with_its_line() -> None:
    text = """name: d
input: { schema: { type: objekt } }
steps:
  - name: a
    service: s
    execute: /a
    output_schema:
      type: object
      properties:
        x: { $ref: "https://example.com/x" }
"""
    with pytest.raises(DefinitionError) as caught:
        parse_definition(text)
    found = dict(caught.value.problems)
    assert "array, boolean" in found["input.schema.type"]
    assert "(line 2)" in found["input.schema.type"]
    assert "nothing is fetched" in found["steps[0].output_schema.properties.x.$ref"]
    assert "(line 10)" in found["steps[0].output_schema.properties.x.$ref"]


def test_problems_of_a_body_have_a_path_and_a_sentence() -> None:
    good = {"order_id": "o-1", "amount": 5, "lines": [{"sku": "x"}], "due": "2030-01-31T12:00:00Z"}
    assert problems(ORDER, good) == []
    bad = {"order_id": "1", "amount": 0, "lines": [{"sku": "x"}, {}], "due": "soon", "x": 1}
    found = dict(problems(ORDER, bad))
    assert set(found) == {"", "order_id", "amount", "lines[1]", "due"}
    assert "'x'" in found[""]
    assert found["lines[1]"] == '"sku" is a required property'
    assert found["amount"] == "is less than or equal to the minimum of 0"


def test_a_value_is_never_repeated() -> None:
    bad = {"order_id": "secret", "amount": "secret", "lines": ["secret"], "due": "secret"}
    assert "secret" not in str(problems(ORDER, bad))
    assert "secret" not in str(problems({"anyOf": [{"const": 1}, {"type": "null"}]}, "secret"))


def test_the_number_of_problems_is_bounded() -> None:
    found = problems({"items": {"type": "string"}}, [1] * 500)
    assert len(found) == MOST_PROBLEMS + 1
    assert found[-1] == ("", "and 480 more problems")


def test_what_is_not_json_is_said() -> None:
    assert check({}).problems(JsonText("{")) == [("", "is not JSON")]


@pytest.mark.parametrize(
    ("schema", "path", "words"),
    [
        ({"type": "objekt"}, "s.type", "must be array, boolean"),
        ({"properties": {"a": {"minLength": -1}}}, "s.properties.a.minLength", "minimum of 0"),
        ({"required": "a"}, "s.required", "array"),
        ({"pattern": "("}, "s.pattern", "linear time"),
        ({"pattern": "(?=a)"}, "s.pattern", "look-around"),
        ({"pattern": "(a)\\1"}, "s.pattern", "back-references"),
        ({"pattern": "\\pL{1000}"}, "s.pattern", "great repetitions"),
        ({"pattern": "[^a]{900}"}, "s.pattern", "great repetitions"),
        ({"patternProperties": {"(": {}}}, "s.patternProperties.(", "linear time"),
        ({"$ref": "http://x/y"}, "s.$ref", "nothing is fetched"),
        ({"$ref": "file:///etc/passwd"}, "s.$ref", "nothing is fetched"),
        ({"$ref": "other.json#/a"}, "s.$ref", "nothing is fetched"),
        ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, "s.$ref", "nothing is fetched"),
        ({"$ref": "#/$defs/a"}, "s.$ref", "leads nowhere"),
        ({"$ref": "#name", "$anchor": "name"}, "s.$ref", "leads nowhere"),
        ({"$ref": "#/required/0", "required": ["a"]}, "s.$ref", "leads nowhere"),
        ({"$dynamicRef": "#", "$dynamicAnchor": "a"}, "s.$dynamicRef", "write `$ref`"),
        ({"$dynamicAnchor": "a"}, "s.$dynamicAnchor", "write a `$ref`"),
        ({"$defs": {"a": {"$id": "http://x/a"}}}, "s.$defs.a.$id", "at the top only"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "s.$schema", "2020-12"),
        ({"$ref": "#"}, "s", "leads back"),
        ({"allOf": [{"not": {"$ref": "#"}}]}, "s", "leads back"),
    ],
)
def test_what_is_no_schema_of_ours_is_refused(schema: Any, path: str, words: str) -> None:
    assert words in faults(schema)[path]


def test_nobody_is_asked_for_a_schema() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        assert "nothing is fetched" in faults({"$ref": f"http://127.0.0.1:{port}/x"})["s.$ref"]
        with pytest.raises(BlockingIOError):
            server.accept()


def test_references_may_lead_back_through_the_body() -> None:
    tree = {"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {}}}}
    node = tree["$defs"]["node"]
    node["properties"] = {name: {"$ref": "#/$defs/node"} for name in ("left", "right")}
    body: Any = {}
    for _ in range(60):
        body = {"left": body, "right": {}}
    assert problems(tree, body) == []
    body = {"left": {"right": 1}}
    assert problems(tree, body) == [("left.right", 'is not of type "object"')]


# -- hostile ------------------------------------------------------------------------------------


def test_a_pattern_that_makes_others_hang_does_not() -> None:
    for pattern in ("(a+)+$", "^(a|aa)+$", "(a*)*b"):
        spent, found = seconds({"pattern": pattern}, "a" * 30_000 + "!")
        assert found
        assert spent < HANGS_S


@pytest.mark.parametrize("size", [1_000, 250_000, 1_000_000])
def test_a_pattern_that_is_slow_on_long_text_is_not_even_begun(size: int) -> None:
    # No automaton stays small for this one: some 300 steps for each character.
    schema = {"pattern": "[ab]*a[ab]{300}c"}
    spent, found = seconds(schema, "ab" * (size // 2))
    assert found
    assert ("too large" in found[0][1]) is (size > 1_000)
    assert spent < HANGS_S


def test_long_text_may_meet_an_ordinary_pattern() -> None:
    small = {"properties": {"id": {"pattern": "^[a-z]{1,20}-[0-9]+$"}}}
    assert problems(small, {"id": "a-1", "text": "x" * 900_000}) == []


def test_subschemas_that_double_are_refused() -> None:
    doubling: dict[str, Any] = {
        f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}, {"$ref": f"#/$defs/a{n + 1}"}]}
        for n in range(60)
    }
    schema = {"$defs": {**doubling, "a60": {"type": "object"}}, "$ref": "#/$defs/a0"}
    assert any("too many subschemas" in words for words in faults(schema).values())


def test_subschemas_that_double_with_the_depth_of_the_body_are_counted() -> None:
    twice = {"allOf": [{"$ref": "#/$defs/n"}, {"$ref": "#/$defs/n", "minProperties": 0}]}
    schema = {"$ref": "#/$defs/n", "$defs": {"n": {"properties": {"a": twice}}}}
    body: Any = {}
    for _ in range(60):
        body = {"a": body}
    spent, found = seconds(schema, body)
    assert found == [("", "is too large for what its schema asks of it; send less")]
    assert spent < HANGS_S
    assert problems(schema, {"a": {"a": {}}}) == []


def test_a_chain_of_references_is_bounded() -> None:
    chain: dict[str, Any] = {f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in range(1_000)}
    schema = {"$defs": {**chain, "a1000": {}}, "$ref": "#/$defs/a0"}
    assert any("comes after more than" in words for words in faults(schema).values())


def test_subschemas_that_meet_many_others_are_bounded_altogether() -> None:
    many = {f"p{n}": {"$ref": "#/$defs/x"} for n in range(200)}
    schema = {"$defs": {"x": {"allOf": [{}] * 1_000}}, "properties": many}
    assert any("too many subschemas" in words for words in faults(schema).values())


def test_a_body_without_end_is_not_walked_to_its_end() -> None:
    lists = {"$ref": "#/$defs/l", "$defs": {"l": {"items": {"$ref": "#/$defs/l"}}}}
    assert problems(lists, [[]] * 1_000) == []
    assert "too large" in problems(lists, [[]] * 150_000)[0][1]


def test_choices_over_a_great_list_are_counted() -> None:
    schema = {"items": {"anyOf": [{"const": n} for n in range(100)]}}
    spent, found = seconds(schema, [200] * 100_000)
    assert "too large" in found[0][1]
    assert spent < HANGS_S


def test_of_a_great_body_one_problem_is_told_or_none() -> None:
    spent, found = seconds({"items": {"type": "string"}}, [1] * 50_000)
    assert found == [("[0]", 'is not of type "string"')]
    assert spent < HANGS_S
    spent, found = seconds({"items": {"anyOf": [{"const": 1}, {"const": 2}]}}, [3] * 50_000)
    assert found == [("", "does not fit the schema, and is too large to say where")]
    assert spent < HANGS_S


def test_registering_a_wild_schema_does_not_hang() -> None:
    wide = {f"p{n}": {"$ref": "#/$defs/all"} for n in range(4_000)}
    schema = {"$defs": {"all": {"properties": wide}}, "allOf": [{"$ref": "#/$defs/all"}] * 50}
    begun = time.process_time()
    compile_schema(schema, (), Findings())
    assert time.process_time() - begun < HANGS_S


def test_a_thousand_ordinary_checks_do_not_hang() -> None:
    compiled = check(ORDER)
    text = canonical({"order_id": "o-1", "amount": 5, "lines": [{"sku": "x"}] * 10})
    begun = time.process_time()
    for _ in range(1_000):
        compiled.problems(text)
    assert time.process_time() - begun < HANGS_S
