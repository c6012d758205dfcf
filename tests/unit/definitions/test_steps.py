"""The kinds of steps: what each may say, what it becomes, and what is said of slips."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator

from sidecar.definitions import compile_stored, parse_definition
from sidecar.definitions.language import language_schema
from sidecar.errors import DefinitionError
from sidecar.saga.definition import (
    DEFAULT_CALLBACK_TIMEOUT,
    Definition,
    Join,
    Order,
    StatusCheck,
    Template,
)
from sidecar.saga.moments import parse_moment

CALL: dict[str, Any] = {"name": "a", "service": "s", "execute": "/a"}


def document(*steps: dict[str, Any], **more: Any) -> str:
    return json.dumps({"name": "d", "steps": steps, **more})


def compiled(*steps: dict[str, Any], **more: Any) -> Definition:
    parsed = parse_definition(document(*steps, **more), "json")
    language = Draft202012Validator(language_schema(), offline=True)
    assert language.is_valid(json.loads(parsed.document))  # what registers, editors accept
    return compile_stored(parsed.document, "default", "d", 1)


def problems(*steps: dict[str, Any], **more: Any) -> dict[str, str]:
    with pytest.raises(DefinitionError) as caught:
        parse_definition(document(*steps, **more), "json")
    return dict(caught.value.problems)


def wait(**keys: Any) -> dict[str, Any]:
    return {"name": "w", "wait": keys}


def call(name: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "service": "s", "execute": f"/{name}", **keys}


def source(template: Template | None) -> str:
    assert template is not None
    return template.source


# -- conditions and joins -----------------------------------------------------------------------


def test_a_condition_is_one_expression_or_a_word() -> None:
    step = compiled(call("a"), call("b", when="${steps.a.output.x > 1}")).steps[1]
    assert step.when is not None
    assert step.when.reads == {"a"}
    assert source(compiled(call("a", when=False)).steps[0].when) == "false"


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("true", "one expression that gives true or false"),
        ("is ${input.x}", "one expression that gives true or false"),
        ("${input.x}${input.y}", "one expression that gives true or false"),
        ("", "one expression that gives true or false"),
        ("${input.x + 1}", "gives a number"),
        ("${'x'}", "gives text"),
        ("${[input.x]}", "gives a list"),
        ("${each.item}", "`each` is seen by"),
        (1, "one expression"),
        ([True], "one expression"),
    ],
)
def test_what_is_no_condition_is_said(when: Any, words: str) -> None:
    assert words in problems(call("a", when=when, for_each="${input.l}"))["steps[0].when"]


def test_a_flaw_in_a_condition_is_told_once() -> None:
    (told,) = problems(call("a", when="${1 +}")).values()
    assert told.startswith("Syntax error")


def test_joins_are_all_or_any() -> None:
    definition = compiled(call("a"), call("b", after=[]), call("c", after=["a", "b"], join="any"))
    assert [step.join for step in definition.steps] == [Join.ALL, Join.ALL, Join.ANY]
    for after in ([], ["a"]):
        found = problems(call("a"), call("b", after=after, join="any"))
        assert "two or more" in found["steps[1].join"]
    assert "two or more" in problems(call("a"), call("b", join="any"))["steps[1].join"]
    assert "'all' or 'any'" in problems(call("a", join="some"))["steps[0].join"]


def test_steps_may_be_optional() -> None:
    assert [step.optional for step in compiled(call("a", optional=True), call("b")).steps] == [
        True,
        False,
    ]
    assert "true or false" in problems(call("a", optional="yes"))["steps[0].optional"]


# -- pivots -------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["optional", "for_each"])
def test_a_pivot_is_one_call_that_must_succeed(key: str) -> None:
    value = True if key == "optional" else "${input.l}"
    assert f"`{key}`" in problems(call("a", pivot=True, **{key: value}))["steps[0].pivot"]
    assert compiled(call("a", pivot=True, when="${input.x == 1}", optional=False)).pivots == ("a",)


def test_nothing_still_runs_when_a_pivot_begins() -> None:
    steps = [
        call("a"),
        call("b", after=[]),
        call("c", after=["a", "b"], join="any"),
        call("p", pivot=True),
    ]
    assert "'a' may still run when it begins" in problems(*steps)["steps[3].pivot"]
    steps[3]["after"] = ["a", "b", "c"]
    assert compiled(*steps).pivots == ("p",)
    steps[3] = call("p", after=["a", "b"], join="any", pivot=True)
    steps[2] = call("c", after=["p"])
    assert "'a' may still run" in problems(*steps)["steps[3].pivot"]


def test_what_all_branches_share_is_over_past_any() -> None:
    steps = [
        call("a"),
        call("b", after=["a"]),
        call("c", after=["a"]),
        call("d", after=["b", "c"], join="any"),
        call("p", pivot=True),
    ]
    assert problems(*steps)["steps[4].pivot"].startswith("'p' is a pivot, but 'b' may still run")


def test_past_a_pivot_any_join_is_free() -> None:
    steps = [
        call("r"),
        call("a", after=["r"]),
        call("b", after=["r"]),
        call("c", after=["a", "b"], join="any"),
        call("p", after=["a", "b", "c"], pivot=True),
        call("x", after=["p"]),
        call("y", after=["p"]),
        call("z", after=["x", "y"], join="any"),
    ]
    assert compiled(*steps).pivots == ("p",)


# -- fan-outs -----------------------------------------------------------------------------------


def test_a_fan_out_is_read() -> None:
    step = compiled(
        call(
            "f",
            for_each="${input.lines}",
            max_parallel=3,
            tolerated_failures=2,
            input={"sku": "${each.item.sku}", "n": "${each.index}"},
            compensate={"path": "/u", "input": "${[each.item, steps.f.output]}"},
        )
    ).steps[0]
    assert step.fan_out is not None
    assert source(step.fan_out.items) == '"${input.lines}"'
    assert (step.fan_out.max_parallel, step.fan_out.tolerated) == (3, 2)
    plain = compiled(call("f", for_each=["${input.a}", 2])).steps[0].fan_out
    assert plain is not None
    assert (plain.max_parallel, plain.tolerated) == (10, 0)
    assert compiled(call("a")).steps[0].fan_out is None


@pytest.mark.parametrize(
    ("keys", "path", "words"),
    [
        ({"for_each": "l"}, "for_each", "one expression that gives a list"),
        ({"for_each": "${1 + 1}"}, "for_each", "gives a number"),
        ({"for_each": "${{'a': 1}}"}, "for_each", "gives a mapping"),
        ({"for_each": 5}, "for_each", "one expression that gives a list"),
        ({"for_each": [1] * 10_001}, "for_each", "10000"),
        ({"for_each": "${each.item}"}, "for_each", "`each` is seen by"),
        ({"for_each": None}, "for_each", "is empty"),
        ({"for_each": "${input.l}", "max_parallel": 0}, "max_parallel", "at least 1"),
        ({"for_each": "${input.l}", "max_parallel": 1_001}, "max_parallel", "at most 1000"),
        ({"for_each": "${input.l}", "tolerated_failures": -1}, "tolerated_failures", "at least 0"),
        ({"max_parallel": 5}, "max_parallel", "give that too"),
        ({"tolerated_failures": 5}, "tolerated_failures", "give that too"),
        ({"input": {"x": "${each.item}"}}, "input.x", "`each` is seen by"),
        ({"for_each": [1], "input": "${each.key}"}, "input", "each.item or each.index"),
        ({"for_each": [1], "input": "${each}"}, "input", "each.item or each.index"),
        ({"for_each": [1], "input": "${each.index.x}"}, "input", "each.item or each.index"),
        ({"for_each": [1], "input": "${steps.a.output}"}, "input", "this very step"),
    ],
)
def test_what_is_no_fan_out_is_said(keys: dict[str, Any], path: str, words: str) -> None:
    assert words in problems({**CALL, **keys})[f"steps[0].{path}"]


def test_a_loop_may_call_its_variable_each() -> None:
    assert compiled(call("a", input="${input.l.map(each, each.x)}")).steps[0].input


# -- waits --------------------------------------------------------------------------------------


def test_waits_are_read() -> None:
    span = compiled(wait(duration="10m")).steps[0]
    assert span.wait is not None
    assert span.wait.duration == timedelta(minutes=10)
    assert (span.service, span.path, span.compensation, span.no_effect) == ("", "", None, True)
    signal = compiled(wait(signal="approved", timeout="24h")).steps[0].wait
    assert signal is not None
    assert (signal.signal, signal.timeout) == ("approved", timedelta(days=1))
    for until in ("2030-01-31T12:00:00Z", "${input.due}", "${input.day}T12:00:00Z"):
        found = compiled(wait(until=until)).steps[0].wait
        assert found is not None
        assert source(found.until) == json.dumps(until)
    assert compiled(wait(signal="s"), call("a")).signals == {"s"}


@pytest.mark.parametrize(
    ("keys", "path", "words"),
    [
        ({}, "wait", "one of `duration`, `until` and `signal`"),
        ({"duration": "1s", "signal": "s"}, "wait", "not `duration` and `signal`"),
        ({"duration": "1s", "timeout": "1s"}, "wait.timeout", "belongs to `signal`"),
        ({"duration": "PT1S"}, "wait.duration", "ISO 8601"),
        ({"duration": 5}, "wait.duration", "unit"),
        ({"until": "tomorrow"}, "wait.until", "RFC 3339"),
        ({"until": "2030-01-31"}, "wait.until", "RFC 3339"),
        ({"until": "2030-01-31T12:00:00"}, "wait.until", "RFC 3339"),
        ({"until": "2030-02-31T12:00:00Z"}, "wait.until", "calendar"),
        ({"until": "${1 + 1}"}, "wait.until", "gives a number"),
        ({"until": "${timestamp(input.due)}"}, "wait.until", "not text"),
        ({"until": "${steps.w.output}"}, "wait.until", "this very step"),
        ({"signal": "No"}, "wait.signal", "a-z"),
        ({"sginal": "s"}, "wait.sginal", "did you mean 'signal'"),
    ],
)
def test_what_is_no_wait_is_said(keys: dict[str, Any], path: str, words: str) -> None:
    assert words in problems(wait(**keys))[f"steps[0].{path}"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("service", "s"),
        ("execute", "/a"),
        ("compensate", "none"),
        ("retry", {"max_attempts": 1}),
        ("timeout", "1s"),
        ("input", {}),
        ("for_each", "${input.l}"),
        ("max_parallel", 1),
        ("tolerated_failures", 1),
        ("pivot", True),
        ("on_status", {"409": "done"}),
        ("status", "/s"),
        ("callback_timeout", "1s"),
        ("output_schema", {}),
        ("version", 1),
    ],
)
def test_a_wait_has_no_key_of_a_call(key: str, value: Any) -> None:
    found = problems({**wait(duration="1s"), key: value})
    assert found == {f"steps[0].{key}": "does not belong to a step that waits; leave it out"}


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2030-01-31T12:00:00Z", datetime(2030, 1, 31, 12, tzinfo=UTC)),
        ("2030-01-31t12:00:00.5z", datetime(2030, 1, 31, 12, 0, 0, 500_000, tzinfo=UTC)),
        ("2030-01-31T12:00:00+02:00", datetime(2030, 1, 31, 10, tzinfo=UTC)),
    ],
)
def test_moments_are_read_as_utc(text: str, moment: datetime) -> None:
    assert parse_moment(text) == moment


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "2030-01-31T25:00:00Z", "", 5, None])
def test_what_is_no_moment_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match=r"RFC 3339|calendar"):
        parse_moment(text)


# -- calls --------------------------------------------------------------------------------------


def test_a_call_needs_a_service_and_a_path() -> None:
    assert problems({"name": "a"}) == {
        "steps[0].service": "is missing; it must be given",
        "steps[0].execute": "is missing; it must be given",
    }
    assert "`workflow`" in problems(call("a", version=1))["steps[0].version"]


def test_status_and_callbacks_are_read() -> None:
    step = compiled(call("a", status="/s", callback_timeout="2h", on_status={"202": "pending"}))
    asked = step.steps[0]
    assert asked.status_check == StatusCheck("/s", timedelta(minutes=5))
    assert asked.callback_timeout == timedelta(hours=2)
    assert asked.on_status == ((202, "pending"),)
    long = compiled(call("a", status={"path": "/s", "budget": "1m"})).steps[0]
    assert long.status_check == StatusCheck("/s", timedelta(minutes=1))
    assert long.callback_timeout == DEFAULT_CALLBACK_TIMEOUT
    assert "path like" in problems(call("a", status="https://x/s"))["steps[0].status"]
    path = "steps[0].execute.status"
    assert (
        "belongs to the step" in problems(call("a", execute={"path": "/a", "status": "/s"}))[path]
    )


# -- the workflow's own -------------------------------------------------------------------------


def test_the_output_sees_all_steps() -> None:
    definition = compiled(call("a"), call("b", after=[]), output={"x": "${steps.b.output.x}"})
    assert definition.output is not None
    assert definition.output.reads == {"b"}
    found = problems(call("a"), output={"x": "${steps.c.output}", "y": "${each.item}"})
    assert "there is no step 'c'" in found["output.x"]
    assert "`each` is seen by" in found["output.y"]
    assert source(compiled(call("a"), output={"x": None}).output) == '{"x":null}'


def test_compensation_has_modes_and_orders() -> None:
    plan = {"mode": "central", "order": "sequential"}
    definition = compiled(call("a", compensate="none"), wait(duration="1s"), compensation=plan)
    assert definition.central
    assert definition.order is Order.SEQUENTIAL
    assert compiled(call("a")).order is Order.REVERSE
    assert not compiled(call("a")).central
    found = problems(call("a"), compensation={"order": "random", "mode": "local"})
    assert set(found) == {"compensation.order", "compensation.mode"}


def test_central_wants_every_compensation_named() -> None:
    found = problems(call("a"), call("b", compensate="/u"), compensation={"mode": "central"})
    assert set(found) == {"steps[0].compensate"}
    assert "`none`" in found["steps[0].compensate"]


def test_a_child_is_read() -> None:
    child = compiled({"name": "a", "workflow": "other", "for_each": "${input.l}"}).steps[0].child
    assert child is not None
    assert (child.definition, child.version) == ("other", 0)
    pinned = compiled({"name": "a", "workflow": "other", "version": 3}).steps[0].child
    assert pinned is not None
    assert pinned.version == 3
    found = problems({"name": "a", "workflow": "Other", "service": "s", "pivot": True})
    assert "a-z" in found["steps[0].workflow"]
    assert "a step that runs a child" in found["steps[0].service"]
    assert "a step that runs a child" in found["steps[0].pivot"]


def test_turns_and_priorities_are_read() -> None:
    turns = {"key": "${input.account}", "limit": 2, "release_on_error": True}
    definition = compiled(call("a"), concurrency=turns, priority=5)
    assert definition.concurrency is not None
    assert source(definition.concurrency.key) == '"${input.account}"'
    assert (definition.concurrency.limit, definition.concurrency.release_on_error) == (2, True)
    assert definition.priority == 5
    found = problems(call("a"), concurrency={"key": "${steps.a.output}"}, priority=10)
    assert "before any step runs" in found["concurrency.key"]
    assert "at most 9" in found["priority"]
