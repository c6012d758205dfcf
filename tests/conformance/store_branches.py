"""Steps that are skipped, joined, optional; and the output that a workflow ends with."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from sidecar.ports.store import Started, Store
from sidecar.saga.states import Action, StepStatus, WorkflowStatus
from sidecar.saga.workflow import StepKey
from tests.conformance.store_language import ONE_TRY, fan, lines, pause_of, signalled
from tests.conformance.store_play import (
    Player,
    StoreFixtures,
    call,
    done,
    refused,
    register,
    start_of,
    unknown,
)


def _if(name: str, condition: str, **more: Any) -> dict[str, Any]:
    return call(name, when=f"${{{condition}}}", **more)


class BranchSuite(StoreFixtures):
    """What a store keeps of the branches that a workflow takes."""

    async def test_a_step_whose_condition_is_false_is_gone_past(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(
            store, call("charge"), _if("check", "steps.charge.output.risk > 0.5"), call("ship")
        )
        calm, risky = await payments.start(definition), await payments.start(definition)
        for claimed in await payments.claim():
            risk = "0.9" if claimed.workflow == risky else "0.1"
            await payments.answer(claimed, done(f'{{"risk":{risk}}}'))
        assert (await payments.statuses(calm))["check"] is StepStatus.SKIPPED
        assert (await payments.statuses(risky))["check"] is StepStatus.QUEUED
        claims = {one.workflow: one.key.step for one in await payments.claim()}
        assert claims == {calm: "ship", risky: "check"}
        told = [one for one in await payments.events(calm) if one.step == "check"]
        assert [(one.before, one.after, one.cause) for one in told] == [
            ("pending", "skipped", "condition_is_false")
        ]

    async def test_a_workflow_of_which_nothing_is_left_ends_with_its_start(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(
            store,
            _if("charge", "input.amount > 100"),
            fan("each", after=[], for_each="${input.none}"),
            output={"was": "${steps.charge.status}"},
        )
        start = start_of(definition, body='{"amount":5,"none":[]}')
        for batch in (payments.batch(starts=[start]), payments.batch(due=1)):
            result = await payments.commit(batch)
        result = await payments.commit(payments.batch(starts=[start]))
        (started,) = result.starts
        assert isinstance(started, Started)
        found = await payments.see(start.id)
        assert (found.status, started.status) == (WorkflowStatus.COMPLETED,) * 2
        assert found.ended_at is not None
        assert found.output == '{"was":"skipped"}'
        assert {str(key): one.status for key, one in found.steps.items()} == {
            "charge": StepStatus.SKIPPED,
            "each": StepStatus.SUCCEEDED,
        }
        assert await store.list_items(start.id, "each", -1, 10) == []

    async def test_a_condition_that_cannot_be_told_fails_before_anything_is_sent(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, _if("charge", "input.missing > 1"))
        start = start_of(definition)
        result = await payments.commit(payments.batch(starts=[start]))
        assert result.starts[0].status is WorkflowStatus.ROLLED_BACK  # type: ignore[union-attr]
        assert "missing" in str((await payments.see(start.id)).error)

    async def test_roots_of_every_kind_begin_with_the_start(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(
            store,
            signalled("approve"),
            pause_of("nap", 60, after=[]),
            fan("each", after=[]),
            call("charge", after=[]),
        )
        start = start_of(definition, body=lines("a", "b", "c"))
        batch = payments.batch(starts=[start])
        result = await payments.commit(batch)
        (started,) = result.starts
        assert isinstance(started, Started)
        assert started.changes is not None
        queued = [str(one.key) for one in started.changes.queued]
        assert queued == ["each[0]", "each[1]", "charge"]
        assert await payments.statuses(start.id) == {
            "approve": StepStatus.WAITING,
            "nap": StepStatus.WAITING,
            "each": StepStatus.WAITING,
            "charge": StepStatus.QUEUED,
        }
        items = await store.list_items(start.id, "each", -1, 10)
        assert [one.input for one in items] == ['"a"', '"b"', '"c"']
        assert [one.status for one in items] == [StepStatus.QUEUED] * 2 + [StepStatus.PENDING]

    async def test_a_start_may_claim_an_item_of_its_root(
        self, store: Store, payments: Player
    ) -> None:
        start = replace(
            start_of(await register(store, fan("each")), body=lines("a", "b")), claim_next=True
        )
        await payments.claim()
        (claimed,) = (await payments.commit(payments.batch(starts=[start]))).claimed
        assert (claimed.key, claimed.input) == (StepKey("each", 0), '"a"')

    async def test_a_join_of_any_goes_on_with_the_first(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(
            store,
            call("fast"),
            call("slow", after=[]),
            call("next", after=["fast", "slow"], join="any"),
        )
        workflow = await payments.start(definition)
        fast, slow = sorted(await payments.claim(), key=lambda one: one.key)
        await payments.answer(fast)
        following = await payments.claim_one()
        assert following.key == StepKey("next")
        await payments.answer(following)
        assert await payments.status(workflow) is WorkflowStatus.IN_PROGRESS
        await payments.answer(slow)
        assert await payments.status(workflow) is WorkflowStatus.COMPLETED
        queued = [one.step for one in await payments.events(workflow) if one.after == "queued"]
        assert queued.count("next") == 1

    async def test_an_optional_failure_stops_nothing_and_is_undone_if_it_may_have_acted(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(
            store, call("mail", optional=True, retry=ONE_TRY), call("charge"), call("ship")
        )
        workflow = await payments.start(definition)
        await payments.answer(await payments.claim_one(), unknown())
        assert (await payments.statuses(workflow))["mail"] is StepStatus.FAILED
        await payments.answer(await payments.claim_one())
        await payments.answer(await payments.claim_one(), refused())
        undone = []
        while claims := await payments.claim():
            assert {one.action for one in claims} == {Action.COMPENSATE}
            undone += [(one.key.step, one.succeeded) for one in claims]
            for one in claims:
                await payments.answer(one)
        assert undone == [("charge", True), ("mail", False)]
        assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK

    async def test_the_output_of_a_workflow_is_kept_with_its_end(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(
            store, call("charge"), output={"paid": "${steps.charge.output.sum}", "by": "us"}
        )
        workflow = await payments.start(definition)
        assert (await payments.see(workflow)).output is None
        await payments.answer(await payments.claim_one(), done('{"sum":1.50}'))
        found = await payments.see(workflow)
        assert found.status is WorkflowStatus.COMPLETED
        assert found.output in ('{"paid":1.5,"by":"us"}', '{"by":"us","paid":1.5}')

    async def test_an_output_that_cannot_be_told_undoes_nothing(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("charge"), output="${steps.charge.output.sum}")
        workflow = await payments.start(definition)
        await payments.answer(await payments.claim_one(), done("{}"))
        found = await payments.see(workflow)
        assert (found.status, found.output) == (WorkflowStatus.COMPLETED, None)
        assert "output" in str(found.error)
