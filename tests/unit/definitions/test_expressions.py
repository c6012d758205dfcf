"""CEL: compiled once, names known, results plain JSON, cost bounded before it is spent."""

from __future__ import annotations

import resource
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.definitions.data import Data
from sidecar.definitions.expressions import Cel, Expression, Flaw
from sidecar.definitions.tree import Call, Fold, Select, decode
from sidecar.errors import RenderError

LANGUAGE = Cel()
HANGS_S = 10.0
"""What is not bounded takes minutes, or has no end; a loaded machine needs less than this."""


def compiled(source: str) -> Expression:
    result = LANGUAGE.compile(source)
    assert not isinstance(result, list), result
    return result


def flaws(source: str) -> list[Flaw]:
    result = LANGUAGE.compile(source)
    assert isinstance(result, list)
    return result


def value(source: str, given_input: Any = None) -> Any:
    variables = {"input": given_input, "steps": {}, "workflow": {"id": "w"}}
    return compiled(source).evaluate(Data(variables))


ORDER = {"amount": 5, "rate": 1.5, "name": "\u017c\u00f3\u0142w", "lines": [{"sku": "a", "n": 2}]}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("input.amount", 5),
        ("input.amount + 1", 6),
        ("input.rate * 2.0", 3.0),
        ("input.amount > 4", True),
        ("input.amount > 4.5", True),
        ("size(input.name)", 4),
        ("input.lines.map(l, {'sku': l.sku, 'n': l.n * 2})", [{"sku": "a", "n": 4}]),
        ("input.lines[0].sku", "a"),
        ("has(input.zz)", False),
        ("input.?zz.orValue('none')", "none"),
        ("input.?amount.optMap(a, a * 2).orValue(0)", 10),
        ("input.lines.exists_one(l, l.sku == 'a')", True),
        ("workflow.id", "w"),
        ("{'a': null}", {"a": None}),
        ("1u", 1),
        ("string(duration('90s'))", "90s"),
        ("input", ORDER),
    ],
)
def test_what_an_expression_says(source: str, expected: Any) -> None:
    assert value(source, ORDER) == expected
    assert type(value(source, ORDER)) is type(expected)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("input.zz", "no 'zz' in input"),
        ("input.amount.zz", "no 'zz' in input.amount"),
        ("input.zz + 1", "zz"),
        ("input.lines[7]", "index"),
        ("1 / (input.amount - 5)", "divide by zero"),
        ("b'x'", "bytes"),
        ("timestamp('2020-01-01T00:00:00Z')", "a timestamp"),
        ("duration('1s')", "a duration"),
        ("type(1)", "a type"),
        ("{1: 2}", "keys are not text"),
        ("0.0 / 0.0", "finite"),
        ("1e308 * 10.0", "finite"),
        ("'\\u0000'", "NUL"),
        ("dyn(input.?zz)", "orValue"),
        ("[input.?zz, 1]", "orValue"),
        ("{'a': dyn(input.?amount)}", "orValue"),
        ("[input.lines.map(l, l.zz)]", "zz"),
    ],
)
def test_run_time_errors_are_render_errors(source: str, words: str) -> None:
    with pytest.raises(RenderError, match=words) as caught:
        value(source, ORDER)
    assert source[:20] in caught.value.message


def test_numbers_beyond_64_bits_pass_along_a_path_but_not_through_arithmetic() -> None:
    assert value("input.n", {"n": 2**70}) == 2**70
    with pytest.raises(RenderError, match="64 bits") as caught:
        value("input.n + 1", {"n": 2**70})
    assert str(2**70) not in caught.value.message


@pytest.mark.parametrize(
    ("source", "absent"),
    [
        ("steps.a.output == null ? 0 : steps.a.output.n", 0),
        ("steps.a.output != null && steps.a.output.n > 1", False),
        ("optional.ofNonZeroValue(steps.a.output).?n.orValue(0)", 0),
        ("optional.ofNonZeroValue(steps.a.output).?n.hasValue()", False),
    ],
)
def test_an_output_that_may_be_absent_is_asked_for_first(source: str, absent: Any) -> None:
    expression = compiled(source)
    assert expression.evaluate(Data({"steps": {"a": {"output": None}}})) == absent
    assert expression.evaluate(Data({"steps": {"a": {"output": {"n": 2}}}})) in (2, True)


@pytest.mark.parametrize(
    "source",
    ["steps.a.output.n", "has(steps.a.output.n)", "steps.a.output.?n.orValue(0)"],
)
def test_whoever_looks_into_one_that_is_absent_is_told_how_to_ask(source: str) -> None:
    """It is null and not missing, so neither `has` nor `.?` helps."""
    expression = compiled(source)
    with pytest.raises(RenderError, match=r"ask `steps\.a\.output == null` first"):
        expression.evaluate(Data({"steps": {"a": {"output": None}}}))


