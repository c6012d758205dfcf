"""The callbacks, as a service sees them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from sidecar.engine.callbacks import Attempt, Tokens
from sidecar.saga.states import Action, StepStatus
from sidecar.saga.workflow import StepKey, WorkflowId
from tests.unit.api.conftest import Checked

CHARGE = StepKey("charge")


async def taken_on(rest: Checked) -> tuple[WorkflowId, str]:
    """A workflow whose first step is being called, and the URL that its service was given."""
    workflow = await rest.faces.start()
    attempt = rest.faces.store.claim(workflow.id, CHARGE)
    return workflow.id, f"/v1/tasks/{rest.faces.tokens.token(attempt)}"


def step(rest: Checked, workflow: WorkflowId) -> Any:
    return rest.faces.store.workflows[workflow].steps[CHARGE]


async def test_an_attempt_is_completed_with_its_output_and_again(rest: Checked) -> None:
    workflow, url = await taken_on(rest)
    for _ in range(2):
        assert await rest.post(f"{url}/complete", {"output": {"id": 7}}) == (200, {})
    assert step(rest, workflow).status is StepStatus.SUCCEEDED
    assert step(rest, workflow).output == '{"id":7}'
    history = rest.faces.store.history[workflow]
    assert [one.actor for one in history if one.cause == "done"] == ["service"]


async def test_no_body_is_no_output(rest: Checked) -> None:
    workflow, url = await taken_on(rest)
    assert await rest.post(f"{url}/complete") == (200, {})
    assert (step(rest, workflow).status, step(rest, workflow).output) == ("succeeded", None)


@pytest.mark.parametrize(("outcome", "status"), [("refused", "failed"), ("unknown", "retrying")])
async def test_an_attempt_fails_and_again(rest: Checked, outcome: str, status: str) -> None:
    workflow, url = await taken_on(rest)
    body = {"message": "no funds", "code": "no_funds", "outcome": outcome}
    for _ in range(2):
        assert await rest.post(f"{url}/fail", body) == (200, {})
    found = step(rest, workflow)
    assert found.status == status
    assert found.may_have_effect is (outcome == "unknown")
    assert '"no_funds"' in found.error
    assert "no funds" in found.error


async def test_the_first_end_counts(rest: Checked) -> None:
    workflow, url = await taken_on(rest)
    await rest.post(f"{url}/complete")
    status, problem = await rest.post(f"{url}/fail", {"message": "but no"})
    assert (status, problem["code"]) == (409, "conflict")
    assert step(rest, workflow).status is StepStatus.SUCCEEDED
    assert rest.faces.store.history[workflow][-1].kind == "late_answer"


async def test_a_heartbeat_is_told_until_when_it_holds(rest: Checked) -> None:
    workflow, url = await taken_on(rest)
    status, body = await rest.post(f"{url}/heartbeat")
    assert status == 200
    assert datetime.fromisoformat(body["deadline"]) == step(rest, workflow).lease_until


async def test_the_fence_is_open_while_the_attempt_is_current(rest: Checked) -> None:
    _, url = await taken_on(rest)
    assert await rest.get(f"{url}/fence") == (200, {})
    await rest.post(f"{url}/complete")
    status, problem = await rest.get(f"{url}/fence")
    assert (status, problem["code"]) == (409, "conflict")


async def test_what_comes_too_late_is_a_conflict_and_stands_in_the_history(rest: Checked) -> None:
    workflow, url = await taken_on(rest)
    store = rest.faces.store
    newer = store.claim(workflow, CHARGE)
    assert newer.attempt == 2
    for verb, body in (("complete", None), ("fail", {"message": "x"}), ("heartbeat", None)):
        status, problem = await rest.post(f"{url}/{verb}", body)
        assert (status, problem["code"]) == (409, "conflict")
    assert (await rest.get(f"{url}/fence"))[0] == 409
    late = [one for one in store.history[workflow] if one.kind == "late_answer"]
    assert [(one.attempt, one.cause) for one in late] == [(1, "done"), (1, "refused")]


async def test_a_token_of_nobody_is_not_found(rest: Checked) -> None:
    workflow, url = await taken_on(rest)
    forged = Tokens(b"another key", "").token(Attempt(workflow, CHARGE, Action.EXECUTE, 1))
    for token in ("x", "%00", "a%2Fb", forged, f"{url.rpartition('/')[2][:-1]}"):
        for method, verb in (("POST", "complete"), ("POST", "heartbeat"), ("GET", "fence")):
            status, problem = await rest.ask(method, f"/v1/tasks/{token}/{verb}")
            assert (status, problem["code"]) == (404, "not_found")


async def test_a_token_of_a_workflow_that_is_gone_is_not_found(rest: Checked) -> None:
    workflow, url = await taken_on(rest)
    del rest.faces.store.workflows[workflow]
    status, problem = await rest.post(f"{url}/complete")
    assert (status, problem["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("verb", "body", "field"),
    [
        ("complete", {"outputs": 1}, "outputs"),
        ("complete", {"output": "\0"}, "output"),
        ("complete", [], None),
        ("fail", None, "message"),
        ("fail", {"message": ""}, "message"),
        ("fail", {"message": "x" * 301}, "message"),
        ("fail", {"message": "\0"}, "message"),
        ("fail", {"message": "x", "code": ""}, "code"),
        ("fail", {"message": "x", "code": "x" * 65}, "code"),
        ("fail", {"message": "x", "outcome": "done"}, "outcome"),
        ("heartbeat", {"progress": 1}, "progress"),
    ],
)
async def test_a_body_that_is_wrong_is_refused_by_its_field(
    rest: Checked, verb: str, body: Any, field: str | None
) -> None:
    workflow, url = await taken_on(rest)
    status, problem = await rest.post(f"{url}/{verb}", body)
    assert (status, problem["code"]) == (422, "invalid_request")
    assert problem.get("field") == field
    assert step(rest, workflow).status is StepStatus.RUNNING


async def test_a_callback_for_another_namespace_is_refused(rest: Checked) -> None:
    _, url = await taken_on(rest)
    headers = {"GoConductor-Namespace": "other"}
    status, problem = await rest.post(f"{url}/complete", headers=headers)
    assert (status, problem["field"]) == (422, "GoConductor-Namespace")


async def test_an_attempt_that_ended_otherwise_is_not_completed_any_more(rest: Checked) -> None:
    """Its call had timed out, and that was settled as unknown."""
    workflow, url = await taken_on(rest)
    await rest.post(f"{url}/fail", {"message": "timed out", "outcome": "unknown"})
    status, _ = await rest.post(f"{url}/complete", {"output": 1})
    assert status == 409
    found = step(rest, workflow)
    assert (found.status, found.output) == (StepStatus.RETRYING, None)
