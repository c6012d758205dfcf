"""The work of rendering: counted, bounded for a whole transition, and paid before it is done."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from sidecar.definitions import compile_stored, parse_definition, render
from sidecar.definitions.bodies import read_json, write_json
from sidecar.definitions.cost import measure
from sidecar.definitions.data import Data, outermost
from sidecar.definitions.documents import canonical
from sidecar.definitions.expressions import Cel
from sidecar.definitions.patterns import MOST_PROGRAM, program_size
from sidecar.definitions.templates import CEL
from sidecar.definitions.work import CONVERT, MOST_FORWARD, MOST_WORK, Work
from sidecar.errors import RenderError
from sidecar.saga.changes import Changes
from sidecar.saga.definition import Definition, JsonText, Scope
from sidecar.saga.machine import NewWorkflow, start
from sidecar.saga.states import StepStatus
from sidecar.saga.workflow import WorkflowId

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
LANGUAGE = Cel()


def definition(*inputs: Any, **more: Any) -> Definition:
    """Steps beside each other, one for each input."""
    steps = [
        {"name": f"s{i}", "service": "a", "execute": "/a", "after": [], "input": one, **more}
        for i, one in enumerate(inputs)
    ]
    parsed = parse_definition(json.dumps({"name": "d", "steps": steps}), "json")
    return compile_stored(parsed.document, "default", "d", 1)


def started(inputs: list[Any], given: Any) -> Changes:
    new = NewWorkflow(id=WorkflowId("w"), input=canonical(given))
    return start(definition(*inputs), new, now=NOON, render=render)


def failures(changes: Changes) -> list[str]:
    failed = [one for one in changes.workflow.steps.values() if one.status is StepStatus.FAILED]
    return [one.error or "" for one in failed]


def price(source: str, given: Any) -> float:
    """The work that one expression asks for, whether or not there is so much."""
    compiled = LANGUAGE.compile(source)
    assert not isinstance(compiled, list)
    work = Work(1e15)
    compiled.evaluate(Data({"input": given}, work))
    return work.done


# -- one budget for a transition ----------------------------------------------------------------


def test_no_number_of_expressions_takes_more_than_one_transition_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    works: list[Work] = []
    begin = Work.__init__

    def remember(self: Work, most: float = MOST_FORWARD) -> None:
        works.append(self)
        begin(self, most)

    monkeypatch.setattr(Work, "__init__", remember)
    busy = "${size(input.l.map(x, x + 1))}"
    template = {f"k{i}": busy for i in range(300)}
    given = {"l": list(range(1_000))}
    changes = started([template], given)
    assert "too much time" in failures(changes)[0]
    assert sum(work.done for work in works) <= MOST_WORK


def test_steps_of_one_transition_share_its_budget() -> None:
    busy = "${size(input.l.map(x, x + 1))}"
    given = {"l": list(range(1_000))}
    assert not failures(started([busy], given))
    changes = started([busy] * 10, given)
    assert "together with what is rendered at the same time" in failures(changes)[0]


def test_a_compensation_is_rendered_whatever_was_spent_going_forward() -> None:
    spends, undo = {"a": "${size(input.l.map(x, x + 1))}"}, {"n": "${input.l[0] + 1}"}
    compiled = definition(
        *[spends] * 5, compensate={"path": "/undo", "input": undo}, retry={"max_attempts": 1}
    )
    scope = Scope("w", "d", 1, canonical({"l": list(range(1_000))}), {}, {})
    forward = compiled.steps[0].input
    compensation = compiled.steps[0].compensation
    assert forward is not None
    assert compensation is not None
    assert compensation.input is not None
    with pytest.raises(RenderError, match="together"):
        [render(forward, scope) for _ in range(5)]
    assert render(compensation.input, scope) == '{"n":1}'


def test_data_is_read_and_converted_once_for_all_steps_of_a_transition() -> None:
    given = {"l": ["x" * 20] * 1_000}
    scope = Scope("w", "d", 1, canonical(given), {}, {})
    sizes = definition(*[f"${{size(input.l) + {n}}}" for n in range(100)])
    work = []
    for step in sizes.steps:
        assert step.input is not None
        render(step.input, scope)
        work.append(scope.kept["seen"].data.work.done)
    assert work[1] - work[0] < work[0] / 3
    assert work[-1] - work[-2] == work[1] - work[0]


def test_a_fan_out_of_a_thousand_ordinary_steps_is_ordinary() -> None:
    items = [{"sku": f"sku-{n}", "n": n, "note": "x" * 50} for n in range(1_000)]
    inputs = [{"sku": f"${{input.l[{n}].sku}}", "n": "${input.n}"} for n in range(1_000)]
    assert not failures(started(inputs, {"l": items, "n": 1}))


# -- what is counted ----------------------------------------------------------------------------


def test_searching_costs_the_product_of_its_sizes() -> None:
    once = price("input.s.contains(input.t)", {"s": "a" * 10_000, "t": "a" * 1_000})
    assert price("input.s.contains(input.t)", {"s": "a" * 100_000, "t": "a" * 10_000}) > 50 * once
    each = {"s": "a" * 10_000, "t": "a" * 1_000, "l": [1] * 20}
    assert price("input.l.map(x, input.s.contains(input.t))", each) > 19 * (once - 10_000)
    of_loop = {"l": ["a" * 1_000] * 20, "t": "a" * 1_000}
    assert price("input.l.all(x, x.contains(input.t))", of_loop) > 20 * 1_000 * 1_000 / 64


@pytest.mark.parametrize(
    ("source", "given"),
    [
        (
            "input.l.map(x, input.s.contains(input.t))",
            {"l": [1] * 20, "s": "a" * 600_000, "t": "a" * 300_000 + "b"},
        ),
        ("input.s.matches('(" + "|".join([".{1,200}x"] * 60) + ")y')", {"s": "ab" * 50_000}),
        ("input.s.matches(input.p)", {"s": "ab", "p": "(\\pL|\\pN){300}"}),
        ("input.s.matches(input.p + '')", {"s": "ab", "p": "a"}),
        ("size(input.l) + 1", {"l": [[]] * 200_000}),
        ("[input.?l.orValue([])]", {"l": [1] * 200_000}),
    ],
    ids=range(6),
)
def test_what_would_hold_everybody_up_is_refused_before_it_begins(source: str, given: Any) -> None:
    compiled = LANGUAGE.compile(source)
    assert not isinstance(compiled, list)
    work = Work()
    with pytest.raises(RenderError, match=r"too (much time|large)"):
        compiled.evaluate(Data({"input": given}, work))
    assert work.done <= MOST_FORWARD


def test_counting_what_knows_its_number_is_cheap() -> None:
    given = {"l": ["x" * 20] * 20_000, "s": "x" * 400_000}
    elements = price("size(input.l)", given)
    assert price("size(input.l) + size(input.l)", given) < elements * 1.01
    assert price("size(input.s) + size(input.s)", given) > price("size(input.s)", given) + 400_000


def test_measuring_and_reading_are_paid() -> None:
    work = Work()
    measure([[1]] * 1_000, work)
    measured = work.done
    assert measured > 2_000
    read_json(JsonText("[" + ",".join(["[]"] * 1_000) + "]"), work)
    assert work.done > measured + 1_000
    with pytest.raises(RenderError):
        read_json(JsonText("[" + ",".join(["[]"] * 300_000) + "]"), work)


def test_a_refusal_costs_what_it_took_to_find_out() -> None:
    work = Work()
    text = JsonText("[" + ",".join(["[]"] * 300_000) + "]")
    for _ in range(1_000):
        with pytest.raises(RenderError):
            read_json(text, work)
    assert work.done > MOST_FORWARD - len(text)


def test_only_what_is_named_is_handed_to_the_library() -> None:
    large = {"n": 1, "l": [[1]] * 100_000}
    for source in ("input.n + 1", "input.?n.orValue(0)", "has(input.n)", "has(input.zz)"):
        assert price(source, large) < 20_000


def test_chains_within_others_are_left_out() -> None:
    chains = [("input", "a", "b"), ("input", "a"), ("input", "ab"), ("steps", "x", "output")]
    assert outermost(chains) == (("input", "a"), ("input", "ab"), ("steps", "x", "output"))


def test_a_budget_is_never_overdrawn_and_never_fooled() -> None:
    work = Work(10)
    for units in (11, float("inf"), float("nan")):
        with pytest.raises(RenderError):
            work.spend(units)
    work.spend(4)
    with pytest.raises(RenderError, match="together"):
        work.spent(7)
    assert work.done == 10


# -- patterns -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "least", "most"),
    [
        ("a+b", 3, 20),
        ("^[0-9a-f]{8}-[0-9a-f]{4}$", 12, 200),
        (".{1000}", 1_000, 20_000),
        ("((a{10}){10}){10}", 1_000, 2_000),
        ("(a|b)*a(a|b){300}c", 600, 2_000),
        ("[^@]+@[^@]+\\.[a-z]{2,}", 10, 100),
        ("\\pL{10}", 7_000, 20_000),
        ("(\\pL|\\pN){300}", MOST_PROGRAM, MOST_PROGRAM),
        ("(?i)stra\u00dfe", 7, 100),
        ("\\Q(\\E", MOST_PROGRAM, MOST_PROGRAM),
        ("(", MOST_PROGRAM, MOST_PROGRAM),
        (")", MOST_PROGRAM, MOST_PROGRAM),
        ("", 0, 20),
    ],
)
def test_how_large_a_pattern_becomes(pattern: str, least: int, most: int) -> None:
    assert least <= program_size(pattern) <= most


# -- bodies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        *(0, -1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 2**200, [2**70], {"a": -(2**70)}),
        *(1.5, 1e300, "12345678901234567890", " 12345678901234567890", "\u017c", [], {}, None),
        {"b": [1, {"z": 1, "a": 2}], "a": True},
    ],
)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), ("\n,", "\t:\n")])
def test_bodies_come_through_as_they_are(value: Any, separators: tuple[str, str]) -> None:
    text = JsonText(json.dumps(value, separators=separators, ensure_ascii=False))
    read = read_json(text, Work())
    assert (read, type(read)) == (value, type(value))
    assert write_json(read, Work()) == json.dumps(
        value, separators=(",", ":"), sort_keys=True, ensure_ascii=False
    )


# -- whatever goes wrong ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raised", [SystemError("x"), MemoryError(), RuntimeError("x"), KeyError(1)]
)
def test_whatever_the_library_raises_is_a_render_error(
    raised: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = definition("${input.l.map(x, x)}").steps[0].input
    assert template is not None

    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr("sidecar.definitions.expressions.bound", fail)
    with pytest.raises(RenderError):
        render(template, Scope("w", "d", 1, JsonText('{"l":[1]}'), {}, {}))
    monkeypatch.setattr("sidecar.definitions.rendering.written", fail)
    monkeypatch.setattr("sidecar.definitions.rendering.read_json", fail)
    with pytest.raises(RenderError):
        render(template, Scope("w", "d", 1, JsonText('{"l":[1]}'), {}, {}))


@pytest.mark.parametrize(
    "source",
    [
        "{'a': dyn(input.?n)}",
        "[input.?n, 1]",
        "dyn([{'a': [input.?zz, 2]}])",
        "dyn(optional.none())",
    ],
)
def test_an_optional_inside_a_result_ends_as_an_error(source: str) -> None:
    compiled = CEL.compile(source)
    assert not isinstance(compiled, list)
    with pytest.raises(RenderError, match="orValue"):
        compiled.evaluate(Data({"input": {"n": 1}}))


# -- what is picked from a table ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "result"),
    [
        ("input.t[input.k]", 1),
        ("input.t[?input.k].orValue(5)", 1),
        ("input.t[?input.gone].orValue(5)", None),
        ("input.t[?input.missing].orValue(5)", 5),
        ("input.t[input.missing]", None),
        ("input.t[input.k] + size(input.t)", 3),
        ("input.t[input.k] + input.t[input.j]", 3),
        ("input.t[input.k] + input.t.b", 3),
        ("input.l[input.n]", "y"),
        ("input.t[input.n]", None),
        ("input.gone[input.k]", None),
        ("input.k[input.k]", None),
        ("[0].map(x, input.t[input.k] + x)", [1]),
        ("['a'].map(x, input.t[x])", [1]),
        ("[input.t].map(t, t[input.k])", [1]),
        ("input.o[input.k].x", 7),
        ("input.o[input.k][input.p]", 7),
        ("input.t.a + input.o[input.k].x", 8),
    ],
)
def test_picking_gives_what_the_whole_would_give(source: str, result: Any) -> None:
    given = {
        "t": {"a": 1, "b": 2},
        "l": ["x", "y"],
        "o": {"a": {"x": 7}},
        "k": "a",
        "j": "b",
        "n": 1,
        "p": "x",
        "missing": "z",
    }
    compiled = LANGUAGE.compile(source)
    assert not isinstance(compiled, list)
    if result is None:
        with pytest.raises(RenderError):
            compiled.evaluate(Data({"input": given}))
    else:
        assert compiled.evaluate(Data({"input": given})) == result


def test_picking_costs_no_more_from_a_large_table() -> None:
    prices = [
        price("input.t[input.k] + 1", {"t": {f"k{n}": n for n in range(many)}, "k": "k1"})
        for many in (10, 10_000)
    ]
    # The table is looked at once, to bound the result, but not handed over.
    assert prices[1] - prices[0] < 10_000 * 60


def test_what_is_picked_is_paid() -> None:
    small, large = ({"t": {"a": "x" * size}, "k": "a"} for size in (10, 100_000))
    source = "input.t[input.k] + 'x'"
    assert price(source, large) > price(source, small) + 100_000
    loop = "[1].map(n, input.t[input.k] + 'x')"
    assert price(loop, large) > price(loop, small) + 100_000


def test_a_list_is_handed_over_whole_and_paid() -> None:
    compiled = LANGUAGE.compile("input.l[input.k]")
    assert not isinstance(compiled, list)
    work = Work(1e15)
    with pytest.raises(RenderError):
        compiled.evaluate(Data({"input": {"l": [1] * 10_000, "k": "a"}}, work))
    assert work.done > 10_000 * CONVERT


def test_the_name_of_a_loop_is_no_table() -> None:
    compiled = LANGUAGE.compile("[{'a': 1}].map(steps, steps[input.k])")
    assert not isinstance(compiled, list)
    assert [one.names for one in compiled.references] == [("input", "k")]
