"""Fan-outs on the way forward: items of their own, a few at a time, however many there are."""

from __future__ import annotations

from datetime import timedelta

from sidecar.errors import IllegalTransition
from sidecar.ports.store import Claimed, Missing, Moved, Store, Transition
from sidecar.saga.changes import Verdict
from sidecar.saga.events import (
    DeadlinePassed,
    PauseRequested,
    ResumeRequested,
    RetryRequested,
    TerminateRequested,
)
from sidecar.saga.states import Action, StepStatus, WorkflowStatus
from sidecar.saga.workflow import Fan, StepKey, WorkflowId
from tests.conformance.store_language import (
    ONE_TRY,
    done_at,
    fan,
    keys_of,
    lines,
    moved,
    skip,
    taken_on,
    verdict,
)
from tests.conformance.store_play import (
    NAMESPACE,
    Backend,
    Player,
    StoreFixtures,
    call,
    done,
    refused,
    register,
    settle,
    start_of,
    unknown,
)


async def fan_of(player: Player, workflow: WorkflowId, step: str = "each") -> Fan:
    """The counters of a fan-out."""
    found = (await player.see_step(workflow, step)).fan
    assert found is not None
    return found


async def statuses_of(player: Player, workflow: WorkflowId, step: str = "each") -> list[StepStatus]:
    """The statuses of all items."""
    return [one.status for one in await player.store.list_items(workflow, step, -1, 10_000)]