def test_nobody_is_told_so_whose_output_is_there() -> None:
    with pytest.raises(RenderError) as caught:
        compiled("steps.a.output.n").evaluate(Data({"steps": {"a": {"output": {}}}}))
    assert caught.value.message.endswith("there is no 'n' in steps.a.output")


@pytest.mark.parametrize(
    ("source", "offset", "words"),
    [
        ("foo.bar", 3, "there is no name or function 'foo.bar'"),
        ("1 +\n foo", 5, "'foo'"),
        ("input.a +", 9, "unexpected end"),
        ("'a' * 3", 4, "no matching overload"),
        ("", 0, "empty"),
        (" ", 0, "empty"),
        ("x" * 5_000, 0, "longer than 4096"),
        ("(" * 40 + "1" + ")" * 40, 0, "nested too deeply"),
        ("+".join(["1"] * 400), 0, "nested too deeply"),
        ("int", 0, "is a type"),
        ("input.?zz", 0, "orValue"),
        ("[input.?zz]", 0, "orValue"),
        ("{'a': optional.of(1)}", 0, "orValue"),
        ("{duration('1s'): 1}", 0, "map key"),
        ("input.?a" + ".optMap(v, v)" * 30, 61, "more than 4 `optMap`"),
        ("a\u017c", 1, ""),
    ],
)
def test_what_cannot_be_compiled_is_told_with_its_place(
    source: str, offset: int, words: str
) -> None:
    found = flaws(source)
    assert words in found[0].message
    assert found[0].offset == offset


def test_references_are_chains_that_begin_with_a_variable() -> None:
    names = {
        one.names
        for one in compiled(
            "input.l.map(steps, steps.x + input.k).size() > 1 && has(steps.a.output.b)"
        ).references
    }
    assert names == {("input", "l"), ("input", "k"), ("steps", "a", "output", "b")}


def test_the_serialised_tree_is_still_read() -> None:
    """Guards against a library that changes what `tree` decodes."""
    program = LANGUAGE._environment.compile("input.l.filter(x, x.a == '\u017c')[0]")
    tree = decode(program.serialize())
    assert isinstance(tree, Call)
    assert tree.function == "_[_]"
    fold = tree.arguments[0]
    assert isinstance(fold, Fold)
    assert isinstance(fold.source, Select)
    assert (fold.variable, fold.source.field) == ("x", "l")


BOMBS = [
    "['x'].map(a,[a])" + ".map(a,a+a+a+a+a+a+a+a)" * 8,
    "['x']" + ".map(a,a+a+a+a+a+a+a+a)" * 8,
    "[" * 20 + "input" + "]" * 20 + ".map(a,[a,a])" * 11,
    "input.l.map(a, input.l.map(b, input.l))",
    "input.l.all(a, input.l.all(b, input.l.all(c, a + b + c >= 0)))",
    "input.l.all(a, input.s.matches('(a|aa)*b'))",
    "input.l.map(a, input.s)",
    "input.m.map(x, x)",
    "+".join(["(input.s + input.s + input.s + input.s)"] * 20),
    "[].map(x, x) == [] ? " + "size([input.s" + ",input.s" * 400 + "].map(x, x + x + x)) : 0",
]


@pytest.mark.parametrize("source", BOMBS, ids=range(len(BOMBS)))
def test_what_would_grow_without_bound_is_stopped_at_once(source: str) -> None:
    data = {"l": list(range(900)), "s": "a" * 100_000, "m": list(range(9_999))}
    expression = compiled(source)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    with pytest.raises(RenderError):
        expression.evaluate(Data({"input": data}))
    assert time.perf_counter() - begin < HANGS_S
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 64 * 1024


@pytest.mark.parametrize(
    "source",
    [
        "input.l.map(x, {'sku': x.sku, 'total': x.price * x.n})",
        "input.l.filter(x, x.sku == input.id)",
        "input.l.exists(x, x.sku == input.id)",
        "input.l.map(x, x.lines.map(y, y.n * 2))",
        "input.l.map(x, x.sku + '!')",
    ],
)
def test_a_thousand_elements_are_ordinary_work(source: str) -> None:
    lines = [{"n": 1}, {"n": 2}]
    rows = [{"sku": f"sku-{i}", "price": i, "n": 2, "lines": lines} for i in range(1_000)]
    assert value(source, {"l": rows, "id": "sku-5"})


# Bodies without NUL and lone surrogates are a promise of `JsonText`.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_data_goes_through_the_library_unchanged(data: Any) -> None:
    assert value("[input][0]", data) == data


@given(st.text(max_size=60))
def test_any_source_is_compiled_or_told_why_not(source: str) -> None:
    if any("\ud800" <= char <= "\udfff" for char in source):
        return
    result = LANGUAGE.compile(source)
    if isinstance(result, list):
        assert result
        assert all(0 <= flaw.offset <= len(source) for flaw in result)
