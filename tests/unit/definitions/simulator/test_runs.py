"""One run: what each fault does to it."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from sidecar.definitions import compile_stored, parse_definition
from sidecar.definitions.simulator import (
    FaultKind,
    PlannedSignal,
    Run,
    Scenario,
    every_fault,
    every_run,
    parse_fault,
    simulate,
    telling,
)
from sidecar.definitions.simulator.services import LATENCY
from sidecar.errors import InvalidRequest
from sidecar.saga.definition import Definition, JsonText

ORDER = """
name: order
timeout: 3d
steps:
  - {name: charge, service: payments, execute: /charges, compensate: /refunds, timeout: 10s,
     input: {amount: "${input.amount}"}}
  - {name: reserve, service: stock, execute: /reservations, compensate: /cancel, after: [],
     for_each: "${input.lines}", input: {sku: "${each.item.sku}"}}
  - {name: approve, after: [charge, reserve], when: "${steps.charge.output.risk > 0.8}",
     wait: {signal: approved, timeout: 1d}}
  - {name: ship, service: shipping, execute: /ship, pivot: true,
     input: {by: "${steps.approve.status == 'skipped' ? '' : steps.approve.output.payload.by}"}}
  - {name: mail, service: mail, execute: /mail, optional: true}
output: {tracking: "${steps.ship.output.tracking}"}
"""


def definition(text: str = ORDER) -> Definition:
    parsed = parse_definition(text)
    return compile_stored(parsed.document, "default", parsed.name, 1)


def run(*faults: str, text: str = ORDER, **more: object) -> Run:
    defined = definition(text)
    found = tuple(parse_fault(one, defined) for one in faults)
    return simulate(defined, Scenario(faults=found, **more))  # type: ignore[arg-type]


def test_without_a_fault_all_is_done() -> None:
    found = run()
    assert (found.workflow.status, found.took) == ("completed", timedelta(milliseconds=1_300))
    assert found.good
    assert found.workflow.output == '{"tracking":1}'


def test_what_is_given_is_used() -> None:
    outputs = {"charge": JsonText('{"risk": 0.1}')}
    assert run(outputs=outputs).workflow.steps["approve", -1].status == "skipped"
    body = JsonText('{"amount": 5, "lines": [{"sku": "a"}, {"sku": "b"}, {"sku": "c"}]}')
    assert len([key for key in run(input=body).workflow.steps if key.index >= 0]) == 3
    signal = PlannedSignal("approved", JsonText('{"by": "ann"}'), timedelta(hours=2))
    found = run(signals=(signal,))
    assert found.workflow.steps["ship", -1].input == '{"by":"ann"}'
    assert found.took > timedelta(hours=2)


@pytest.mark.parametrize(
    ("fault", "status", "undone", "left"),
    [
        ("charge=refused", "rolled_back", {"reserve[0]", "reserve[1]"}, ()),
        ("charge=unknown", "rolled_back", {"charge", "reserve[0]", "reserve[1]"}, ()),
        ("charge=timeout", "completed", set(), ()),
        ("charge=crash", "completed", set(), ()),
        ("charge=late", "completed", set(), ()),
        ("charge=duplicate", "completed", set(), ()),
        ("charge=unavailable", "completed", set(), ()),
        ("charge=pending", "completed", set(), ()),
        ("charge=cancelled", "rolled_back", {"charge", "reserve[0]", "reserve[1]"}, ()),
        ("charge=compensation_failed", "error", {"reserve[0]", "reserve[1]"}, ("charge",)),
        ("charge=compensation_unknown", "rolled_back", {"charge", "reserve[0]", "reserve[1]"}, ()),
        ("reserve[1]=refused", "rolled_back", {"charge", "reserve[0]"}, ()),
        ("approve=skipped", "completed", set(), ()),
        ("approve=signal_lost", "rolled_back", {"charge", "reserve[0]", "reserve[1]"}, ()),
        ("ship=unknown", "completed", set(), ()),
        ("ship=cancelled", "completed", set(), ()),
        ("mail=refused", "completed", set(), ()),
    ],
)
def test_a_fault_ends_as_it_must(
    fault: str, status: str, undone: set[str], left: tuple[str, ...]
) -> None:
    found = run(fault)
    assert (found.workflow.status, set(found.undone), found.left) == (status, undone, left)
    assert found.broken == ()


def test_what_comes_late_or_twice_changes_nothing_and_is_told() -> None:
    assert any(line.text.startswith("late_answer") for line in run("charge=late").timeline)
    assert any(line.what == "duplicate" for line in run("charge=duplicate").timeline)


def test_steps_are_undone_in_reverse() -> None:
    chain = "\n".join(
        ["name: flow", "steps:"]
        + [f"  - {{name: {n}, service: s, execute: /{n}, compensate: /undo}}" for n in "abc"]
        + ["  - {name: d, service: s, execute: /d, compensate: none}"]
    )
    assert run("d=refused", text=chain).undone == ("c", "b", "a")


def test_a_workflow_that_waits_for_ever_says_for_what() -> None:
    text = "name: flow\nsteps: [{name: w, wait: {signal: go}}]"
    found = run("w=signal_lost", text=text)
    assert (found.workflow.status, found.good) == ("in_progress", False)
    assert found.waits_for == ("w: waits for the signal go",)
    assert telling.end_of(found) == "open (in_progress)"


def test_an_effect_that_nobody_knows_of_is_left() -> None:
    text = "name: f\nsteps: [{name: a, service: s, execute: /a, compensate: /b, optional: true}]"
    found = run("a=unknown", text=text)
    assert (found.workflow.status, found.left, found.good) == ("completed", ("a",), False)


def test_somebody_cancels_when_it_is_planned() -> None:
    found = run(cancel_at=timedelta(seconds=1))
    assert (found.workflow.status, found.workflow.reason) == ("rolled_back", "cancelled")


def test_a_run_is_always_the_same() -> None:
    assert run("charge=unknown", "reserve=timeout") == run("charge=unknown", "reserve=timeout")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("charge", "is not STEP=FAULT"),
        ("charg=refused", "did you mean 'charge'?"),
        ("charge=refuse", "did you mean 'refused'?"),
        ("charge=skipped", "cannot happen to 'charge'"),
        ("approve=refused", "but skipped, signal_lost can"),
    ],
)
def test_a_slip_in_a_fault_is_told(text: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says.replace("?", "[?]")):
        parse_fault(text, definition())


def test_a_workflow_that_takes_turns_has_its_turn_at_once() -> None:
    turns = 'concurrency: {key: "${input.account}"}\ntimeout: 1h\nsteps:'
    text = "name: turns\n{} [{{name: a, service: s, execute: /a, compensate: /b}}]"
    parsed = parse_definition(text.format(turns))
    run = simulate(compile_stored(parsed.document, "default", "turns", 1), Scenario())
    assert (run.workflow.status, run.timeline[1].text) == (
        "completed",
        "queued -> in_progress  its_turn",
    )
    assert run.timeline[1].after == timedelta()


def test_items_that_take_turns_are_called_one_after_the_other() -> None:
    text = """