class FanOutSuite(StoreFixtures):
    """What a store promises about fan-outs that go forward."""

    async def test_items_are_opened_as_many_at_a_time_as_may_be(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(
            await register(store, call("first"), fan("each"), call("last")),
            body=lines("a", {"b": 1.10}, None, [4]),
        )
        result = await payments.commit(
            payments.batch(transitions=[settle(await payments.claim_one(), claim_next=True)])
        )
        (first,) = result.claimed
        assert (first.key, first.input, first.attempt) == (StepKey("each", 0), '"a"', 1)
        (second,) = await payments.claim()
        assert (second.key, second.input) == (StepKey("each", 1), '{"b":1.1}')
        assert await payments.claim() == []
        assert await fan_of(payments, workflow) == Fan(total=4, opened=2, open=2)
        changes = moved(await payments.apply(workflow, done_at("each", 0)))
        assert [str(one.key) for one in changes.queued] == ["each[2]"]
        assert {str(one.key) for one in changes.steps} == {"each[0]", "each", "each[2]"}
        assert await statuses_of(payments, workflow) == [
            StepStatus.SUCCEEDED,
            StepStatus.RUNNING,
            StepStatus.QUEUED,
            StepStatus.PENDING,
        ]
        (third,) = await payments.claim()
        assert third.input == "null"
        await payments.answer(third)
        (fourth,) = await payments.claim()
        await payments.answer(fourth)
        assert await payments.claim() == []
        await payments.answer(second)
        assert (await payments.see_step(workflow, "each")).status is StepStatus.SUCCEEDED
        assert (await payments.claim_one()).key == StepKey("last")

    async def test_an_item_is_claimed_by_its_name_and_by_nobody_elses_service(
        self, store: Store, payments: Player, inventory: Player
    ) -> None:
        workflow = await payments.start(await register(store, fan("each")), body=lines(1, 2, 3))
        assert await inventory.claim_key(workflow, "each[0]") is Missing.NOT_CLAIMABLE
        assert await payments.claim_key(workflow, "each[2]") is Missing.UNKNOWN
        assert await payments.claim_key(workflow, "each[7]") is Missing.UNKNOWN
        assert await payments.claim_key(workflow, "each") is Missing.NOT_CLAIMABLE
        claimed = await payments.claim_key(workflow, "each[1]")
        assert isinstance(claimed, Claimed)
        assert claimed.input == "2"
        assert await payments.claim_key(workflow, "each[1]") is Missing.NOT_CLAIMABLE
        nobody = await payments.apply(workflow, done_at("each", 2))
        assert isinstance(nobody, IllegalTransition)

    async def test_items_settled_in_one_batch_make_way_for_as_many(
        self, store: Store, payments: Player
    ) -> None:
        each = fan("each", at_once=4)
        workflow = await payments.start(await register(store, each), body=lines(*range(9)))
        claims = await payments.claim()
        assert keys_of(claims) == [f"each[{at}]" for at in range(4)]
        members = [settle(one) for one in claims[:3]]
        result = await payments.commit(payments.batch(transitions=members))
        queued = [str(one.key) for each in result.transitions for one in moved(each).queued]
        assert queued == ["each[4]", "each[5]", "each[6]"]
        claims = [*await payments.claim(), claims[3]]
        members = [settle(one) for one in claims]
        await payments.commit(payments.batch(transitions=members))
        assert await fan_of(payments, workflow) == Fan(total=9, opened=9, open=2, effects=True)
        members = [settle(one) for one in await payments.claim()]
        await payments.commit(payments.batch(transitions=members))
        assert await payments.status(workflow) is WorkflowStatus.COMPLETED

    async def test_items_of_two_fan_outs_and_a_plain_step_in_one_batch(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(
            store,
            fan("a"),
            fan("b", after=[]),
            call("plain", after=[]),
            call("end", after=["a", "b", "plain"]),
        )
        workflow = await payments.start(definition, body=lines(1, 2, 3))
        while claims := await payments.claim():
            if keys_of(claims) == ["end"]:
                break
            members = [settle(one) for one in claims]
            result = await payments.commit(payments.batch(transitions=members))
            assert all(isinstance(one, Moved) for one in result.transitions)
        await payments.answer(claims[0])
        assert await payments.status(workflow) is WorkflowStatus.COMPLETED

    async def test_the_same_answer_twice_counts_once(self, store: Store, payments: Player) -> None:
        workflow = await payments.start(await register(store, fan("each")), body=lines(1, 2, 3))
        first, _ = await payments.claim()
        batch = payments.batch(transitions=[settle(first), settle(first)])
        result = await payments.commit(batch)
        assert [verdict(one) for one in result.transitions] == [Verdict.APPLIED, Verdict.DUPLICATE]
        assert await payments.answer(first) is Verdict.DUPLICATE
        assert await fan_of(payments, workflow) == Fan(total=3, opened=3, open=2, effects=True)

    async def test_a_batch_of_items_whose_answer_was_lost_takes_effect_once(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        each = fan("each", at_once=3)
        workflow = await payments.start(await register(store, each), body=lines(*range(8)))
        claims = sorted(await payments.claim(), key=lambda one: one.key)
        members = [settle(claims[0]), settle(claims[1], claim_next=True)]
        batch = payments.batch(transitions=members)
        await backend.lose_answer(store, batch)
        result = await payments.commit(batch)
        assert [verdict(one) for one in result.transitions] == [Verdict.DUPLICATE] * 2
        assert keys_of(result.claimed) == ["each[4]"]
        assert result.claimed[0].input == "4"
        assert await fan_of(payments, workflow) == Fan(total=8, opened=5, open=3, effects=True)
        assert keys_of(await payments.claim()) == ["each[3]"]

    async def test_a_start_with_items_whose_answer_was_lost_is_one_workflow(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        start = start_of(await register(store, fan("each")), body=lines(1, 2, 3))
        batch = payments.batch(starts=[start], due=10)
        await backend.lose_answer(store, batch)
        await payments.commit(batch)
        assert len(await store.list_items(start.id, "each", -1, 10)) == 3

    async def test_items_that_fail_are_tolerated_up_to_a_number(
        self, store: Store, payments: Player
    ) -> None:
        each = fan("each", at_once=1, tolerated_failures=2, retry=ONE_TRY)
        workflow = await payments.start(
            await register(store, each, output="${steps.each.output}"), body=lines(1, 2, 3, 4)
        )
        for outcome in (refused(), done('"x"'), unknown(), done('"y"')):
            await payments.answer(await payments.claim_one(), outcome)
        found = await payments.see(workflow)
        assert found.status is WorkflowStatus.COMPLETED
        assert found.output == '[null,"x",null,"y"]'
        assert found.steps[StepKey("each")].fan == Fan(
            total=4, opened=4, open=0, failed=2, effects=True
        )

    async def test_one_failure_too_many_turns_back_and_opens_no_more(
        self, store: Store, payments: Player
    ) -> None:
        each = fan("each", at_once=2, tolerated_failures=1)
        workflow = await payments.start(await register(store, each), body=lines(*range(6)))
        first, second = await payments.claim()
        await payments.answer(first, refused())
        await payments.answer(second, refused())
        found = await payments.see(workflow)
        assert found.status is WorkflowStatus.ROLLED_BACK
        assert '"step": "each[1]"' in str(found.error)
        assert "no stock" in str(found.error)
        statuses = await statuses_of(payments, workflow)
        assert (
            statuses == [StepStatus.FAILED] * 2 + [StepStatus.CANCELLED] + [StepStatus.PENDING] * 3
        )

    async def test_the_whole_output_is_read_by_a_later_step(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(
            store,
            fan("each", at_once=3, input={"n": "${each.item}", "at": "${each.index}"}),
            call("sum", input="${steps.each.output}"),
        )
        await payments.start(definition, body=lines(7, 8, 9))
        claims = sorted(await payments.claim(), key=lambda one: one.key)
        inputs = [one.input for one in claims]
        assert inputs in (
            ['{"n":7,"at":0}', '{"n":8,"at":1}', '{"n":9,"at":2}'],
            ['{"at":0,"n":7}', '{"at":1,"n":8}', '{"at":2,"n":9}'],
        )
        for one in reversed(claims):
            await payments.answer(one, done(f'"{one.key.index}"'))
        assert (await payments.claim_one()).input == '["0","1","2"]'

    async def test_the_last_items_in_one_batch_make_the_whole_output(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, fan("each"), call("sum", input="${steps.each.output}"))
        await payments.start(definition, body=lines(7, 8))
        members = [settle(one, done(f'"{one.key.index}"')) for one in await payments.claim()]
        await payments.commit(payments.batch(transitions=members))
        assert (await payments.claim_one()).input == '["0","1"]'

    async def test_an_item_that_cannot_be_rendered_is_never_sent(
        self, store: Store, payments: Player
    ) -> None:
        each = fan("each", at_once=1, tolerated_failures=1, input="${each.item.id}")
        body = lines({"id": 1}, {}, {"id": 3})
        workflow = await payments.start(await register(store, each), body=body)
        await payments.answer(await payments.claim_one())
        last = await payments.claim_one()
        assert (last.key, last.input) == (StepKey("each", 2), "3")
        items = await store.list_items(workflow, "each", -1, 10)
        assert [one.status for one in items][1] is StepStatus.FAILED
        assert (items[1].input, items[1].execute.attempt) == ("{}", 0)
        assert items[1].error is not None
        await payments.answer(last)
        assert await payments.status(workflow) is WorkflowStatus.COMPLETED

    async def test_what_is_no_list_fails_before_anything_is_sent(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(await register(store, fan("each")), body='{"lines":{}}')
        found = await payments.see(workflow)
        assert found.status is WorkflowStatus.ROLLED_BACK
        assert "list" in str(found.error)

    async def test_items_come_by_pages(self, store: Store, payments: Player) -> None:
        workflow = await payments.start(await register(store, fan("each")), body=lines(*"abcdefg"))
        pages = [await store.list_items(workflow, "each", after, 3) for after in (-1, 2, 5, 6)]
        assert [[one.key.index for one in page] for page in pages] == [
            [0, 1, 2],
            [3, 4, 5],
            [6],
            [],
        ]
        assert [one.input for page in pages for one in page] == [f'"{one}"' for one in "abcdefg"]
        stored = [one.stored for page in pages for one in page]
        assert stored == [True] * 2 + [False] * 5
        assert await store.list_items(workflow, "nobody", -1, 3) == []
        workflow = await payments.start(await register(store, call("plain"), name="plain"))
        assert await store.list_items(workflow, "plain", -1, 3) == []

    # -- what ends it before its time -----------------------------------------------------------

    async def test_a_cancel_in_mid_fan_out_awaits_calls_and_undoes_what_was_done(
        self, store: Store, payments: Player
    ) -> None:
        each = fan("each", at_once=3)
        workflow = await payments.start(await register(store, each), body=lines(*range(6)))
        first, second, _ = sorted(await payments.claim(), key=lambda one: one.key)
        await payments.answer(first)  # each[3] is queued
        await payments.answer(second, taken_on())
        await payments.cancel(workflow)
        assert await statuses_of(payments, workflow) == [
            StepStatus.SUCCEEDED,
            StepStatus.FAILED,
            StepStatus.RUNNING,
            StepStatus.CANCELLED,
            StepStatus.PENDING,
            StepStatus.PENDING,
        ]
        assert await payments.claim() == []  # the step's own call decides first
        await payments.apply(workflow, done_at("each", 2))
        undos = sorted(await payments.claim(), key=lambda one: one.key)
        assert keys_of(undos) == ["each[0]", "each[1]", "each[2]"]
        assert [one.succeeded for one in undos] == [True, False, True]
        assert {one.action for one in undos} == {Action.COMPENSATE}
        for one in undos:
            await payments.answer(one)
        assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK

    async def test_a_deadline_in_mid_fan_out_does_the_same(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, fan("each"), timeout="1m")
        workflow = await payments.start(definition, body=lines(1, 2, 3))
        first = (await payments.claim(1))[0]
        await payments.answer(first)
        await backend.pass_time(61)
        assert await store.overdue_workflows(NAMESPACE, 10) == [workflow]
        await payments.apply(workflow, DeadlinePassed())
        assert await store.overdue_workflows(NAMESPACE, 10) == []
        undo = await payments.claim_one()
        assert (undo.key, undo.action) == (first.key, Action.COMPENSATE)
        await payments.answer(undo)
        assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK

    async def test_a_lease_of_an_item_ends_like_any_other(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        await payments.start(await register(store, fan("each", at_once=1)), body=lines(1, 2))
        claimed = await payments.claim_one()
        await backend.pass_time(60)
        (lease,) = await store.ended_leases(NAMESPACE, timedelta(seconds=20), 10)
        assert (lease.key, lease.attempt) == (claimed.key, 1)
        await payments.end_lease(claimed)
        await backend.pass_time(2)
        again = await payments.claim_one()
        assert (again.key, again.attempt, again.input) == (claimed.key, 2, "1")

    async def test_a_pause_holds_all_items_and_the_resume_rings_for_them(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(await register(store, fan("each")), body=lines(1, 2, 3))
        first = (await payments.claim(1))[0]
        await payments.apply(workflow, PauseRequested())
        await payments.answer(first)
        assert await payments.claim() == []
        changes = moved(await payments.apply(workflow, ResumeRequested()))
        assert len(changes.queued) == 2
        assert len(await payments.claim()) == 2

    async def test_what_is_terminated_ends_its_items(self, store: Store, payments: Player) -> None:
        workflow = await payments.start(await register(store, fan("each")), body=lines(1, 2, 3))
        claimed = (await payments.claim(1))[0]
        await payments.apply(workflow, TerminateRequested("enough"))
        statuses = await statuses_of(payments, workflow)
        assert sorted(statuses) == [StepStatus.CANCELLED, StepStatus.FAILED, StepStatus.PENDING]
        assert await payments.answer(claimed) is Verdict.LATE

    async def test_items_are_skipped_and_retried_one_by_one(
        self, store: Store, payments: Player
    ) -> None:
        """Past a pivot there is no way back: a person helps the items that failed."""
        definition = await register(
            store, call("pay", pivot=True), fan("each", retry=ONE_TRY), call("end")
        )
        workflow = await payments.start(definition, body=lines(1, 2, 3, 4))
        await payments.answer(await payments.claim_one())
        first, second = sorted(await payments.claim(), key=lambda one: one.key)
        await payments.answer(first, refused())
        assert await payments.status(workflow) is WorkflowStatus.ERROR
        await payments.answer(second, refused())
        assert (await fan_of(payments, workflow)).failed == 2
        events = [RetryRequested(first.key), skip("each", '"by hand"', index=1)]
        members = [Transition(workflow, event) for event in events]
        result = await payments.commit(payments.batch(transitions=members))
        assert [verdict(one) for one in result.transitions] == [Verdict.APPLIED] * 2
        assert await payments.status(workflow) is WorkflowStatus.IN_PROGRESS
        while claims := await payments.claim():
            for one in claims:
                await payments.answer(one)
        assert await payments.status(workflow) is WorkflowStatus.COMPLETED
        found = await store.list_items(workflow, "each", -1, 10)
        assert [one.execute.attempt for one in found] == [2, 1, 1, 1]
        assert found[1].output == '"by hand"'
