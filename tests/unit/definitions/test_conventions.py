"""`compat`: what statuses mean to services that were written for another system."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from sidecar.adapters.http_contract.answers import Answer, outcome_of
from sidecar.definitions import compile_stored, parse_definition
from sidecar.definitions.catalogues import read_actions
from sidecar.definitions.findings import Findings
from sidecar.errors import DefinitionError
from sidecar.saga.definition import StepDefinition
from sidecar.saga.outcomes import OutcomeKind
from sidecar.saga.states import Action

_K = OutcomeKind
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
STEP = {"name": "a", "service": "s", "execute": "/a", "compensate": "/undo"}
BOTH = (Action.EXECUTE, Action.COMPENSATE)


def document(**more: Any) -> str:
    return json.dumps({"name": "flow", "steps": [{**STEP, **more}]})


def compiled(**more: Any) -> StepDefinition:
    parsed = parse_definition(document(**more), "json")
    return compile_stored(parsed.document, "default", "flow", 1).steps[0]


def kind_of(step: StepDefinition, action: Action, status: int) -> OutcomeKind:
    undo = step.compensation
    assert undo is not None
    own = step.on_status if action is Action.EXECUTE else undo.on_status
    return outcome_of(action, Answer(status), NOON, dict(own)).kind


@pytest.mark.parametrize("action", BOTH)
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, _K.DONE),
        (202, _K.PENDING),
        (400, _K.UNKNOWN),
        (404, _K.UNKNOWN),
        (409, _K.REFUSED),
        (410, _K.UNKNOWN),
        (422, _K.UNKNOWN),
        (425, _K.BUSY),
        (429, _K.NOT_NOW),
        (500, _K.UNKNOWN),
        (503, _K.NOT_NOW),
    ],
)
def test_the_answers_of_a_service_of_dtm(action: Action, status: int, kind: OutcomeKind) -> None:
    assert kind_of(compiled(compat="dtm"), action, status) is kind


def test_what_is_unknown_may_have_had_an_effect() -> None:
    outcome = outcome_of(Action.EXECUTE, Answer(404), NOON, dict(compiled(compat="dtm").on_status))
    assert outcome.may_have_effect


def test_a_status_of_which_more_is_said_means_that() -> None:
    undo = {"path": "/undo", "on_status": {"404": "done"}}
    step = compiled(compat="dtm", on_status={"422": "refused"}, compensate=undo)
    assert kind_of(step, Action.EXECUTE, 422) is _K.REFUSED
    assert kind_of(step, Action.EXECUTE, 404) is _K.UNKNOWN
    assert kind_of(step, Action.COMPENSATE, 404) is _K.DONE
    assert kind_of(step, Action.COMPENSATE, 422) is _K.UNKNOWN


def test_without_a_convention_nothing_is_said() -> None:
    step = compiled()
    assert step.compensation is not None
    assert step.on_status == step.compensation.on_status == ()


def test_an_action_of_a_catalogue_has_a_convention_too() -> None:
    findings = Findings()
    raw = {"a": {"execute": "/a", "compensate": "/undo", "compat": "dtm"}}
    plan = read_actions(raw, findings).actions["a"]
    assert findings.problems() == []
    step = compiled(compat="dtm")
    assert step.compensation is not None
    for action, own in zip(BOTH, (step.on_status, step.compensation.on_status), strict=True):
        target = plan.target(action)
        assert target is not None
        assert target.on_status == own != ()


@pytest.mark.parametrize(
    ("more", "where", "expected"),
    [
        ({"compat": "saga"}, "steps[0].compat", "dtm"),
        (
            {"execute": {"path": "/a", "compat": "dtm"}},
            "steps[0].execute.compat",
            "belongs to the step",
        ),
    ],
)
def test_a_slip_is_told(more: dict[str, Any], where: str, expected: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse_definition(document(**more), "json")
    assert expected in dict(caught.value.problems)[where]
