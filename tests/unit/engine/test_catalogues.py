"""A whole sidecar with a catalogue: published, pinned, looked up at each call, compared."""

from __future__ import annotations

import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from sidecar.definitions.documents import MAX_BYTES, digest
from sidecar.engine.duties import Duties, DutyTimes
from sidecar.errors import Conflict, DefinitionError
from sidecar.ports import telemetry as metrics
from sidecar.ports.records import SidecarBeat
from sidecar.saga.definition import JsonText
from sidecar.saga.states import Action, WorkflowStatus
from sidecar.saga.workflow import StepKey
from tests.unit.engine.deployed import (
    DOUBTS,
    MOVED,
    OFFERED,
    ORDER,
    REFUSES,
    Deployed,
    deployed,
)
from tests.unit.engine.faces import until
from tests.unit.engine.parts import ME, turns

__all__ = ["deployed"]

# -- publishing ---------------------------------------------------------------------------------


async def test_a_sidecar_publishes_and_tells_its_version(deployed: Deployed) -> None:
    assert deployed.agent.publishing.version == 1
    await deployed.agent.heartbeat.beat()
    (seen,) = await deployed.store.list_sidecars("default")
    assert seen.beat.catalogue == 1
    for raw, version in ((MOVED, 2), (OFFERED, 1), ({}, 3)):
        await deployed.deploy(raw)
        await deployed.agent.heartbeat.beat()
        (seen,) = await deployed.store.list_sidecars("default")
        assert seen.beat.catalogue == deployed.agent.publishing.version == version
        stored = await deployed.store.get_catalogue("default", "payments")
        assert stored is not None
        assert stored.version == version


async def test_who_never_offered_anything_publishes_nothing() -> None:
    one = Deployed()
    await one.deploy({})
    assert await one.store.get_catalogue("default", "payments") is None
    assert one.agent.publishing.version is None
    await one.agent.stop()


# -- registering --------------------------------------------------------------------------------


async def test_another_catalogue_makes_another_version(deployed: Deployed) -> None:
    assert [await deployed.register(), await deployed.register()] == [1, 1]
    first = await deployed.store.get_definition("default", "order", 1)
    assert first is not None
    await deployed.deploy(MOVED)
    assert [await deployed.register(), await deployed.register()] == [2, 2]
    pinned = json.loads(first.document)["steps"]
    assert [one["pinned"]["catalogue"] for one in pinned] == [1, 1]
    assert await deployed.register(*pinned) == 1  # it says itself what it was found to be
    pinned[0]["pinned"]["retry"]["max_attempts"] = 7
    with pytest.raises(DefinitionError, match="is not what version 1 of the catalogue"):
        await deployed.register(*pinned)


async def test_what_nobody_offers_is_refused_unless_it_may_be_missing(deployed: Deployed) -> None:
    step = {"name": "pay", "service": "payments", "action": "pay"}
    other = {"name": "tell", "service": "mail", "action": "send", "compensate": "from_catalogue"}
    with pytest.raises(DefinitionError) as caught:
        await deployed.register(step, other)
    problems = dict(caught.value.problems)
    assert "has: charge, ship" in problems["steps[0].action"]
    assert "no sidecar of mail has published" in problems["steps[1].action"]
    text = json.dumps({"name": "order", "steps": [step, other]}).encode()
    for check in (deployed.agent.commands.check_definition,):
        with pytest.raises(DefinitionError):
            await check("default", text, "application/json")
        definition, report = await check("default", text, "application/json", allow_missing=True)
        told = [(one.code, one.step) for one in report.findings if one.code == "GC151"]
        assert told == [("GC151", "pay"), ("GC151", "tell")]
        assert definition.by_name["pay"].compensation is None
    assert await deployed.register(step, other, allow_missing=True) == 1
    assert await deployed.register(step, other, allow_missing=True) == 1


