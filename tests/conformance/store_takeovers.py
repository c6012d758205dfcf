"""Reruns of workflows that were terminated: what is kept, who owes it, and under which key."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from sidecar.errors import IllegalTransition
from sidecar.ports.store import Retired, Started, Store, Transition, TurnKey
from sidecar.ports.versions import VersionState
from sidecar.saga.changes import Verdict
from sidecar.saga.events import (
    Admitted,
    RetryRequested,
)
from sidecar.saga.states import Action, StepStatus, WorkflowStatus
from sidecar.saga.workflow import StepKey, WorkflowId
from tests.conformance.store_debts import owed
from tests.conformance.store_fan_out import statuses_of
from tests.conformance.store_language import fan, lines, sent, signalled, skip
from tests.conformance.store_play import (
    Player,
    call,
    done,
    new_id,
    refused,
    register,
    settle,
    start_of,
    unknown,
)
from tests.conformance.store_refusals import STOP, TerminatedFixtures
from tests.conformance.store_reruns import again


class TakeoverSuite(TerminatedFixtures):
    """What a store promises of `Start.rerun` for workflows that were terminated."""

    async def test_the_debts_move_in_the_same_commit(self, store: Store, payments: Player) -> None:
        definition, old, _ = await self.stopped(store, payments)
        assert {one.place.workflow for one in await owed(store)} == {old}
        new = await self.rerun(payments, old, definition=definition)
        assert await owed(store) == []
        seen = await payments.see(old)
        assert (seen.status, seen.owes_since) == (WorkflowStatus.TERMINATED, None)
        assert seen.taken_over_by == new
        told = (await payments.events(old))[-1]
        assert '"takes_over": ["one", "two"]' in (told.details or "")
        causes = [(one.cause, one.step, one.after) for one in await payments.events(new)]
        assert causes == [
            ("taken_over", "one", "succeeded"),
            ("taken_over", "two", "failed"),
            ("started", None, "in_progress"),
            ("same_key_again", "two", "retrying"),
        ]
        await payments.cancel(new)
        found = {(one.place.workflow, one.place.key.step) for one in await owed(store)}
        assert found == {(new, "one"), (new, "two")}

    async def test_what_is_unknown_is_tried_again_under_the_old_key_and_the_rest_anew(
        self, store: Store, payments: Player
    ) -> None:
        definition, old, calling = await self.stopped(store, payments)
        new = await self.rerun(payments, old, definition=definition)
        two = await payments.claim_one()
        assert (two.workflow, two.key, two.origin) == (new, StepKey("two"), old)
        assert (two.attempt, two.tries, two.input) == (2, 0, calling.input)
        await payments.answer(two)
        three = await payments.claim_one()
        assert (three.key, three.origin, three.attempt) == (StepKey("three"), None, 1)
        await payments.answer(three)
        assert await payments.status(new) is WorkflowStatus.COMPLETED
        one = await payments.see_step(new, "one")
        assert (one.output, one.origin) == ('{"id":1}', old)

    async def test_what_was_kept_is_undone_under_the_old_key(
        self, store: Store, payments: Player
    ) -> None:
        definition, old, _ = await self.stopped(store, payments)
        new = await self.rerun(payments, old, definition=definition)
        await payments.answer(await payments.claim_one())
        await payments.answer(await payments.claim_one(), refused())
        undone = []
        for _ in range(2):
            one = await payments.claim_one()
            assert (one.action, one.origin, one.succeeded) == (Action.COMPENSATE, old, True)
            assert one.input == '{"amount":5}'
            undone.append((one.key.step, one.output))
            await payments.answer(one)
        assert undone == [("two", '{"ok":true}'), ("one", '{"id":1}')]
        assert await payments.status(new) is WorkflowStatus.ROLLED_BACK
        assert await owed(store) == []

    async def test_what_was_kept_is_undone_with_the_id_that_its_service_knows(
        self, store: Store, payments: Player
    ) -> None:
        own = {"ref": "${workflow.id}"}
        undo = {"path": "/undo", "input": own}
        definition = await register(
            store, call("one", input=own, compensate=undo), call("two", input=own), call("three")
        )
        old = await payments.start(definition)
        await payments.answer(await payments.claim_one())
        await payments.claim_one()
        await payments.apply(old, STOP)
        new = await self.rerun(payments, old, definition=definition)
        known = json.dumps({"ref": old}, separators=(",", ":"))
        two = await payments.claim_one()
        assert (two.workflow, two.key.step, two.input) == (new, "two", known)
        await payments.answer(two, refused())
        await payments.answer(await payments.claim_one())
        one = await payments.claim_one()
        assert (one.key.step, one.action, one.compensation_input) == (
            "one",
            Action.COMPENSATE,
            known,
        )

    async def test_what_nobody_had_begun_to_undo_is_kept(
        self, store: Store, payments: Player
    ) -> None:
        undo = {"path": "/undo", "input": {"ref": "${workflow.id}"}}
        definition = await register(store, call("one"), call("two", compensate=undo), call("three"))
        old = await payments.start(definition)
        for answer in (done('{"id":1}'), done('{"id":2}'), refused()):
            await payments.answer(await payments.claim_one(), answer)
        await payments.apply(old, STOP)
        before = await payments.see_step(old, "two")
        assert before.status is StepStatus.COMPENSATION_FAILED
        new = await self.rerun(payments, old, definition=definition)
        assert await payments.see_step(old, "two") == before
        assert await owed(store) == []
        two = await payments.see_step(new, "two")
        assert (two.status, two.output) == (StepStatus.SUCCEEDED, '{"id":2}')
        assert (two.origin, two.compensation_input) == (old, None)
        three = await payments.claim_one()
        assert (three.key.step, three.origin) == ("three", None)
        await payments.answer(three, refused())
        undoing = await payments.claim_one()
        assert (undoing.key.step, undoing.attempt, undoing.origin) == ("two", 1, old)

    async def test_what_was_to_be_undone_and_had_not_succeeded_is_refused(
        self, store: Store, payments: Player
    ) -> None:
        once = {"max_attempts": 1}
        definition = await register(store, call("one", retry=once), call("two"))
        old = await payments.start(definition)
        await payments.answer(await payments.claim_one(), unknown())
        await payments.apply(old, STOP)
        said = await self.refusal(payments, definition, old)
        assert "not known to have succeeded" in said

    async def test_unknown_sticks_over_a_rerun(self, store: Store, payments: Player) -> None:
        definition, old, _ = await self.stopped(store, payments)
        new = await self.rerun(payments, old, definition=definition)
        await payments.answer(await payments.claim_one(), refused())
        two = await payments.claim_one()
        assert (two.key.step, two.action, two.succeeded) == ("two", Action.COMPENSATE, False)
        assert (two.workflow, two.origin) == (new, old)

    async def test_an_answer_to_the_first_one_comes_too_late(
        self, store: Store, payments: Player
    ) -> None:
        definition, old, calling = await self.stopped(store, payments)
        await self.rerun(payments, old, definition=definition)
        assert await payments.answer(calling) is Verdict.LATE
        assert (await payments.see(old)).owes_since is None
        assert (await payments.see_step(old, "two")).status is StepStatus.FAILED

    @pytest.mark.parametrize("together", [True, False])
    async def test_only_one_rerun_takes_over(
        self, store: Store, payments: Player, together: bool
    ) -> None:
        definition, old, _ = await self.stopped(store, payments)
        starts = [again(start_of(definition), old) for _ in range(2)]
        batches = [starts] if together else [[one] for one in starts]
        results = [await payments.commit(payments.batch(starts=one)) for one in batches]
        first, second = [one for result in results for one in result.starts]
        assert isinstance(first, Started)
        assert isinstance(second, IllegalTransition)
        assert f"{starts[0].id} took over" in second.state
        assert await store.get_workflow("default", starts[1].id) is None

    async def test_only_one_rerun_goes_on_though_nothing_is_owed(
        self, store: Store, payments: Player
    ) -> None:
        final = call("one", compensate="none", pivot=True)
        definition = await register(store, final, call("two"))
        old = await payments.start(definition)
        await payments.answer(await payments.claim_one())
        await payments.apply(old, STOP)
        assert (await payments.see(old)).owes_since is None
        first = again(start_of(definition, start_key="k"), old)
        same = replace(first, id=new_id())
        for start, existed in ((first, False), (first, False), (same, True)):
            result = await payments.commit(payments.batch(starts=[start]))
            (begun,) = result.starts
            assert isinstance(begun, Started)
            assert (begun.workflow, begun.existed) == (first.id, existed)
        assert (await payments.see(old)).taken_over_by == first.id
        other = again(start_of(definition), old)
        result = await payments.commit(payments.batch(starts=[other]))
        (refusal,) = result.starts
        assert isinstance(refusal, IllegalTransition)
        assert f"{first.id} took over" in refusal.state
        two = await payments.claim_one()
        assert (two.workflow, two.key.step) == (first.id, "two")
        assert await payments.claim() == []

    @pytest.mark.parametrize("start_key", [None, "k"])
    async def test_a_version_that_was_retired_meanwhile_is_gone_on_with(
        self, store: Store, payments: Player, start_key: str | None
    ) -> None:
        definition, old, _ = await self.stopped(store, payments)
        newer = await register(store, call("pay"))
        await store.set_version_state("default", "order", 1, VersionState.RETIRED)
        other = await payments.start(newer)
        await payments.apply(other, STOP)
        for start in (start_of(definition), again(start_of(definition), other)):
            result = await payments.commit(payments.batch(starts=[start]))
            assert result.starts == (Retired(),)
        new = await self.rerun(payments, old, definition=definition, start_key=start_key)
        assert (await payments.see(old)).taken_over_by == new
        two = await payments.claim_one()
        assert (two.workflow, two.key.step, two.origin) == (new, "two", old)

    async def test_a_rerun_of_a_rerun_still_knows_the_first_key(
        self, store: Store, payments: Player
    ) -> None:
        definition, first, _ = await self.stopped(store, payments)
        second = await self.rerun(payments, first, definition=definition)
        await payments.answer(await payments.claim_one())
        await payments.claim_one()
        await payments.apply(second, STOP)
        third = await self.rerun(payments, second, definition=definition)
        found = {str(key): one.origin for key, one in (await payments.see(third)).steps.items()}
        assert found == {"one": first, "two": first, "three": second}

    async def test_what_passed_without_an_effect_is_kept_too(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(
            store,
            signalled("go"),
            call("maybe", when="${input.amount > 9}"),
            call("first"),
            call("extra", optional=True),
            call("last"),
        )
        old = await payments.start(definition)
        await payments.apply(old, sent("7"))
        await payments.answer(await payments.claim_one())
        await payments.answer(await payments.claim_one(), refused())
        await payments.apply(old, STOP)
        new = await self.rerun(payments, old, definition=definition)
        assert await payments.statuses(new) == {
            "go": StepStatus.SUCCEEDED,
            "maybe": StepStatus.SKIPPED,
            "first": StepStatus.SUCCEEDED,
            "extra": StepStatus.FAILED,
            "last": StepStatus.QUEUED,
        }
        output = (await payments.see_step(new, "go")).output
        assert output == (await payments.see_step(old, "go")).output
        assert output is not None

    async def test_a_step_skipped_before_its_turn_stays_so(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("one"), call("two"), call("three"))
        old = await payments.start(definition)
        await payments.apply(old, skip("two"))
        await payments.claim_one()
        await payments.apply(old, STOP)
        new = await self.rerun(payments, old, definition=definition)
        await payments.answer(await payments.claim_one())
        three = await payments.claim_one()
        assert (three.workflow, three.key.step) == (new, "three")

    async def test_past_the_pivot_it_only_goes_forward(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("one"), call("point", pivot=True), call("two"))
        old = await payments.start(definition)
        await payments.answer(await payments.claim_one())
        await payments.answer(await payments.claim_one(), unknown())
        await payments.apply(old, STOP)
        new = await self.rerun(payments, old, definition=definition)
        refusal = await payments.cancel(new)
        assert isinstance(refusal, IllegalTransition)
        point = await payments.claim_one()
        assert (point.key.step, point.origin) == ("point", old)

    async def test_a_fan_out_that_had_ended_is_kept_with_its_items(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, fan("each", tolerated_failures=1), call("last"))
        old = await payments.start(definition, body=lines("a", "b", "c"))
        while (claims := await payments.claim())[0].key.step != "last":
            members = [
                settle(one, refused() if one.key.index == 1 else done(f'{{"id":{one.key.index}}}'))
                for one in claims
            ]
            await payments.commit(payments.batch(transitions=members))
        await payments.apply(old, STOP)
        new = await self.rerun(payments, old, definition=definition)
        expected = [StepStatus.SUCCEEDED, StepStatus.FAILED, StepStatus.SUCCEEDED]
        assert await statuses_of(payments, new) == expected
        await payments.answer(await payments.claim_one(), refused())
        assert {one.key.step for one in await payments.claim()} == {"last"}  # it may be there

    async def test_items_are_undone_under_the_old_key(self, store: Store, payments: Player) -> None:
        definition = await register(store, fan("each"), call("last"))
        old = await payments.start(definition, body=lines("a", "b"))
        claims = await payments.claim()
        members = [settle(one, done(f'{{"id":{one.key.index}}}')) for one in claims]
        await payments.commit(payments.batch(transitions=members))
        await payments.apply(old, STOP)
        new = await self.rerun(payments, old, definition=definition)
        await payments.answer(await payments.claim_one(), refused())
        undoing = sorted(await payments.claim(), key=lambda one: one.key)
        assert [(str(one.key), one.origin, one.output, one.succeeded) for one in undoing] == [
            ("each[0]", old, '{"id":0}', True),
            ("each[1]", old, '{"id":1}', True),
        ]
        members = [settle(one) for one in undoing]
        await payments.commit(payments.batch(transitions=members))
        assert await payments.status(new) is WorkflowStatus.ROLLED_BACK

    @pytest.mark.parametrize("cancelled", [True, False])
    async def test_one_that_waits_for_its_turn_keeps_what_it_took_over(
        self, store: Store, payments: Player, cancelled: bool
    ) -> None:
        turns = {"key": "${input.amount}", "limit": 1}
        definition = await register(store, call("one"), call("two"), concurrency=turns)
        turn = TurnKey("default", "order", "5")

        async def admit(workflow: WorkflowId) -> None:
            member = Transition(workflow, Admitted(), turn=turn)
            await payments.commit(payments.batch(transitions=[member]))

        old = await payments.start(definition)
        await admit(old)
        await payments.answer(await payments.claim_one())
        await payments.claim_one()
        await payments.apply(old, STOP)
        new = await self.rerun(payments, old, definition=definition)
        assert await payments.status(new) is WorkflowStatus.QUEUED
        assert await payments.claim() == []
        refusal = await payments.apply(new, RetryRequested())
        assert isinstance(refusal, IllegalTransition)
        if cancelled:
            await payments.cancel(new)
        else:
            await admit(new)
        two = await payments.claim_one()
        assert (two.workflow, two.key.step, two.origin) == (new, "two", old)
        assert two.action is (Action.COMPENSATE if cancelled else Action.EXECUTE)
