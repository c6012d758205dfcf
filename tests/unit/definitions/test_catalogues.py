"""Catalogues and what is pinned of them, without any store."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator

from sidecar.definitions import compile_stored, parse_definition
from sidecar.definitions.catalogues import Catalogue, read_actions, stored_catalogue
from sidecar.definitions.documents import canonical
from sidecar.definitions.findings import Findings
from sidecar.definitions.language import language_schema
from sidecar.definitions.pins import CatalogueRef, catalogues_of, pin_actions
from sidecar.errors import DefinitionError
from sidecar.saga.definition import JsonText, StatusCheck, StepDefinition
from sidecar.saga.policy import COMPENSATION_DEFAULT, FORWARD_DEFAULT

LANGUAGE = Draft202012Validator(language_schema(), offline=True)
CHARGE = {
    "execute": {"path": "/charges", "retry": {"max_attempts": 3}},
    "compensate": {"path": "/refunds", "timeout": "7s", "retry": {"max_attempts": 9}},
    "status": {"path": "/status", "budget": "1m"},
    "timeout": "10s",
    "callback_timeout": "2h",
}
OFFERED = {
    "charge": CHARGE,
    "look_up": {"execute": "/look", "compensate": "none"},
    "send": {"execute": "/send"},
    "ask": {"execute": "/ask", "compensate": "/unask", "status": "/asked"},
}


def catalogue(raw: dict[str, Any] = OFFERED, version: int = 4) -> Catalogue:
    findings = Findings()
    found = read_actions(raw, findings)
    assert findings.problems() == []
    return Catalogue(found.actions, version)


def asking(action: str = "charge", **keys: Any) -> dict[str, Any]:
    return {"name": "a", "service": "payments", "action": action, **keys}


def document(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    text = json.dumps({"name": "d", "steps": steps, **more})
    parsed: dict[str, Any] = json.loads(parse_definition(text, "json").document)
    return parsed


def pinned(step: dict[str, Any], offered: Catalogue | None = None) -> dict[str, Any]:
    whole = document(step)
    catalogues = {("payments", None): offered or catalogue()}
    assert pin_actions(whole, catalogues) == []
    assert LANGUAGE.is_valid(whole)  # what is kept, editors accept
    return whole


def compiled(whole: dict[str, Any]) -> StepDefinition:
    (step,) = compile_stored(canonical(whole), "default", "d", 1).steps
    return step


def refused(*steps: dict[str, Any], **more: Any) -> dict[str, str]:
    with pytest.raises(DefinitionError) as caught:
        document(*steps, **more)
    return dict(caught.value.problems)


# -- the catalogue ------------------------------------------------------------------------------


def test_the_same_actions_have_the_same_canonical_form() -> None:
    first = catalogue({"a": {"execute": "/a", "timeout": "90s"}, "b": {"execute": "/b"}})
    second = catalogue(
        {"b": {"execute": {"path": "/b"}}, "a": {"execute": "/a", "timeout": "1.5m"}}
    )
    assert first.document() == second.document()
    third = catalogue({"b": {"execute": "/b"}, "a": {"execute": "/a", "timeout": "91s"}})
    assert third.document() != first.document()


def test_a_catalogue_is_read_as_it_was_published() -> None:
    raw = {**OFFERED, "x": {"execute": "/x", "on_status": {409: "refused"}, "method": "PUT"}}
    offered = catalogue(raw)
    again = stored_catalogue(offered.document(), 4)
    assert again == offered
    assert again.document() == offered.document()


def test_a_catalogue_of_a_later_version_of_this_program_is_refused() -> None:
    with pytest.raises(DefinitionError, match="there is no key 'speed'"):
        stored_catalogue(JsonText('{"a":{"execute":"/a","speed":3}}'), 1)


# -- what is pinned -----------------------------------------------------------------------------


def test_the_machine_runs_by_what_the_catalogue_says() -> None:
    step = compiled(pinned(asking()))
    assert (step.path, step.action, step.catalogue) == ("", "charge", 4)
    assert (step.timeout, step.callback_timeout) == (timedelta(seconds=10), timedelta(hours=2))
    assert (step.retry.max_attempts, step.retry.jitter) == (3, FORWARD_DEFAULT.jitter)
    assert step.status_check == StatusCheck("", timedelta(minutes=1))
    assert step.compensation is not None
    assert (step.compensation.path, step.compensation.timeout) == ("", timedelta(seconds=7))
    assert step.compensation.retry.max_attempts == 9
    assert step.compensation.retry.max_interval == COMPENSATION_DEFAULT.max_interval
    assert not step.no_effect


def test_no_path_method_or_status_is_pinned() -> None:
    raw = {"charge": {**CHARGE, "method": "PUT", "on_status": {409: "refused"}}}
    text = json.dumps(pinned(asking(), catalogue(raw)))
    assert [
        word for word in ("/charges", "/refunds", "/status", "PUT", "409") if word in text
    ] == []


@pytest.mark.parametrize("compensate", [{}, {"compensate": "from_catalogue"}])
@pytest.mark.parametrize(
    ("action", "can_be_undone", "no_effect"),
    [
        ("charge", True, False),
        ("ask", True, False),
        ("look_up", False, True),
        ("send", False, False),
    ],
)
def test_the_catalogue_says_whether_there_is_anything_to_undo(
    action: str, can_be_undone: bool, no_effect: bool, compensate: dict[str, Any]
) -> None:
    if action == "send":  # what is not there cannot be asked for
        compensate = {}
    step = compiled(pinned(asking(action, **compensate)))
    assert (step.compensation is not None, step.no_effect) == (can_be_undone, no_effect)


def test_what_the_definition_says_itself_wins() -> None:
    step = compiled(
        pinned(
            asking(
                timeout="1s",
                callback_timeout="3m",
                retry={"jitter": 0},
                status={"path": "/own"},
                compensate={"path": "/undo", "method": "DELETE"},
                on_status={409: "refused"},
            )
        )
    )
    assert (step.timeout, step.callback_timeout) == (timedelta(seconds=1), timedelta(minutes=3))
    assert (step.retry.jitter, step.retry.max_attempts) == (0, 3)
    assert step.retry.max_interval == FORWARD_DEFAULT.max_interval
    assert step.status_check == StatusCheck("/own")
    assert step.compensation is not None
    assert (step.compensation.path, step.compensation.method) == ("/undo", "DELETE")
    assert step.compensation.timeout == timedelta(seconds=30)
    assert step.on_status == ((409, "refused"),)
    assert compiled(pinned(asking(compensate="none"))).no_effect


def test_policies_in_disorder_with_those_of_the_catalogue_are_told() -> None:
    slow = {"initial_interval": "2m", "max_interval": "10m"}
    offered = catalogue({"charge": {**CHARGE, "execute": "/charges", "retry": slow}})
    assert compiled(pinned(asking(retry={"max_attempts": 2}), offered)).retry.max_attempts == 2
    whole = pinned(asking(retry={"max_interval": "30s"}), offered)
    with pytest.raises(DefinitionError) as caught:
        compiled(whole)
    assert [field for field, _ in caught.value.problems] == ["steps[0].retry"]


def test_a_document_pinned_before_is_the_same_again() -> None:
    before = pinned(asking())
    assert catalogues_of(before) == {("payments", 4)}
    again = json.loads(canonical(before))
    assert pin_actions(again, {("payments", 4): catalogue()}) == []
    assert again == before
    changed = catalogue({"charge": {**CHARGE, "timeout": "11s"}}, version=5)
    assert pinned(asking(), changed) != before


@pytest.mark.parametrize(
    "found",
    [None, catalogue({"send": {"execute": "/send"}}), catalogue({"charge": {"execute": "/c"}})],
    ids=["no such version", "no such action", "another one"],
)
def test_a_pin_that_no_catalogue_says_is_refused(found: Catalogue | None) -> None:
    whole = pinned(asking())
    for allow_missing in (False, True):
        ((path, text),) = pin_actions(whole, {("payments", 4): found}, allow_missing=allow_missing)
        assert path == "steps[0].pinned"
        assert "is not what version 4 of the catalogue of payments says of charge" in text


# -- what is not known --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (None, "no sidecar of payments has published a catalogue"),
        (catalogue(), "its catalogue (version 4) has: ask, charge, look_up, send"),
        (catalogue({}), "has: nothing"),
        (catalogue({f"a{n}": {"execute": "/a"} for n in range(31)}), "a8 and 1 more"),
    ],
)
def test_an_action_that_is_not_known_is_refused(found: Catalogue | None, expected: str) -> None:
    offered: dict[CatalogueRef, Catalogue | None] = {("payments", None): found}
    whole = document({**asking(), "name": "b"}, asking("chrage"))
    problems = dict(pin_actions(whole, offered))
    assert expected in problems["steps[1].action"]
    assert pin_actions(whole, offered, allow_missing=True) == []
    assert "pinned" not in whole["steps"][1]


@pytest.mark.parametrize(
    ("keys", "can_be_undone", "no_effect"),
    [
        ({}, False, False),
        ({"compensate": "from_catalogue"}, True, False),
        ({"compensate": "none"}, False, True),
        ({"compensate": "/undo"}, True, False),
    ],
)
def test_of_an_action_that_is_not_known_the_worst_is_supposed(
    keys: dict[str, Any], can_be_undone: bool, no_effect: bool
) -> None:
    step = compiled(document(asking(**keys)))
    assert step.catalogue is None
    assert (step.compensation is not None, step.no_effect) == (can_be_undone, no_effect)
    assert (step.timeout, step.retry) == (timedelta(seconds=30), FORWARD_DEFAULT)


def test_of_a_service_that_was_not_asked_nothing_is_changed() -> None:
    whole = document(asking())
    before = json.loads(json.dumps(whole))
    assert pin_actions(whole, {("shipping", None): None}) == []
    assert whole == before


# -- central ------------------------------------------------------------------------------------


def test_a_central_definition_says_that_the_catalogue_undoes_it() -> None:
    central = {"compensation": {"mode": "central"}}
    told = refused(asking(), **central)
    assert "a path, `from_catalogue`, or `none`" in told["steps[0].compensate"]
    offered = {("payments", None): catalogue()}
    for action, problems in (("charge", 0), ("look_up", 0), ("send", 1)):
        whole = document(asking(action, compensate="from_catalogue"), **central)
        found = pin_actions(whole, offered)
        assert len(found) == problems
        if found:
            assert found[0][0] == "steps[0].compensate"
            assert "names nothing that undoes send" in found[0][1]
    assert pin_actions(document(asking("send", compensate="none"), **central), offered) == []


def test_what_is_to_come_from_the_catalogue_must_be_there() -> None:
    """Whether or not the definition must say of every step what undoes it."""
    whole = document(asking("send", compensate="from_catalogue"))
    ((where, text),) = pin_actions(whole, {("payments", None): catalogue()})
    assert where == "steps[0].compensate"
    assert "names nothing that undoes send" in text
    assert "leave `compensate` out" in text
    assert compiled(pinned(asking("send"))).compensation is None


# -- what belongs together ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "path", "expected"),
    [
        ({**asking(), "execute": "/a"}, "steps[0].action", "cannot be together with `execute`"),
        ({"name": "a", "action": "charge"}, "steps[0].service", "is missing"),
        ({"name": "a", "service": "s"}, "steps[0].execute", "is missing"),
        (
            {"name": "a", "service": "s", "execute": "/a", "compensate": "from_catalogue"},
            "steps[0].compensate",
            "belongs to `action`",
        ),
        (
            {"name": "a", "service": "s", "execute": "/a", "pinned": {"catalogue": 1}},
            "steps[0].pinned",
            "belongs to `action`",
        ),
        (
            {"name": "a", "service": "s", "execute": "from_catalogue"},
            "steps[0].execute",
            "write `action: NAME`",
        ),
        (asking("Charge"), "steps[0].action", "must begin with a letter a-z"),
        (asking(pinned={}), "steps[0].pinned.catalogue", "is missing"),
        (asking(pinned={"catalogue": 10**12}), "steps[0].pinned.catalogue", "2147483647"),
        (
            asking(compensate={"timeout": "1s"}),
            "steps[0].compensate.path",
            "leave `compensate` out",
        ),
        (asking(status={"budget": "1s"}), "steps[0].status.path", "leave `status` out"),
        (asking(pinned={"catalogue": 1, "tries": 2}), "steps[0].pinned.tries", "there is no key"),
        (
            asking(pinned={"catalogue": 1, "compensate": {"path": "/a"}}),
            "steps[0].pinned.compensate.path",
            "there is no key 'path'; there are: retry, timeout",
        ),
        (
            {"name": "a", "wait": {"duration": "1s"}, "action": "b"},
            "steps[0].action",
            "a step that",
        ),
        ({"name": "a", "workflow": "b", "action": "b"}, "steps[0].action", "a step that runs"),
    ],
)
def test_a_slip_is_told(step: dict[str, Any], path: str, expected: str) -> None:
    assert expected in refused(step)[path]


def test_what_belongs_together_is_in_the_published_schema() -> None:
    def fits(step: dict[str, Any]) -> bool:
        return LANGUAGE.is_valid({"name": "d", "steps": [step]})

    assert fits(asking(compensate="from_catalogue", pinned={"catalogue": 1, "compensate": "none"}))
    assert not fits({**asking(), "execute": "/a"})
    assert not fits({"name": "a", "action": "charge"})
    assert not fits({"name": "a", "service": "s", "execute": "/a", "pinned": {"catalogue": 1}})