async def test_a_catalogue_that_cannot_be_read_is_told(deployed: Deployed) -> None:
    document = JsonText('{"charge":{"execute":{"path":"/a"},"speed":3}}')
    await deployed.store.publish_catalogue("default", "payments", document, digest(document))
    with pytest.raises(Conflict, match="there is no key 'speed'"):
        await deployed.register()
    document = JsonText(json.dumps({"charge": {"execute": "/a" + "x" * MAX_BYTES}}))
    await deployed.store.publish_catalogue("default", "payments", document, digest(document))
    with pytest.raises(Conflict, match="is too large to be read"):
        await deployed.register()


# -- calling ------------------------------------------------------------------------------------


async def test_calls_go_where_the_catalogue_says(deployed: Deployed) -> None:
    deployed.service.script = {("ship", Action.EXECUTE): REFUSES}
    await deployed.register()
    workflow = await deployed.begin()
    await deployed.until_status(workflow, WorkflowStatus.ROLLED_BACK)
    assert deployed.called() == [
        ("pay", "PUT", "/charges"),
        ("ship", "POST", "/shipments"),
        ("pay", "DELETE", "/refunds"),
    ]
    on_status = [one.on_status for one in deployed.service.calls]
    assert on_status == [{409: "refused"}, None, {404: "done"}]


async def test_a_deploy_moves_a_path_under_a_workflow_that_runs(deployed: Deployed) -> None:
    hold = {"name": "hold", "wait": {"signal": "go"}}
    await deployed.register(ORDER[0], hold, ORDER[1])
    workflow = await deployed.begin()
    await until(lambda: deployed.called() == [("pay", "PUT", "/charges")])
    while (await deployed.see(workflow)).steps.get(StepKey("hold")) is None:
        await turns(1)
    await deployed.deploy(MOVED)
    deployed.service.script = {("ship", Action.EXECUTE): REFUSES}
    await deployed.agent.verbs.signal("default", workflow, "go", None, "")
    await deployed.until_status(workflow, WorkflowStatus.ROLLED_BACK)
    assert deployed.called()[-1] == ("pay", "POST", "/moved/refunds")


async def test_what_the_definition_says_of_a_status_wins(deployed: Deployed) -> None:
    own = {**ORDER[0], "on_status": {"418": "done"}, "compensate": "/own/refunds"}
    deployed.service.script = {("ship", Action.EXECUTE): REFUSES}
    await deployed.register(own, ORDER[1])
    await deployed.until_status(await deployed.begin(), WorkflowStatus.ROLLED_BACK)
    pay, _, undo = deployed.service.calls
    assert (pay.method, pay.path, pay.on_status) == (
        "PUT",
        "/charges",
        {409: "refused", 418: "done"},
    )
    assert (undo.method, undo.path, undo.on_status) == ("POST", "/own/refunds", None)


async def test_a_status_that_is_named_leaves_the_convention_as_it_is(deployed: Deployed) -> None:
    await deployed.deploy({"charge": {"execute": "/charges", "compat": "dtm"}})
    await deployed.register({**ORDER[0], "on_status": {"418": "done"}})
    await deployed.until_status(await deployed.begin(), WorkflowStatus.COMPLETED)
    meant = deployed.service.calls[-1].on_status
    assert meant is not None
    assert [meant.get(status) for status in (409, 418, 425, 200)] == [
        "refused",
        "done",
        "busy",
        None,
    ]


async def test_a_status_question_goes_where_the_catalogue_says(deployed: Deployed) -> None:
    deployed.service.script = {("pay", Action.EXECUTE): DOUBTS}
    asked: list[tuple[str, str]] = []
    tell = deployed.service._tell

    async def told(call: Any, act: Any) -> Any:
        asked.append((call.method, call.path))
        return await tell(call, act)

    deployed.service._tell = told  # type: ignore[method-assign]
    await deployed.register()
    await deployed.begin()
    await until(lambda: bool(asked))
    assert asked[0] == ("GET", "/charges/status")


# -- replicas that differ -----------------------------------------------------------------------


async def beats(one: Deployed, *catalogues: int | None, service: str = "payments") -> None:
    for number, version in enumerate(catalogues):
        await one.store.beat(
            SidecarBeat(
                f"{service} {number}", "default", service, "1", "here", True, catalogue=version
            )
        )


