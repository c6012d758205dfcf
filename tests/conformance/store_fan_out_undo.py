"""Fan-outs on the way back: their items are undone, a few at a time, each with its own output."""

from __future__ import annotations

import pytest

from sidecar.ports.store import Claimed, Store
from sidecar.saga.events import RetryRequested
from sidecar.saga.states import Action, StepStatus, WorkflowStatus
from sidecar.saga.workflow import StepKey, WorkflowId
from tests.conformance.store_fan_out import fan_of, statuses_of
from tests.conformance.store_language import ONE_TRY, fan, keys_of, lines, moved, unwanted, verdict
from tests.conformance.store_play import (
    Backend,
    Player,
    StoreFixtures,
    call,
    done,
    refused,
    register,
    settle,
    unknown,
)

UNDO_ONCE = {"path": "/undo", "retry": ONE_TRY}


class FanOutUndoSuite(StoreFixtures):
    """What a store promises about fan-outs that are undone."""

    async def _all_done(
        self, player: Player, workflow: WorkflowId, *, last: str = "last"
    ) -> Claimed:
        """Let all succeed up to the step `last`; return its claim."""
        while claims := await player.claim():
            if keys_of(claims) == [last]:
                return claims[0]
            members = [settle(one, done(f'{{"id":{one.key.index}}}')) for one in claims]
            await player.commit(player.batch(transitions=members))
        raise AssertionError(await player.statuses(workflow))

    async def test_items_are_undone_as_many_at_a_time_as_were_called(
        self, store: Store, payments: Player
    ) -> None:
        undo = {"path": "/undo", "input": {"id": "${steps.each.output.id}", "at": "${each.index}"}}
        definition = await register(
            store, call("first"), fan("each", compensate=undo), call("last")
        )
        workflow = await payments.start(definition, body=lines(*"abcde"))
        await payments.answer(await self._all_done(payments, workflow), refused())
        assert await payments.status(workflow) is WorkflowStatus.ROLLING_BACK
        undone: list[str] = []
        while claims := sorted(await payments.claim(), key=lambda one: one.key):
            assert len(claims) <= 2
            undone += keys_of(claims)
            for one in claims:
                assert one.action is Action.COMPENSATE
                assert one.succeeded
                if one.key.step == "each":
                    at = one.key.index
                    assert one.input == f'"{"abcde"[at]}"'
                    assert one.output == f'{{"id":{at}}}'
                    assert one.compensation_input in (
                        f'{{"id":{at},"at":{at}}}',
                        f'{{"at":{at},"id":{at}}}',
                    )
            members = [settle(one) for one in claims]
            await payments.commit(payments.batch(transitions=members))
        assert undone == [*(f"each[{at}]" for at in range(5)), "first"]
        assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK
        assert await statuses_of(payments, workflow) == [StepStatus.COMPENSATED] * 5
        found = await fan_of(payments, workflow)
        assert (found.undone, found.undoing, found.kept) == (5, 0, 0)

    async def test_one_undone_makes_way_for_the_next(self, store: Store, payments: Player) -> None:
        workflow = await payments.start(
            await register(store, fan("each"), call("last")), body=lines(*range(5))
        )
        await payments.answer(await self._all_done(payments, workflow), refused())
        first, _ = sorted(await payments.claim(), key=lambda one: one.key)
        changes = moved(await payments.apply(workflow, settle(first).event))
        assert [str(one.key) for one in changes.queued] == ["each[2]"]
        assert {str(one.key) for one in changes.steps} == {"each", "each[0]", "each[2]"}
        result = await payments.commit(
            payments.batch(transitions=[settle(await payments.claim_one(), claim_next=True)])
        )
        assert keys_of(result.claimed) == ["each[3]"]

    async def test_one_by_one_means_items_too(self, store: Store, payments: Player) -> None:
        definition = await register(
            store, fan("each", at_once=5), call("last"), compensation={"order": "sequential"}
        )
        workflow = await payments.start(definition, body=lines(1, 2, 3))
        await payments.answer(await self._all_done(payments, workflow), refused())
        for at in range(3):
            undo = await payments.claim_one()
            assert undo.key.index == at
            await payments.answer(undo)
        assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK

    async def test_only_items_that_may_have_acted_are_undone(
        self, store: Store, payments: Player
    ) -> None:
        each = fan("each", tolerated_failures=3, retry=ONE_TRY)
        workflow = await payments.start(
            await register(store, each, call("last")), body=lines(*range(6))
        )
        refusals = {2: refused(), 3: refused(), 5: unknown()}
        while keys_of(claims := await payments.claim()) != ["last"]:
            for one in claims:
                await payments.answer(one, refusals.get(one.key.index, done()))
        await payments.answer(claims[0], refused())
        first, second = sorted(await payments.claim(), key=lambda one: one.key)
        await payments.answer(first)
        # Those without an effect take nobody's place.
        (fifth,) = await payments.claim()
        assert (fifth.key.index, fifth.succeeded) == (4, True)
        await payments.answer(second)
        await payments.answer(fifth)
        last = await payments.claim_one()
        assert (last.key.index, last.succeeded) == (5, False)
        await payments.answer(last)
        assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK

    async def test_an_item_that_cannot_be_undone_needs_a_person_while_the_others_go_on(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(
            store, call("first"), fan("each", at_once=1, compensate=UNDO_ONCE), call("last")
        )
        workflow = await payments.start(definition, body=lines(1, 2, 3))
        await payments.answer(await self._all_done(payments, workflow), refused())
        await payments.answer(await payments.claim_one(), refused())
        found = await payments.see(workflow)
        assert found.status is WorkflowStatus.ERROR
        assert '"step": "each[0]"' in str(found.error)
        assert "no stock" in str(found.error)
        assert (await fan_of(payments, workflow)).kept == 1
        for at in (1, 2):
            undo = await payments.claim_one()
            assert undo.key.index == at
            await payments.answer(undo)
        assert await payments.claim() == []
        step = await payments.see_step(workflow, "each")
        assert step.status is StepStatus.COMPENSATION_FAILED
        # A person lets it be tried again, and then all goes on back to its end.
        retry = RetryRequested(StepKey("each", 0), "mended", "anna")
        changes = moved(await payments.apply(workflow, retry))
        assert changes.workflow.status is WorkflowStatus.ROLLING_BACK
        again = await payments.claim_one()
        assert (again.key.index, again.attempt) == (0, 2)
        await payments.answer(again)
        assert (await payments.claim_one()).key == StepKey("first")

    @pytest.mark.parametrize("whole", [False, True], ids=["one", "all"])
    async def test_items_that_cannot_be_undone_are_left_or_tried_again(
        self, store: Store, payments: Player, whole: bool
    ) -> None:
        each = fan("each", compensate=UNDO_ONCE)
        workflow = await payments.start(
            await register(store, each, call("last")), body=lines(1, 2, 3)
        )
        await payments.answer(await self._all_done(payments, workflow), refused())
        while claims := await payments.claim():
            members = [settle(one, refused()) for one in claims]
            await payments.commit(payments.batch(transitions=members))
        assert (await fan_of(payments, workflow)).kept == 3
        if whole:
            await payments.apply(workflow, RetryRequested())
            again = await payments.claim()
            assert len(again) == 3
            for one in again:
                await payments.answer(one)
        else:
            for at in range(3):
                assert await payments.status(workflow) is WorkflowStatus.ERROR
                verdict(await payments.apply(workflow, unwanted("each", at)))
        assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK

    async def test_what_cannot_be_rendered_leaves_its_turn_to_the_next(
        self, store: Store, payments: Player
    ) -> None:
        undo = {"path": "/undo", "input": "${steps.each.output.id}"}
        definition = await register(store, fan("each", compensate=undo), call("last"))
        workflow = await payments.start(definition, body=lines(*range(6)))
        while claims := await payments.claim():
            if keys_of(claims) == ["last"]:
                break
            for one in claims:
                odd = one.key.index in (2, 3)
                await payments.answer(one, done("{}" if odd else f'{{"id":{one.key.index}}}'))
        await payments.answer(claims[0], refused())
        first, second = sorted(await payments.claim(), key=lambda one: one.key)
        await payments.answer(first)
        # The two that are left for a person take nobody's place.
        (fifth,) = await payments.claim()
        assert fifth.key == StepKey("each", 4)
        assert await payments.status(workflow) is WorkflowStatus.ERROR
        await payments.answer(second)
        await payments.answer(fifth)
        await payments.answer(await payments.claim_one())
        found = await fan_of(payments, workflow)
        assert (found.undone, found.undoing, found.kept) == (6, 0, 2)

    async def test_a_batch_on_the_way_back_whose_answer_was_lost_takes_effect_once(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, fan("each"), call("last"))
        workflow = await payments.start(definition, body=lines(*range(6)))
        await payments.answer(await self._all_done(payments, workflow), refused())
        claims = await payments.claim()
        batch = payments.batch(transitions=[settle(one, claim_next=True) for one in claims])
        await backend.lose_answer(store, batch)
        result = await payments.commit(batch)
        assert keys_of(result.claimed) == ["each[2]", "each[3]"]
        found = await fan_of(payments, workflow)
        assert (found.undone, found.undoing) == (4, 2)

    async def test_fan_outs_that_do_not_depend_on_each_other_are_undone_together(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(
            store, fan("a"), fan("b", after=[]), call("last", after=["a", "b"])
        )
        workflow = await payments.start(definition, body=lines(1, 2, 3))
        await payments.answer(await self._all_done(payments, workflow), refused())
        claims = await payments.claim()
        assert keys_of(claims) == ["a[0]", "a[1]", "b[0]", "b[1]"]
        await payments.commit(payments.batch(transitions=[settle(one) for one in claims]))
        assert keys_of(await payments.claim()) == ["a[2]", "b[2]"]
