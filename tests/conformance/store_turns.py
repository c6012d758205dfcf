"""Turns: workflows with the same key wait for a place, and never more than may have one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sidecar.errors import IllegalTransition
from sidecar.ports.store import Missing, Moved, Store, Transition
from sidecar.saga.changes import Verdict
from sidecar.saga.events import Admitted, CancelRequested, RetryRequested
from sidecar.saga.states import WorkflowStatus
from sidecar.saga.turns import InLine, TurnKey
from sidecar.saga.workflow import WorkflowId
from tests.conformance.store_play import (
    NAMESPACE,
    Player,
    StoreFixtures,
    call,
    next_in,
    refused,
    register,
)

UNSEEN = timedelta(seconds=20)
ACCOUNT = TurnKey(NAMESPACE, "order", '"acme"')
BODY = '{"account":"acme"}'


async def taking_turns(store: Store, limit: int = 1, **more: Any) -> Any:
    """A definition whose workflows take turns by account."""
    turns = {"key": "${input.account}", "limit": limit, **more}
    return await register(store, call("a"), concurrency=turns)


async def admit(player: Player, workflow: WorkflowId, turn: TurnKey = ACCOUNT) -> Verdict:
    """Try to admit one workflow."""
    member = Transition(workflow, Admitted(), turn=turn)
    result: object = Missing.LOCKED
    while result is Missing.LOCKED:  # somebody else counts the places of this key just now
        (result,) = (await player.commit(player.batch(transitions=[member]))).transitions
    assert isinstance(result, Moved)
    return result.changes.verdict


async def following(store: Store, turn: TurnKey = ACCOUNT) -> list[WorkflowId]:
    """The workflows that can be admitted now."""
    return whole(await next_in(store, turn))


async def placed(store: Store, turn: TurnKey = ACCOUNT) -> list[WorkflowId]:
    """The workflows that have the places."""
    return whole([one.who for one in await store.turn_holders(turn)])


def whole(found: Sequence[InLine]) -> list[WorkflowId]:
    assert all(one.step is None for one in found)
    return [one.workflow for one in found]


class TurnSuite(StoreFixtures):
    """What a store promises about turns."""

    async def test_a_workflow_waits_until_it_is_admitted(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(await taking_turns(store), body=BODY)
        seen = await payments.see(workflow)
        assert (seen.status, seen.turn) == (WorkflowStatus.QUEUED, ('"acme"', 1))
        assert await payments.claim() == []
        assert (await store.leader_work(NAMESPACE, UNSEEN, None)).free_turns
        assert await store.free_turns(NAMESPACE, 10) == [ACCOUNT]
        assert await following(store) == [workflow]
        assert await admit(payments, workflow) is Verdict.APPLIED
        assert await admit(payments, workflow) is Verdict.IGNORED
        assert await placed(store) == [workflow]
        assert await store.free_turns(NAMESPACE, 10) == []
        await payments.answer(await payments.claim_one())
        assert await payments.status(workflow) is WorkflowStatus.COMPLETED
        assert await placed(store) == []

    async def test_the_oldest_comes_next_when_a_place_is_given_back(
        self, store: Store, payments: Player
    ) -> None:
        definition = await taking_turns(store, limit=2)
        some = [await payments.start(definition, body=BODY) for _ in range(4)]
        other = await payments.start(definition, body='{"account":"other"}')
        assert await following(store) == some[:2]
        for one in some[:2]:
            assert await admit(payments, one) is Verdict.APPLIED
        assert await admit(payments, some[2]) is Verdict.IGNORED
        assert await payments.status(some[2]) is WorkflowStatus.QUEUED
        assert await following(store) == []
        assert await admit(payments, other, ACCOUNT._replace(key='"other"')) is Verdict.APPLIED
        await payments.apply(some[1], CancelRequested())
        assert await following(store) == [some[2]]
        assert await admit(payments, some[2]) is Verdict.APPLIED

    async def test_who_is_cancelled_while_waiting_took_no_place(
        self, store: Store, payments: Player
    ) -> None:
        definition = await taking_turns(store)
        first, second = [await payments.start(definition, body=BODY) for _ in range(2)]
        await payments.apply(first, CancelRequested())
        assert await payments.status(first) is WorkflowStatus.ROLLED_BACK
        assert await following(store) == [second]

    async def test_an_error_keeps_the_place_unless_it_is_to_be_released(
        self, store: Store, payments: Player
    ) -> None:
        for release in (False, True):
            turns = {"key": "${input.account}", "release_on_error": release}
            definition = await register(
                store,
                call("a", compensate={"path": "/undo/a", "retry": {"max_attempts": 1}}),
                call("b"),
                name=f"order_{release}".lower(),
                concurrency=turns,
            )
            turn = TurnKey(NAMESPACE, definition.name, '"acme"')
            workflow = await payments.start(definition, body=BODY)
            await admit(payments, workflow, turn)
            await payments.answer(await payments.claim_one())
            await payments.answer(await payments.claim_one(), refused())
            await payments.answer(await payments.claim_one(), refused())
            assert await payments.status(workflow) is WorkflowStatus.ERROR
            assert await placed(store, turn) == ([] if release else [workflow])

    async def test_one_that_gave_its_place_back_goes_on_without_one(
        self, store: Store, payments: Player
    ) -> None:
        turns = {"key": "${input.account}", "release_on_error": True}
        definition = await register(
            store, call("pay", pivot=True), call("tell"), name="order", concurrency=turns
        )
        first, second = [await payments.start(definition, body=BODY) for _ in range(2)]
        await admit(payments, first)
        await payments.answer(await payments.claim_one())
        await payments.answer(await payments.claim_one(), refused())
        assert await payments.status(first) is WorkflowStatus.ERROR
        assert await admit(payments, second) is Verdict.APPLIED
        await payments.apply(first, RetryRequested())
        assert await payments.status(first) is WorkflowStatus.IN_PROGRESS
        assert await placed(store) == [second]
        again = next(one for one in await payments.claim() if one.workflow == first)
        await payments.answer(again)
        assert await payments.status(first) is WorkflowStatus.COMPLETED
        assert await placed(store) == [second]

    async def test_a_key_that_cannot_be_rendered_ends_the_workflow_at_once(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(await taking_turns(store), body="{}")
        seen = await payments.see(workflow)
        assert seen.status is WorkflowStatus.ROLLED_BACK
        assert "concurrency.key" in str(seen.error)

    async def test_two_who_admit_at_once_take_one_place(
        self, store: Store, payments: Player, inventory: Player
    ) -> None:
        definition = await taking_turns(store)
        some = [await payments.start(definition, body=BODY) for _ in range(2)]
        verdicts = await asyncio.gather(admit(payments, some[0]), admit(inventory, some[1]))
        assert sorted(verdicts) == [Verdict.APPLIED, Verdict.IGNORED]
        assert len(await placed(store)) == 1

    async def test_a_retry_of_one_that_waits_says_for_what_and_who_could_make_way(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(await taking_turns(store, limit=2), body=BODY)
        found = await payments.apply(workflow, RetryRequested())
        assert isinstance(found, IllegalTransition)
        assert 'workflow is waiting for its turn, 2 at a time with the key "acme"' in str(found)
        assert "`waiting_on` names them" in str(found)

    async def test_who_is_admitted_and_ended_by_one_batch_keeps_no_place(
        self, store: Store, payments: Player
    ) -> None:
        definition = await taking_turns(store)
        first, second = [await payments.start(definition, body=BODY) for _ in range(2)]
        members = [
            Transition(first, Admitted(), turn=ACCOUNT),
            Transition(first, CancelRequested(), wait=True),
        ]
        result = await payments.commit(payments.batch(transitions=members))
        assert all(isinstance(one, Moved) for one in result.transitions)
        assert await payments.status(first) is WorkflowStatus.ROLLED_BACK
        assert await placed(store) == []
        assert await following(store) == [second]

    async def test_a_key_that_is_too_long_ends_the_workflow_at_once(
        self, store: Store, payments: Player
    ) -> None:
        """An index could not hold it, and nobody could read it."""
        definition = await taking_turns(store)
        account = "".join(chr(0x4E00 + at * 7919 % 20_000) for at in range(5_000))
        workflow = await payments.start(definition, body=json.dumps({"account": account}))
        seen = await payments.see(workflow)
        assert (seen.status, seen.turn) == (WorkflowStatus.ROLLED_BACK, None)
        assert "concurrency.key" in str(seen.error)

    async def test_the_first_who_waits_says_how_many_places_there_are(
        self, store: Store, payments: Player
    ) -> None:
        """Nobody is offered a place that he could not take, and nobody overtakes him."""
        narrow = await taking_turns(store)
        some = [await payments.start(narrow, body=BODY) for _ in range(2)]
        later = await payments.start(await taking_turns(store, limit=2), body=BODY)
        await admit(payments, some[0])
        assert await following(store) == []
        assert await store.free_turns(NAMESPACE, 10) == []
        assert not (await store.leader_work(NAMESPACE, UNSEEN, None)).free_turns
        await payments.apply(some[1], CancelRequested())
        assert await following(store) == [later]
        assert await store.free_turns(NAMESPACE, 10) == [ACCOUNT]