name: labels
steps:
  - {name: label, service: s, execute: /a, compensate: /b, max_parallel: 10,
     for_each: "${input.parcels}", concurrency: {key: "${each.item.carrier}", limit: LIMIT}}
"""
    parcels = [{"carrier": name} for name in ("red", "red", "red", "blue")]
    body = JsonText(json.dumps({"parcels": parcels}))
    took = []
    for limit in ("1", "2", "3"):
        found = simulate(definition(text.replace("LIMIT", limit)), Scenario(input=body))
        assert (found.workflow.status, found.broken) == ("completed", ())
        took.append(found.took / LATENCY)
    assert took == [3, 2, 1]
    # One that fails gives its place back, and so do those that are taken away because of it.
    defined = definition(text.replace("LIMIT", "1"))
    for fault in every_fault(defined):
        found = simulate(defined, Scenario(input=body, faults=(fault,)))
        assert (found.keeps_the_promise, found.broken) == (True, ()), fault


# -- all of them ----------------------------------------------------------------------------------


def test_every_fault_ends_all_done_all_undone_or_visibly() -> None:
    defined = definition()
    matrix = every_run(defined, Scenario(), pairs=True)
    assert matrix.left_out == 0
    bad = [one.faults for one in matrix.runs if not one.keeps_the_promise]
    assert all(
        any(fault.step == "mail" and fault.kind is FaultKind.UNKNOWN for fault in faults)
        for faults in bad
    ), "only the optional step that cannot be undone may leave something"
    singles = len(list(every_fault(defined)))
    assert matrix.runs[0].faults == ()
    assert [len(one.faults) for one in matrix.runs[1 : singles + 1]] == [1] * singles
    assert {len(one.faults) for one in matrix.runs[singles + 1 :]} == {2}


def test_what_there_is_no_room_for_is_counted() -> None:
    matrix = every_run(definition(), Scenario(), pairs=True, most=10)
    assert len(matrix.runs) == 10
    assert matrix.left_out > 100
    assert not matrix.keeps_the_promise
    assert "more were left out" in telling.table(matrix)
