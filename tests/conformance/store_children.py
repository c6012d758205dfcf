"""Children: started with what started them, and letters that are kept until they are brought."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from sidecar.errors import StoreDataError
from sidecar.ports.store import LetterId, Moved, Store, Transition
from sidecar.saga.changes import Changes, Verdict
from sidecar.saga.children import child_id
from sidecar.saga.events import CancelRequested, ChildTold, RetryRequested
from sidecar.saga.states import StepStatus, WorkflowStatus
from sidecar.saga.workflow import StepKey, WorkflowId
from tests.conformance.store_language import moved
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
)

UNSEEN = timedelta(seconds=20)
AT_ONCE = timedelta()
PAY = StepKey("pay")


def runs(name: str = "pay", **more: Any) -> dict[str, Any]:
    """A step that runs the definition `child`."""
    return {"name": name, "workflow": "child", "version": 1, **more}


async def family(store: Store, *steps: dict[str, Any]) -> Any:
    """A definition with a child, after that child."""
    await register(store, call("a"), name="child", output="${steps.a.output}")
    return await register(store, *steps)


async def bring_all(player: Player) -> list[Changes]:
    """Bring all letters that wait."""
    brought = []
    while letters := await player.store.waiting_letters(NAMESPACE, AT_ONCE, 10):
        for one in letters:
            known = LetterId(one.sender, one.revision, one.letter.to)
            member = Transition(one.letter.to, one.letter.event, letter=known)
            result = await player.commit(player.batch(transitions=[member]))
            (found,) = result.transitions
            assert isinstance(found, Moved)
            brought.append(found.changes)
    return brought


class ChildSuite(StoreFixtures):
    """What a store promises about children."""

    async def test_a_child_at_the_root_begins_with_its_parent(
        self, store: Store, payments: Player
    ) -> None:
        start = start_of(await family(store, runs(), call("ship")), body='{"order":1}')
        result = await payments.commit(payments.batch(starts=[start]))
        child = child_id(start.id, PAY)
        (begun,) = result.children
        assert begun.workflow.id == child
        assert [step.key.step for step in begun.queued] == ["a"]
        seen = await payments.see(child)
        assert (seen.input, seen.status) == ('{"order":1}', WorkflowStatus.IN_PROGRESS)
        assert seen.parent is not None
        assert (seen.parent.workflow, seen.parent.step) == (start.id, PAY)
        assert (seen.parent.root, seen.parent.depth) == (start.id, 1)
        assert (await payments.see(start.id)).parent is None
        assert [one.actor for one in await payments.events(child)] == ["parent", "parent"]

    async def test_a_child_begins_with_the_settlement_before_it_and_ends_its_step(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(
            await family(store, call("charge"), runs(input={"of": "${steps.charge.output}"}))
        )
        charged = await payments.claim_one()
        result = await payments.commit(payments.batch(transitions=[settle(charged)]))
        assert [one.workflow.id for one in result.children] == [child_id(workflow, PAY)]
        claimed = await payments.claim_one()
        assert claimed.workflow == child_id(workflow, PAY)
        assert claimed.input == '{"of":{"ok":true}}'
        await payments.answer(claimed, done('{"paid":5}'))
        assert await payments.status(workflow) is WorkflowStatus.IN_PROGRESS
        await bring_all(payments)
        paid = await payments.see_step(workflow, "pay")
        assert (paid.status, paid.output) == (StepStatus.SUCCEEDED, '{"paid":5}')
        assert await payments.status(workflow) is WorkflowStatus.COMPLETED

    async def test_a_child_that_its_input_ends_at_once_tells_its_parent(
        self, store: Store, payments: Player
    ) -> None:
        wants = {"schema": {"type": "object", "required": ["amount"]}}
        await register(store, call("a"), name="child", input=wants)
        parent = await register(store, call("charge"), runs(input={"sum": 1}))
        workflow = await payments.start(parent)
        await payments.answer(await payments.claim_one())
        assert await payments.status(child_id(workflow, PAY)) is WorkflowStatus.ROLLED_BACK
        await bring_all(payments)
        paid = await payments.see_step(workflow, "pay")
        assert paid.status is StepStatus.FAILED
        assert "input_invalid" in (paid.error or "")
        assert await payments.status(workflow) is WorkflowStatus.ROLLING_BACK

    async def test_what_a_child_gives_is_held_against_the_schema_of_its_step(
        self, store: Store, payments: Player
    ) -> None:
        wants = {"type": "object", "required": ["paid"]}
        workflow = await payments.start(await family(store, runs(output_schema=wants)))
        await payments.answer(await payments.claim_one(), done('{"owed":5}'))
        await bring_all(payments)
        paid = await payments.see_step(workflow, "pay")
        assert (paid.status, paid.may_have_effect) == (StepStatus.COMPENSATING, True)
        assert "output_invalid" in (paid.error or "")
        child = child_id(workflow, PAY)
        assert await payments.status(child) is WorkflowStatus.ROLLING_BACK

    async def test_a_letter_waits_until_it_is_brought_and_is_brought_once(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        workflow = await payments.start(await family(store, runs(), call("ship")))
        await payments.answer(await payments.claim_one())
        later = timedelta(seconds=2)
        assert await store.waiting_letters(NAMESPACE, later, 10) == []
        assert not (await store.leader_work(NAMESPACE, UNSEEN, None)).waiting_letters
        await backend.pass_time(3)
        assert (await store.leader_work(NAMESPACE, UNSEEN, None)).waiting_letters
        assert await store.waiting_letters("elsewhere", later, 10) == []
        (letter,) = await store.waiting_letters(NAMESPACE, later, 10)
        assert (letter.sender, letter.letter.to) == (child_id(workflow, PAY), workflow)
        member = Transition(
            workflow,
            letter.letter.event,
            letter=LetterId(letter.sender, letter.revision, workflow),
        )
        for verdict in (Verdict.APPLIED, Verdict.DUPLICATE):
            result = await payments.commit(payments.batch(transitions=[member]))
            assert moved(result.transitions[0]).verdict is verdict
            assert await store.waiting_letters(NAMESPACE, AT_ONCE, 10) == []

    async def test_a_parent_that_turns_back_has_its_child_undone(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(await family(store, runs(), call("ship")))
        await payments.answer(await payments.claim_one())
        await bring_all(payments)
        await payments.answer(await payments.claim_one(), refused())
        assert (await payments.see_step(workflow, "pay")).status is StepStatus.COMPENSATING
        await bring_all(payments)
        child = child_id(workflow, PAY)
        back = await payments.see(child)
        assert (back.status, back.ended_at) == (WorkflowStatus.ROLLING_BACK, None)
        await payments.answer(await payments.claim_one())
        await bring_all(payments)
        assert await payments.status(child) is WorkflowStatus.ROLLED_BACK
        assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK

    async def test_the_error_of_a_child_is_that_of_its_step(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(await family(store, runs(), call("ship")))
        await payments.answer(await payments.claim_one(), refused())
        await bring_all(payments)
        paying = await payments.see_step(workflow, "pay")
        assert paying.status is StepStatus.FAILED
        assert '"step": "a"' in str(paying.error)
        assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK

    async def test_items_may_be_children(self, store: Store, payments: Player) -> None:
        fan = runs(for_each="${input.lines}", max_parallel=1)
        workflow = await payments.start(
            await family(store, fan, call("ship", input={"all": "${steps.pay.output}"})),
            body='{"lines":[1,2,3]}',
        )
        for number in range(3):
            await payments.answer(await payments.claim_one(), done(f'{{"n":{number}}}'))
            await bring_all(payments)
        shipping = await payments.claim_one()
        assert shipping.workflow == workflow
        assert shipping.input == '{"all":[{"n":0},{"n":1},{"n":2}]}'

    async def test_a_cancel_of_the_parent_reaches_what_its_child_has_queued(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(await family(store, runs()))
        await payments.apply(workflow, CancelRequested())
        await bring_all(payments)
        assert await payments.claim() == []
        for one in (workflow, child_id(workflow, PAY)):
            assert await payments.status(one) is WorkflowStatus.ROLLED_BACK

    async def test_a_start_that_is_repeated_begins_no_second_child(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        start = start_of(await family(store, runs()))
        batch = payments.batch(starts=[start])
        await backend.lose_answer(store, batch)
        await payments.commit(batch)
        child = child_id(start.id, PAY)
        assert [one.step for one in await payments.events(child)].count("a") == 1
        assert isinstance(child, str)
        assert WorkflowId(child) == child

    async def test_more_children_than_one_transaction_can_start_are_refused(
        self, store: Store, payments: Player
    ) -> None:
        """It would last too long, and be offered again for ever, with all others of its batch."""
        many: dict[str, Any] = {"for_each": list(range(70)), "max_parallel": 70}
        await family(store, runs(**many))
        definition = await register(
            store, {**runs(**many), "workflow": "order"}, call("b"), name="top"
        )
        begun = start_of(definition)
        with pytest.raises(StoreDataError, match="children"):
            await payments.commit(payments.batch(starts=[begun]))
        assert await store.get_workflow(NAMESPACE, begun.id) is None

    async def test_a_child_that_was_rolled_back_past_a_pivot_is_begun_anew(
        self, store: Store, payments: Player
    ) -> None:
        definition = await family(store, call("buy", pivot=True), runs(), call("last"))
        workflow = await payments.start(definition)
        await payments.answer(await payments.claim_one())
        await payments.answer(await payments.claim_one(), refused())
        await bring_all(payments)
        assert await payments.status(workflow) is WorkflowStatus.ERROR
        result = await payments.commit(
            payments.batch(transitions=[Transition(workflow, RetryRequested(PAY, "mended"))])
        )
        again = child_id(workflow, PAY, 1)
        assert [one.workflow.id for one in result.children] == [again]
        claimed = await payments.claim_one()
        assert (claimed.workflow, claimed.input) == (again, '{"amount":5}')
        early = ChildTold(PAY, WorkflowStatus.ROLLED_BACK, child=child_id(workflow, PAY))
        late = await payments.apply(workflow, early)
        assert moved(late).verdict is Verdict.LATE
        told = (await payments.events(workflow))[-1]
        assert (told.kind, told.cause, told.step) == ("child", "late", "pay")
        await payments.answer(claimed, done("7"))
        await bring_all(payments)
        assert (await payments.see_step(workflow, "pay")).output == "7"
        assert (await payments.claim_one()).key.step == "last"