async def test_replicas_that_differ_are_told_of(deployed: Deployed) -> None:
    await deployed.agent.stop()
    await deployed.store.open()
    duties = Duties(
        deployed.store,
        deployed.agent.ringer,
        ME,
        DutyTimes(),
        spread=lambda changes: None,
        look=lambda key: None,
        clock=deployed.clock,
        entropy=deployed.entropy,
        telemetry=deployed.telemetry,
    )
    epoch = await deployed.store.mint_epoch("default", "me")

    async def told(*catalogues: int | None) -> tuple[float | None, list[Any]]:
        await beats(deployed, *catalogues)
        deployed.clock.advance(61)
        await beats(deployed, *catalogues)
        with capture_logs() as lines:
            await duties.round(epoch, may_end_leases=False)
        gauge = deployed.telemetry.gauges.get((metrics.CATALOGUES_DIFFER.name, ("payments",)))
        logged = [one["versions"] for one in lines if one["event"] == "catalogues_differ"]
        return gauge, logged

    await beats(deployed, None, None, service="plain")
    assert await told(1, 1) == (0, [])
    assert await told(1, 2) == (1, [[1, 2]])
    assert await told(1, 2) == (1, [])  # once is enough in the log
    assert await told(1, 1) == (0, [])
    assert await told(1, None) == (1, [[0, 1]])
    gauges = deployed.telemetry.gauges
    assert (metrics.CATALOGUES_DIFFER.name, ("plain",)) not in gauges
    duties.stand_down()
    assert gauges[metrics.CATALOGUES_DIFFER.name, ("payments",)] == 0


async def test_services_are_told_with_what_they_offer(deployed: Deployed) -> None:
    await deployed.agent.stop()
    await deployed.store.open()
    await beats(deployed, 1, 2)
    await beats(deployed, None, service="plain")
    await deployed.store.beat(
        SidecarBeat("leaving", "default", "plain", "1", "here", True, draining=True, catalogue=5)
    )
    services = deployed.agent.oversight.services
    page = await services.list("default")
    payments, plain = page.items
    assert (payments.service, payments.catalogue, payments.differs) == ("payments", 1, True)
    assert set(payments.actions) == {"charge", "ship"}
    assert len(payments.sidecars) == 2
    assert (plain.catalogue, plain.actions, plain.differs) == (None, {}, False)
    assert len(plain.sidecars) == 2
    first = await services.list("default", limit=1)
    assert [one.service for one in first.items] == ["payments"]
    rest = await services.list("default", limit=1, cursor=first.next_cursor)
    assert ([one.service for one in rest.items], rest.next_cursor) == (["plain"], None)
    deployed.clock.advance(21)
    (left,) = (await services.list("default")).items
    assert (left.service, left.sidecars, left.differs) == ("payments", (), False)


async def test_an_action_that_not_all_live_sidecars_offer_is_taken_with_a_warning(
    deployed: Deployed,
) -> None:
    await deployed.deploy({"charge": OFFERED["charge"]})
    await deployed.deploy(OFFERED)
    commands = deployed.agent.commands
    deployed.clock.advance(30)  # what was there before is silent

    async def warned(*catalogues: int | None) -> list[tuple[str, str]]:
        await beats(deployed, *catalogues)
        await deployed.agent.heartbeat.beat()
        text = json.dumps({"name": "order", "steps": ORDER}).encode()
        _, _, report = await commands.register_definition("default", text, "application/json")
        _, checked = await commands.check_definition("default", text, "application/json")
        assert [one.code for one in checked.findings] == [one.code for one in report.findings]
        found = [one for one in report.findings if one.code == "GC152"]
        assert {one.severity.value for one in found} <= {"warning"}
        return [(str(one.step), one.text.partition(":")[0]) for one in found]

    leaving = SidecarBeat("leaving", "default", "payments", "1", "here", True, draining=True)
    await deployed.store.beat(leaving)
    told = "live sidecars of payments do not offer"
    assert await warned(1, 1, 1) == []
    assert await warned(1, 2, 2) == [("ship", f"2 of 4 {told} 'ship'")]
    assert await warned(None, 2, 1) == [
        ("pay", f"1 of 4 {told} 'charge'"),
        ("ship", f"2 of 4 {told} 'ship'"),
    ]
