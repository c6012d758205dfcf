"""The operations on definitions, as a client sees them."""

from __future__ import annotations

import pytest

from tests.unit.api.conftest import Checked
from tests.unit.engine.faces import DOCUMENT

YAML = {"Content-Type": "application/yaml"}
OTHER = DOCUMENT.replace(b"name: order", b"name: billing")


async def test_a_new_document_is_201_and_the_same_again_200(rest: Checked) -> None:
    first, registered = await rest.ask("POST", "/v1/definitions", data=OTHER, headers=YAML)
    second, again = await rest.ask("POST", "/v1/definitions", data=OTHER, headers=YAML)
    assert (first, second) == (201, 200)
    assert (registered["name"], registered["version"]) == ("billing", 1)
    assert again == registered


async def test_json_is_as_good_as_yaml(rest: Checked) -> None:
    _, view = await rest.get("/v1/definitions/order")
    status, again = await rest.post("/v1/definitions", view["document"])
    assert (status, again["version"]) == (200, 1)


async def test_a_document_that_is_wrong_is_refused_with_every_problem(rest: Checked) -> None:
    for path in ("/v1/definitions", "/v1/definitions/check"):
        status, problem = await rest.ask("POST", path, data=b"name: order\nstep: 1", headers=YAML)
        assert (status, problem["code"]) == (422, "bad_definition")
        assert problem["problems"]


async def test_checking_keeps_nothing(rest: Checked) -> None:
    status, checked = await rest.ask("POST", "/v1/definitions/check", data=OTHER, headers=YAML)
    assert (status, checked["name"], checked["steps"]) == (200, "billing", ["charge", "ship"])
    assert (checked["verdict"], checked["findings"]) == ("proved", [])
    assert (await rest.get("/v1/definitions/billing"))[0] == 404


async def test_what_the_checker_finds_is_told_and_refuses_nothing(rest: Checked) -> None:
    weak = b"""
name: weak
steps:
  - { name: mail, service: mail, execute: /mails }
  - { name: charge, service: payments, execute: /charges, compensate: /refunds }
"""
    status, registered = await rest.ask("POST", "/v1/definitions", data=weak, headers=YAML)
    assert (status, registered["verdict"]) == (201, "refuted")
    first = registered["findings"][0]
    assert (first["code"], first["severity"], first["step"]) == ("GC101", "error", "mail")
    assert first["way"]
    _, checked = await rest.ask("POST", "/v1/definitions/check", data=weak, headers=YAML)
    assert checked["findings"] == registered["findings"]


async def test_children_of_children_are_looked_at(rest: Checked) -> None:
    found = []
    for document in (
        b"name: last\nsteps: [{name: pay, service: s, execute: /pay, pivot: true}]",
        b"name: middle\nsteps: [{name: run, workflow: last}]",
        (
            b"name: root\nsteps:\n- {name: run, workflow: middle}\n"
            b"- {name: ship, service: s, execute: /ship, compensate: /undo}"
        ),
    ):
        _, told = await rest.ask("POST", "/v1/definitions", data=document, headers=YAML)
        found.append({one["code"] for one in told["findings"]})
    assert found == [set(), {"GC104"}, {"GC101"}]


async def test_a_document_of_another_type_is_refused(rest: Checked) -> None:
    status, problem = await rest.ask(
        "POST", "/v1/definitions", data=OTHER, headers={"Content-Type": "text/plain"}
    )
    assert (status, problem["field"]) == (415, "Content-Type")


async def test_definitions_are_listed_and_read_by_version(rest: Checked) -> None:
    await rest.ask("POST", "/v1/definitions", data=OTHER, headers=YAML)
    _, first = await rest.get("/v1/definitions?limit=1")
    _, second = await rest.get(f"/v1/definitions?limit=1&cursor={first['next_cursor']}")
    assert [page["definitions"][0]["name"] for page in (first, second)] == ["billing", "order"]
    status, view = await rest.get("/v1/definitions/order/versions/1")
    assert (status, view["document"]["name"]) == (200, "order")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/definitions/none", 404),
        ("/v1/definitions/order/versions/2", 404),
        ("/v1/definitions/order/versions/0", 422),
        ("/v1/definitions/order/versions/x", 422),
        ("/v1/definitions/order/versions/99999999999", 422),
    ],
)
async def test_what_is_not_there_is_not_found(rest: Checked, path: str, status: int) -> None:
    assert (await rest.get(path))[0] == status
