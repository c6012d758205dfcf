"""Counting the checks that a body takes, before any is made."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.definitions.schema_graph import MOST_ALTOGETHER, SchemaGraph

ENDLESS = float("inf")
NAMES = st.sampled_from(["a", "b", "c"])


def counted(schema: dict[str, Any], body: Any) -> float:
    """What a walk over the body finds."""
    graph = SchemaGraph(schema)
    assert not graph.faults
    return graph._counted(body, 1e9)


def roughly(schema: dict[str, Any], body: Any) -> float:
    graph = SchemaGraph(schema)
    assert not graph.faults
    return graph.checks(body, json.dumps(body), 1e300)


@pytest.mark.parametrize(
    ("schema", "body", "other"),
    [
        # What is held against more of a body, or against the same more often, costs more.
        ({"items": {"type": "string"}}, ["x"] * 10, ["x"] * 20),
        ({"prefixItems": [True, {"allOf": [{}] * 50}]}, [1], [1, 1]),
        ({"prefixItems": [{}], "items": {"allOf": [{}] * 50}}, [1], [1, 1]),
        ({"contains": {"allOf": [{}] * 50}}, [], [1]),
        ({"unevaluatedItems": {"allOf": [{}] * 50}}, [], [1]),
        ({"properties": {"a": {"allOf": [{}] * 50}}}, {"b": 1}, {"a": 1}),
        ({"patternProperties": {"x": {"allOf": [{}] * 50}}}, {}, {"b": 1}),
        (
            {"properties": {"a": {}}, "additionalProperties": {"allOf": [{}] * 50}},
            {"a": 1},
            {"b": 1},
        ),
        ({"unevaluatedProperties": {"allOf": [{}] * 50}}, {}, {"b": 1}),
        ({"propertyNames": {"allOf": [{}] * 50}}, {}, {"b": 1}),
        ({"propertyNames": {"pattern": "[a-z]{100}"}}, {"a": 1}, {"a" * 100: 1}),
        ({"pattern": "[a-z]{100}"}, "a", "a" * 100),
        ({"items": {"$ref": "#/$defs/n"}, "$defs": {"n": {"allOf": [{}] * 50}}}, [], [1]),
    ],
)
def test_what_is_asked_of_is_counted(schema: dict[str, Any], body: Any, other: Any) -> None:
    assert counted(schema, other) > counted(schema, body) + 9


@pytest.mark.parametrize(
    ("schema", "dearer"),
    [
        ({"anyOf": [{}]}, {"anyOf": [{}, {}]}),
        ({}, {"not": {"allOf": [{}] * 9}}),
        ({}, {"if": {"allOf": [{}] * 9}}),
        ({}, {"dependentSchemas": {"a": {"allOf": [{}] * 9}}}),
        ({"enum": ["x"]}, {"enum": ["x" * 1_000]}),
        ({"pattern": "a"}, {"pattern": "a{100}"}),
        ({"patternProperties": {"a": {}}}, {"patternProperties": {"a{100}": {}}}),
        # What is left over is known only when all others were asked again.
        ({"allOf": [{}] * 9}, {"allOf": [{}] * 9, "unevaluatedProperties": False}),
    ],
)
def test_what_asks_more_is_dearer(schema: dict[str, Any], dearer: dict[str, Any]) -> None:
    for body in ({"a": "x"}, "xx"):
        assert counted(dearer, body) >= counted(schema, body)
    assert counted(dearer, {"a": "x"}) + counted(dearer, "xx") > 1 + (
        counted(schema, {"a": "x"}) + counted(schema, "xx")
    )


def test_a_walk_ends_when_it_has_counted_enough() -> None:
    graph = SchemaGraph({"items": {"type": "string"}})
    assert graph.checks(["x"] * 9, json.dumps(["x"] * 9), 5) == ENDLESS


def test_looking_for_a_bound_is_bounded() -> None:
    wide = {f"p{n}": True for n in range(1_000)}
    schema = {
        "$defs": {"all": {"properties": wide}},
        "properties": {f"q{n}": {"$ref": "#/$defs/all"} for n in range(1_500)},
    }
    assert SchemaGraph(schema)._looks < 2 * MOST_ALTOGETHER


SCHEMAS = st.recursive(
    st.sampled_from([{}, {"type": "string"}, {"pattern": "[a-z]{9}"}, {"$ref": "#/$defs/leaf"}]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda some: {"allOf": some}),
        st.lists(inner, max_size=3).map(lambda some: {"prefixItems": some}),
        st.dictionaries(NAMES, inner, max_size=3).map(lambda some: {"properties": some}),
        st.dictionaries(NAMES, inner, max_size=2).map(lambda some: {"patternProperties": some}),
        st.tuples(inner, inner).map(lambda two: {"items": two[0], "contains": two[1]}),
        st.tuples(inner, inner).map(
            lambda two: {"additionalProperties": two[0], "propertyNames": two[1]}
        ),
        st.tuples(inner, inner).map(
            lambda two: {"unevaluatedProperties": two[0], "anyOf": [two[1]]}
        ),
    ),
    max_leaves=8,
)
BODIES = st.recursive(
    st.none() | st.text("ab", max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)


@given(SCHEMAS, BODIES)
def test_the_quick_bound_is_never_below_the_walk(schema: dict[str, Any], body: Any) -> None:
    whole = {**schema, "$defs": {"leaf": {"maxLength": 5, "pattern": "x{3}"}}}
    assert roughly(whole, body) >= counted(whole, body)
