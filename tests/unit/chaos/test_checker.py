"""The checker finds what is planted for every invariant that it claims, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos import reference
from tests.chaos.checker import check
from tests.chaos.expectations import Expectations, Rule, Start, Violation
from tests.chaos.graphs import Graph
from tests.chaos.patience import Patience, Retry
from tests.unit.chaos.language_plants import PLANTS as LANGUAGE_PLANTS
from tests.unit.chaos.plants import PLANTS, Plant, change_event, change_step, entry
from tests.unit.chaos.reference_plants import PLANTS as REFERENCE_PLANTS
from tests.unit.chaos.sound_language import DONE as DONE_TRIP
from tests.unit.chaos.sound_language import RATES, sound_language
from tests.unit.chaos.sound_run import DONE, UNDONE, Run, sound_run
from tests.unit.chaos.sound_tries import sound_tries
from tests.unit.chaos.tries_plants import PLANTS as TRIES_PLANTS

SOUND = Expectations(
    at_least={
        "completed": 1, "rolled_back": 1, "started": 2, "applied": 10, "refused": 1, "epochs": 2,
        "cause:undo": 3, "kills": 1,
    }
)  # fmt: skip
SOUND_LANGUAGE = Expectations(
    at_least={
        "completed": 2, "rolled_back": 2, "children": 2, "items": 6, "skipped": 1, "tolerated": 2,
        "taken_on": 1, "called_back": 1, "trip:completed": 1, "crowds": 2,
        "cause:parent_turned_back": 1,
    },
    rates=RATES,
)  # fmt: skip
SOUND_TRIES = Expectations(at_least={"completed": 1, "rolled_back": 1, "cause:busy": 1})


def judge(run: Run, expectations: Expectations = SOUND) -> list[Violation]:
    return check(
        run.entries,
        run.rows(),
        run.starts,
        expectations,
        cancels=run.cancels,
        exits=run.exits,
        seen={"kills": 1},
        files=run.files,
    )


def test_a_sound_run_has_no_violation() -> None:
    assert judge(sound_run()) == []


@pytest.mark.parametrize(
    ("rule", "spoil"),
    [pytest.param(rule, spoil, id=f"{rule}-{name}") for rule, name, spoil in PLANTS],
)
def test_what_is_planted_is_found(rule: Rule, spoil: Plant) -> None:
    run = sound_run()
    spoil(run)
    assert rule in {one.rule for one in judge(run)}


def test_a_sound_run_of_the_language_has_no_violation() -> None:
    assert judge(sound_language(), SOUND_LANGUAGE) == []


@pytest.mark.parametrize(
    ("rule", "spoil"),
    [pytest.param(rule, spoil, id=f"{rule}-{name}") for rule, name, spoil in LANGUAGE_PLANTS],
)
def test_what_is_planted_in_the_language_is_found(rule: Rule, spoil: Plant) -> None:
    run = sound_language()
    spoil(run)
    assert rule in {one.rule for one in judge(run, SOUND_LANGUAGE)}


def test_a_sound_run_of_tries_has_no_violation() -> None:
    assert judge(sound_tries(), SOUND_TRIES) == []


@pytest.mark.parametrize(
    ("rule", "spoil"),
    [
        pytest.param(rule, spoil, id=f"{rule}-{name}")
        for rule, name, spoil in (*TRIES_PLANTS, *REFERENCE_PLANTS)
    ],
)
def test_what_is_planted_in_tries_is_found(rule: Rule, spoil: Plant) -> None:
    run = sound_tries()
    spoil(run)
    assert rule in {one.rule for one in judge(run, SOUND_TRIES)}


def test_what_a_person_has_skipped_may_have_been_done_and_nothing_else_may() -> None:
    run = sound_language()
    change_event(
        run,
        lambda one: (one.workflow, one.step, one.cause) == (DONE_TRIP, "close", "done"),
        after="skipped",
        cause="skipped",
    )
    change_step(run, DONE_TRIP, "close", status="skipped", output=None)
    assert judge(run, SOUND_LANGUAGE) == []
    change_event(run, lambda one: one.cause == "skipped", cause="condition_is_false")
    found = {one.rule for one in judge(run, SOUND_LANGUAGE)}
    assert {Rule.ONE_END, Rule.COMPLETED} <= found


def test_every_rule_has_a_planted_violation() -> None:
    planted = (*PLANTS, *LANGUAGE_PLANTS, *TRIES_PLANTS, *REFERENCE_PLANTS)
    assert {rule for rule, _, _ in planted} == set(Rule)


def test_without_keys_an_effect_may_happen_twice_but_not_be_left() -> None:
    run = sound_run()
    run.entries.append(replace(entry(run, DONE, "charge"), attempt=2))
    forgetful = replace(SOUND, keys_honoured=False)
    assert judge(run, forgetful) == []
    run.entries.remove(entry(run, UNDONE, "pack", "compensate"))
    assert Rule.ROLLED_BACK in {one.rule for one in judge(run, forgetful)}


def test_what_had_happened_before_proves_nothing() -> None:
    run = sound_run()
    found = check(
        run.entries, run.rows(), run.starts, SOUND, seen={"kills": 3}, before={"kills": 2}
    )
    assert found == []
    found = check(
        run.entries, run.rows(), run.starts, SOUND, seen={"kills": 3}, before={"kills": 3}
    )
    assert [one.rule for one in found] == [Rule.VACUOUS]


def test_ends_that_the_faults_allow_are_legal_for_the_definition_alone() -> None:
    run = sound_run()
    run.starts[1] = replace(run.starts[1], ends=frozenset({"completed"}))
    assert judge(run) != []
    for_orders = replace(SOUND, also_legal_for={"order": frozenset({"rolled_back"})})
    assert judge(run, for_orders) == []
    for_others = replace(SOUND, also_legal_for={"another": frozenset({"rolled_back"})})
    assert judge(run, for_others) != []


def test_ends_that_are_allowed_to_one_workflow_are_legal_for_no_other() -> None:
    run = sound_run()
    run.starts[1] = replace(run.starts[1], ends=frozenset({"completed"}))
    to_it = replace(SOUND, also_legal_to={UNDONE: frozenset({"rolled_back"})})
    assert judge(run, to_it) == []
    to_another = replace(SOUND, also_legal_to={DONE: frozenset({"rolled_back"})})
    assert judge(run, to_another) != []


def test_a_start_in_doubt_may_have_taken_or_not() -> None:
    run = sound_run()
    run.starts[0] = replace(run.starts[0], workflow=None)
    run.starts.append(Start("never", "order", {}, frozenset({"completed"})))
    assert judge(run, replace(SOUND, at_least={"doubtful": 2})) == []


def test_a_graph_is_read_from_its_document() -> None:
    steps = [
        {"name": "a"},
        {"name": "b", "compensate": "none"},
        {"name": "c", "after": ["a"], "pivot": True},
        {"name": "d", "after": []},
    ]
    graph = Graph.read({"steps": steps})
    assert graph.after == {"a": (), "b": ("a",), "c": ("a",), "d": ()}
    assert graph.undoable == {"a", "c", "d"}
    assert graph.pivots == {"c"}
    assert graph.descendants("a") == {"b", "c"}


def test_how_patient_steps_are_is_read_from_the_document() -> None:
    retry = {"initial_interval": "50ms", "max_interval": "1.5s", "backoff_coefficient": 3}
    steps = [
        {"name": "plain", "compensate": "/undo"},
        {"name": "own", "retry": {**retry, "max_attempts": None}, "callback_timeout": "2m"},
        {"name": "offered", "pinned": {"retry": {"jitter": 0}, "compensate": {"retry": retry}}},
        {"name": "called", "execute": {"path": "/it", "retry": {"max_attempts": 2}}},
        {"name": "rest", "wait": {"duration": "1h"}},
        {"name": "signal", "wait": {"signal": "go", "timeout": "1d"}},
    ]
    patience = Patience.read({"timeout": "500ms", "steps": steps})
    execute, compensate = patience.execute, patience.compensate
    assert (execute["plain"], compensate["plain"]) == (Retry(), Retry(longest_s=300.0, most=None))
    assert execute["own"] == Retry(0.05, 3.0, 1.5, 0.2, None)
    assert execute["offered"] == Retry(jitter=0.0)
    assert compensate["offered"] == Retry(0.05, 3.0, 1.5, 0.2, None)
    assert execute["called"].most == 2
    assert patience.rests_s == {"rest": 3_600.0, "signal": 86_400.0}
    assert (patience.callback_s["own"], patience.callback_s["plain"]) == (120.0, 900.0)
    assert patience.timeout_s == 0.5


def test_the_least_pause_grows_up_to_the_longest() -> None:
    retry = Retry(1.0, 2.0, 5.0, 0.2)
    assert [retry.least_pause_s(number) for number in (0, 1, 2, 3, 4, 9)] == pytest.approx(
        [0.8, 0.8, 1.6, 3.2, 4.0, 4.0]
    )


def test_the_reference_model_shares_nothing_with_the_machine() -> None:
    text = Path(reference.__file__).read_text()
    assert "import sidecar" not in text
    assert "from sidecar" not in text
    assert len(text.splitlines()) <= 300
