"""Rendering the items of a fan-out: what differs never mixes, what they share is read once."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from sidecar.definitions import compile_stored, parse_definition, render
from sidecar.definitions.bodies import read_json
from sidecar.definitions.documents import canonical
from sidecar.definitions.work import Work
from sidecar.errors import RenderError
from sidecar.saga.definition import Each, JsonText, Scope, StepDefinition, Template
from sidecar.saga.machine import NewWorkflow, start
from sidecar.saga.states import StepStatus
from sidecar.saga.workflow import WorkflowId

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def fan_out(given: Any, undo: Any = None) -> StepDefinition:
    steps = [
        {"name": "a", "service": "s", "execute": "/a"},
        {
            "name": "f",
            "service": "s",
            "execute": "/f",
            "for_each": "${input.lines}",
            "input": given,
            "compensate": {"path": "/u", "input": undo or {}},
        },
    ]
    parsed = parse_definition(json.dumps({"name": "d", "steps": steps}), "json")
    return compile_stored(parsed.document, "default", "d", 1).steps[1]


def scope(given: Any) -> Scope:
    outputs = {"a": JsonText('{"id":"r1"}')}
    return Scope("w", "d", 1, canonical(given), outputs, {"a": "succeeded"})


def item(base: Scope, index: int, value: Any, **more: Any) -> Scope:
    return dataclasses.replace(base, each=Each(index, canonical(value)), **more)


def filled(template: Template | None, at: Scope) -> Any:
    assert template is not None
    return json.loads(render(template, at))


def test_each_item_sees_its_own_element() -> None:
    step = fan_out(
        {
            "sku": "${each.item.sku}",
            "n": "${each.index}",
            "double": "${each.item.n * 2}",
            "text": "${each.index} of ${input.order}",
            "of": "${steps.a.output.id}",
        }
    )
    base = scope({"order": "o-1"})
    for index in (0, 1, 0, 2, 1):
        assert filled(step.input, item(base, index, {"sku": f"s{index}", "n": index})) == {
            "sku": f"s{index}",
            "n": index,
            "double": index * 2,
            "text": f"{index} of o-1",
            "of": "r1",
        }


def test_equal_elements_at_different_places_do_not_mix() -> None:
    step = fan_out("${[each.index, each.item]}")
    base = scope({})
    assert [filled(step.input, item(base, index, "x")) for index in range(3)] == [
        [0, "x"],
        [1, "x"],
        [2, "x"],
    ]


def test_own_outputs_and_statuses_of_items_do_not_mix() -> None:
    undo = {"id": "${steps.f.output.?id.orValue(0)}", "whole": "${steps.f.output}"}
    undo |= {"status": "${steps.f.status}", "n": "${each.index}"}
    compensation = fan_out({}, undo).compensation
    assert compensation is not None
    base = scope({})
    text = canonical({"id": 1})
    outputs = [text, canonical({"id": 2}), None, text, None, text]
    for index, output in enumerate(outputs):
        status = "unknown" if output is None else "succeeded"
        at = item(
            base,
            index,
            None,
            outputs={**base.outputs, "f": output},
            statuses={**base.statuses, "f": status},
        )
        if output is None:
            assert render(Template(JsonText("null"), constant=True), at) == "null"
            with pytest.raises(RenderError, match="null"):
                filled(compensation.input, at)
            continue
        assert filled(compensation.input, at) == {
            "id": json.loads(output)["id"],
            "whole": json.loads(output),
            "status": status,
            "n": index,
        }


def test_an_absent_own_output_is_null_whatever_came_before() -> None:
    compensation = fan_out({}, {"whole": "${steps.f.output}"}).compensation
    assert compensation is not None
    base = scope({})
    text = canonical([1])
    for output in (text, None, text, None):
        at = item(base, 0, None, outputs={"f": output})
        assert filled(compensation.input, at) == {"whole": output and [1]}


def test_a_status_that_is_gone_is_not_that_of_another_item() -> None:
    compensation = fan_out({}, "${steps.f.status}").compensation
    assert compensation is not None
    base = scope({})
    assert filled(compensation.input, item(base, 0, 1, statuses={"f": "failed"})) == "failed"
    with pytest.raises(RenderError, match="no 'status'"):
        filled(compensation.input, item(base, 1, 1, statuses={}))


def test_without_an_item_there_is_no_each() -> None:
    step = fan_out("${each.index}")
    base = scope({})
    assert filled(step.input, item(base, 3, 1)) == 3
    with pytest.raises(RenderError, match="each"):
        filled(step.input, base)


def test_what_items_share_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def remember(text: JsonText, work: Work) -> Any:
        read.append(text)
        return read_json(text, work)

    monkeypatch.setattr("sidecar.definitions.rendering.read_json", remember)
    step = fan_out({"a": "${input.order}", "b": "${each.item}", "c": "${steps.a.output.id}"})
    base = scope({"order": "o", "lines": list(range(1_000))})
    for index in range(1_000):
        filled(step.input, item(base, index, index))
    assert read.count(base.input) == 1
    assert read.count('{"id":"r1"}') == 1
    assert len(read) == 1_002


@pytest.mark.parametrize(
    "given",
    [
        {"sku": "${each.item.sku}", "n": "${each.index}", "order": "${input.order}"},
        {"total": "${each.item.n * each.item.price}", "big": "${each.item.n > 3 ? 'b' : 's'}"},
        {"key": "${input.order}-${each.index}", "note": "${each.item.?note.orValue('')}"},
        {"price": "${input.prices[each.item.sku] * each.item.n}", "sku": "${each.item.sku}"},
        {"price": "${input.prices[?each.item.sku].orValue(0)}", "first": "${input.lines[0].sku}"},
    ],
)
def test_a_thousand_items_take_little_more_than_a_hundred_each(given: Any) -> None:
    step = fan_out(given)
    lines = [{"sku": f"s{n}", "n": n, "price": 5, "note": "x" * 50} for n in range(1_000)]
    prices = {f"s{n}": n for n in range(1_000)}
    base = scope({"order": "o-1", "lines": lines, "prices": prices, "more": ["x" * 100] * 1_000})
    work: list[float] = []
    for index, line in enumerate(lines):
        filled(step.input, item(base, index, line))
        work.append(base.kept["seen"].data.work.done)
    # The first one pays for what they share; after that each one is as dear as any other.
    assert work[999] - work[899] < 1.05 * (work[199] - work[99])


def test_the_price_of_an_item_does_not_grow_with_what_is_not_read() -> None:
    step = fan_out({"n": "${each.index + 1}", "order": "${input.order + '!'}"})
    work: list[float] = []
    for more in (1, 10_000):
        base = scope({"order": "o-1", "lines": ["x"] * more})
        for index in range(3):
            filled(step.input, item(base, index, "x"))
        before = base.kept["seen"].data.work.done
        filled(step.input, item(base, 3, "x"))
        work.append(base.kept["seen"].data.work.done - before)
    assert work[0] == work[1]


@pytest.mark.parametrize("given", ["${input}", "x ${input.pad + 'y'}", "${{'p': input.pad}}"])
def test_items_whose_inputs_are_too_much_to_render_at_once_fail_none(given: str) -> None:
    """Sixty of them would use up the budget of one transition three times over."""
    step = {
        "name": "f",
        "service": "s",
        "execute": "/f",
        "compensate": "/u",
        "for_each": "${input.lines}",
        "max_parallel": 60,
        "input": {"all": given},
    }
    parsed = parse_definition(json.dumps({"name": "d", "steps": [step]}), "json")
    defined = compile_stored(parsed.document, "default", "d", 1)
    body = canonical({"pad": "x" * 200_000, "lines": list(range(60))})
    known = WorkflowId("0190c0de-0000-7000-8000-000000000000")
    begun = start(defined, NewWorkflow(known, body), now=NOON, render=render).workflow
    items = [one.status for one in begun.steps.values() if one.is_item]
    assert set(items) == {StepStatus.QUEUED}
    assert 1 < len(items) < 60
