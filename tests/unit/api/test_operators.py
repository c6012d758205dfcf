"""The verbs, as a client sees them: what they demand, what they answer, what history keeps."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.saga.states import Action, StepStatus
from sidecar.saga.workflow import StepKey, Workflow
from tests.unit.api.conftest import Checked
from tests.unit.engine.faces import LANGUAGE

CHARGE, RESERVE = StepKey("charge"), StepKey("reserve")
WHY = {"reason": "the customer called"}
ANNA = {"GoConductor-Actor": "anna"}


async def begun(rest: Checked) -> tuple[Workflow, str]:
    """A workflow, and where it is."""
    workflow = await rest.faces.start()
    return workflow, f"/v1/workflows/{workflow.id}"


async def fanned_out(rest: Checked, lines: int = 3) -> tuple[Workflow, str]:
    """A workflow whose first step has items, and where it is."""
    await rest.faces.register(LANGUAGE)
    workflow = await rest.faces.start("language", input={"lines": list(range(lines))})
    return workflow, f"/v1/workflows/{workflow.id}"


async def told(rest: Checked, path: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = (await rest.get(f"{path}/events"))[1]["events"]
    return events


@pytest.mark.parametrize(
    ("verb", "shown"),
    [
        ("cancel", {"status": "rolled_back", "reason": "cancelled"}),
        ("pause", {"status": "in_progress", "paused": True}),
        ("terminate", {"status": "terminated", "paused": False}),
    ],
)
async def test_a_verb_answers_with_the_view_and_again_with_the_same(
    rest: Checked, verb: str, shown: dict[str, Any]
) -> None:
    _, path = await begun(rest)
    first = await rest.post(f"{path}/{verb}", WHY, headers=ANNA)
    again = await rest.post(f"{path}/{verb}", WHY, headers=ANNA)
    assert first == again
    status, view = first
    assert status == 202
    assert {name: view[name] for name in shown} == shown
    events = [one for one in await told(rest, path) if one["details"]]
    assert [(one["actor"], one["details"]) for one in events] == [("anna", WHY)]


async def test_a_paused_workflow_is_resumed(rest: Checked) -> None:
    _, path = await begun(rest)
    assert (await rest.post(f"{path}/resume"))[0] == 202  # nothing to do
    _, paused = await rest.post(f"{path}/pause")
    assert paused["waiting_on"] == ["paused: an operator must resume it"]
    status, view = await rest.post(f"{path}/resume", {})
    assert (status, view["paused"]) == (202, False)
    operator = [one for one in await told(rest, path) if one["kind"] == "operator"]
    assert [(one["cause"], one["actor"]) for one in operator] == [
        ("paused", "api"),
        ("resumed", "api"),
    ]


async def test_a_step_in_trouble_is_retried_skipped_or_resolved(rest: Checked) -> None:
    body = {**WHY, "output": {"id": 1}}
    evidence = {"evidence": "ledger, line 7"}
    for verb, more, status in (
        ("retry", WHY, "retrying"),
        ("skip", body, "skipped"),
        ("resolve", {**body, **evidence, "resolution": "succeeded"}, "succeeded"),
        ("resolve", {**WHY, **evidence, "resolution": "no_effect"}, "failed"),
    ):
        workflow, path = await begun(rest)
        attempt = rest.faces.store.claim(workflow.id, CHARGE)
        await rest.faces.tasks.fail(rest.faces.tokens.token(attempt), "broken", outcome="unknown")
        for _ in range(2):
            answer, view = await rest.post(f"{path}/steps/charge/{verb}", more, headers=ANNA)
            assert (answer, view["steps"][0]["status"]) == (202, status)
        said = next(one["details"] for one in await told(rest, path) if one["actor"] == "anna")
        assert said["reason"] == WHY["reason"]
        assert said.get("evidence") == more.get("evidence")
        if "output" in more:
            assert view["steps"][0]["output"] == {"id": 1}


async def test_an_item_is_named_by_its_index_encoded_or_not(rest: Checked) -> None:
    workflow, path = await fanned_out(rest)
    for index, written in ((0, "reserve[0]"), (1, "reserve%5B1%5D")):
        attempt = rest.faces.store.claim(workflow.id, StepKey("reserve", index))
        token = rest.faces.tokens.token(attempt)
        await rest.faces.tasks.fail(token, "broken", outcome="unknown")
        status, _ = await rest.post(f"{path}/steps/{written}/skip", WHY)
        assert status == 202
    _, page = await rest.get(f"{path}/steps/reserve/items")
    assert [one["status"] for one in page["items"]] == ["skipped", "skipped", "queued"]


@pytest.mark.parametrize(
    "step",
    ["none", "none[0]", "charge[0]", "reserve[3]", "reserve[-1]", "reserve[", "reserve[x]", "%00"],
)
async def test_a_step_or_item_that_is_not_there_is_not_found(rest: Checked, step: str) -> None:
    _, path = await fanned_out(rest)
    for verb in ("retry", "skip"):
        status, problem = await rest.post(f"{path}/steps/{step}/{verb}", WHY)
        assert (status, problem["code"], problem["field"]) == (404, "not_found", "step")


async def test_a_signal_lets_a_step_go_on_and_one_that_comes_early_is_kept(rest: Checked) -> None:
    workflow, path = await fanned_out(rest, lines=0)
    early, early_path = await fanned_out(rest, lines=1)
    body = {"payload": {"by": "anna"}, "reason": "looked at it"}
    for where in (path, early_path):
        status, _ = await rest.post(f"{where}/signals/approved", body, headers=ANNA)
        assert status == 202
    _, view = await rest.get(path)
    approve = view["steps"][1]
    assert (approve["status"], approve["service"]) == ("succeeded", None)
    assert approve["output"]["payload"] == {"by": "anna"}
    assert approve["output"]["actor"] == "anna"
    kept = [one for one in await told(rest, early_path) if one["kind"] == "signal"]
    assert [one["cause"] for one in kept] == ["kept"]
    assert kept[0]["details"]["reason"] == "looked at it"
    assert kept[0]["details"]["name"] == "approved"
    attempt = rest.faces.store.claim(early.id, StepKey("reserve", 0))
    await rest.faces.tasks.complete(rest.faces.tokens.token(attempt))
    _, view = await rest.get(early_path)
    assert [one["status"] for one in view["steps"]] == ["succeeded", "succeeded", "queued"]
    assert workflow.id != early.id


async def test_a_signal_without_a_body_carries_nothing(rest: Checked) -> None:
    _, path = await fanned_out(rest, lines=0)
    assert (await rest.post(f"{path}/signals/approved"))[0] == 202
    _, view = await rest.get(path)
    assert view["steps"][1]["output"]["payload"] is None


async def test_a_signal_that_nothing_waits_for_is_a_conflict(rest: Checked) -> None:
    _, path = await begun(rest)
    status, problem = await rest.post(f"{path}/signals/approved")
    assert (status, problem["code"]) == (409, "conflict")


@pytest.mark.parametrize("verb", ["pause", "resume", "retry", "steps/charge/skip", "terminate"])
async def test_what_is_not_legal_now_is_a_conflict(rest: Checked, verb: str) -> None:
    _, path = await begun(rest)
    await rest.post(f"{path}/cancel")
    status, problem = await rest.post(f"{path}/{verb}", WHY)
    assert (status, problem["code"]) == (409, "conflict")
    assert "rolled_back" in problem["detail"] or "cancelled" in problem["detail"]


async def test_nothing_is_taken_from_a_sidecar_that_is_calling(rest: Checked) -> None:
    workflow, path = await begun(rest)
    rest.faces.store.claim(workflow.id, CHARGE)
    status, problem = await rest.post(f"{path}/steps/charge/skip", WHY)
    assert (status, problem["code"]) == (409, "conflict")
    assert "being called" in problem["detail"]


@pytest.mark.parametrize(
    ("verb", "body", "field"),
    [
        ("terminate", None, "reason"),
        ("terminate", {"reason": " "}, "reason"),
        ("terminate", {"reason": "x" * 1001}, "reason"),
        ("pause", {"reasons": "x"}, "reasons"),
        ("pause", {"reason": 1}, "reason"),
        ("pause", {"reason": "\0"}, "reason"),
        ("pause", [], None),
        ("steps/charge/skip", {}, "reason"),
        ("steps/charge/skip", {**WHY, "output": "\0"}, "output"),
        ("steps/charge/resolve", WHY, "resolution"),
        ("steps/charge/resolve", {**WHY, "resolution": "succeeded"}, "evidence"),
        ("steps/charge/resolve", {**WHY, "resolution": "x", "evidence": "y"}, "resolution"),
        (
            "steps/charge/resolve",
            {**WHY, "resolution": "no_effect", "evidence": "y", "output": 1},
            "output",
        ),
        ("signals/approved", {"payloads": 1}, "payloads"),
    ],
)
async def test_a_body_that_is_wrong_is_refused_by_its_field(
    rest: Checked, verb: str, body: Any, field: str | None
) -> None:
    workflow, path = await begun(rest)
    status, problem = await rest.post(f"{path}/{verb}", body)
    assert (status, problem["code"]) == (422, "invalid_request")
    assert problem.get("field") == field
    assert rest.faces.store.workflows[workflow.id].revision == workflow.revision


async def test_a_body_is_json_if_there_is_one(rest: Checked) -> None:
    _, path = await begun(rest)
    status, problem = await rest.ask("POST", f"{path}/pause", data="reason=x")
    assert (status, problem["code"]) == (415, "unsupported_media_type")
    json = {"Content-Type": "application/json"}
    status, problem = await rest.ask("POST", f"{path}/pause", data=b"{", headers=json)
    assert (status, problem["code"]) == (400, "malformed_json")
    assert (await rest.ask("POST", f"{path}/pause", data=b"", headers=json))[0] == 202


@pytest.mark.parametrize("actor", ["", " ", "a\x85b", "x" * 101, "leader", "service", "sidecar"])
async def test_an_actor_has_a_name_of_its_own(rest: Checked, actor: str) -> None:
    _, path = await begun(rest)
    headers = {"GoConductor-Actor": actor}
    status, problem = await rest.post(f"{path}/pause", headers=headers)
    assert (status, problem["field"]) == (422, "GoConductor-Actor")
    status, problem = await rest.post("/v1/workflows", {"definition": "order"}, headers=headers)
    assert (status, problem["field"]) == (422, "GoConductor-Actor")


async def test_whoever_starts_a_workflow_stands_in_its_history(rest: Checked) -> None:
    _, started = await rest.post("/v1/workflows", {"definition": "order"}, headers=ANNA)
    events = await told(rest, f"/v1/workflows/{started['id']}")
    assert {one["actor"] for one in events} == {"anna"}


async def test_a_fan_out_shows_its_numbers_and_its_items_by_page(rest: Checked) -> None:
    workflow, path = await fanned_out(rest)
    _, view = await rest.get(path)
    assert view["steps"][0]["items"] == {
        "total": 3,
        "pending": 1,
        "open": 2,
        "failed": 0,
        "undoing": 0,
        "not_undone": 0,
    }
    assert view["steps"][0]["index"] is None
    assert view["steps"][1]["items"] is None
    assert any("2 of 3 items" in line for line in view["waiting_on"])
    _, first = await rest.get(f"{path}/steps/reserve/items?limit=2")
    _, second = await rest.get(f"{path}/steps/reserve/items?cursor={first['next_cursor']}")
    assert second["next_cursor"] is None
    items = first["items"] + second["items"]
    assert [(one["index"], one["status"], one["input"]) for one in items] == [
        (0, "queued", 0),
        (1, "queued", 1),
        (2, "pending", 2),
    ]
    assert {one["service"] for one in items} == {"inventory"}
    assert workflow.steps[StepKey("reserve", 0)].status is StepStatus.QUEUED


async def test_a_fan_out_that_has_not_begun_has_no_items_yet(rest: Checked) -> None:
    later = LANGUAGE.replace(b"name: reserve\n", b"name: reserve\n    after: [approve]\n")
    await rest.faces.register(later.replace(b"name: approve\n", b"name: approve\n    after: []\n"))
    workflow = await rest.faces.start("language", input={"lines": [1]})
    status, page = await rest.get(f"/v1/workflows/{workflow.id}/steps/reserve/items")
    assert (status, page) == (200, {"items": [], "next_cursor": None})


@pytest.mark.parametrize("step", ["approve", "none", "reserve[0]"])
async def test_only_a_fan_out_has_items(rest: Checked, step: str) -> None:
    _, path = await fanned_out(rest)
    status, problem = await rest.get(f"{path}/steps/{step}/items")
    assert (status, problem["field"]) == (404, "step")


async def test_a_page_of_items_refuses_what_it_does_not_understand(rest: Checked) -> None:
    _, path = await fanned_out(rest)
    for query, field in (("limit=0", "limit"), ("cursor=x", "cursor"), ("after=1", "after")):
        status, problem = await rest.get(f"{path}/steps/reserve/items?{query}")
        assert (status, problem["field"]) == (422, field)


async def test_a_compensation_that_failed_is_taken_for_undone(rest: Checked) -> None:
    workflow, path = await begun(rest)
    store, tasks, tokens = rest.faces.store, rest.faces.tasks, rest.faces.tokens
    await tasks.complete(tokens.token(store.claim(workflow.id, CHARGE)))
    await tasks.fail(tokens.token(store.claim(workflow.id, StepKey("ship"))), "no")
    undo = store.claim(workflow.id, CHARGE, Action.COMPENSATE)
    await tasks.fail(tokens.token(undo), "too late to refund")
    _, view = await rest.get(path)
    assert (view["status"], view["steps"][0]["status"]) == ("error", "compensation_failed")
    body = {**WHY, "resolution": "compensated", "evidence": "bank statement"}
    status, view = await rest.post(f"{path}/steps/charge/resolve", body)
    assert (status, view["status"]) == (202, "rolled_back")
    assert (status, view) == await rest.post(f"{path}/steps/charge/resolve", body)
