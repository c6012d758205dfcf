"""Turns of steps where there are many: items of fan-outs, and several members of one batch."""

from __future__ import annotations

import asyncio
from typing import Any

from sidecar.ports.store import Moved, Store, Transition
from sidecar.saga.changes import Verdict
from sidecar.saga.events import CancelRequested
from sidecar.saga.states import Action, StepStatus, WorkflowStatus
from sidecar.saga.turns import InLine, TurnKey
from tests.conformance.store_language import fan, lines
from tests.conformance.store_play import (
    Backend,
    Player,
    StoreFixtures,
    call,
    next_in,
    refused,
    register,
    settle,
)
from tests.conformance.store_step_turns import (
    ACME,
    BODY,
    NAMESPACE,
    PAY,
    admission,
    admit,
    admit_all,
    at_work,
    begun,
    holders,
    in_turn,
    next_are,
    paying,
)


class ManyTurnsSuite(StoreFixtures):
    """What a store promises about the turns of many steps at once."""

    # -- fan-outs -----------------------------------------------------------------------------

    async def test_items_take_turns_by_what_they_see_of_themselves(
        self, store: Store, payments: Player
    ) -> None:
        turns = {"key": "${string(each.item % 2)}"}
        definition = await register(store, fan("pay", 4, concurrency=turns))
        workflow = await payments.start(definition, body=lines(1, 2, 3, 4))
        items = await store.list_items(workflow, "pay", -1, 10)
        assert {one.status for one in items} == {StepStatus.WAITING}
        odd, even = ACME._replace(key='"1"'), ACME._replace(key='"0"')
        assert await store.free_turns(NAMESPACE, 10) == [even, odd]
        assert await admit_all(payments, odd) == ["pay[0]"]
        assert await admit_all(payments, even) == ["pay[1]"]
        claims = await payments.claim()
        await payments.commit(payments.batch(transitions=[settle(one) for one in claims]))
        assert await admit_all(payments, odd) == ["pay[2]"]
        assert await admit_all(payments, even) == ["pay[3]"]
        for one in await payments.claim():
            await payments.answer(one)
        assert await payments.status(workflow) is WorkflowStatus.COMPLETED
        assert await holders(store, odd) == []

    async def test_items_of_a_fan_out_that_fails_leave_nobody_in_the_line(
        self, store: Store, payments: Player
    ) -> None:
        turns = {"key": "one for all", "limit": 2}
        definition = await register(store, fan("pay", 4, concurrency=turns))
        workflow = await payments.start(definition, body=lines(1, 2, 3, 4, 5))
        turn = ACME._replace(key='"one for all"')
        assert await admit_all(payments, turn) == ["pay[0]", "pay[1]"]
        first, second = sorted(await payments.claim(), key=lambda one: one.key)
        await payments.answer(first, refused())
        assert await next_in(store, turn) == []
        assert await holders(store, turn) == [InLine(workflow, second.key)]
        await payments.answer(second)
        assert await holders(store, turn) == []
        undo = await payments.claim_one()
        assert undo.action is Action.COMPENSATE
        await payments.answer(undo)
        assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK
        assert await store.free_turns(NAMESPACE, 10) == []

    # -- several at once ----------------------------------------------------------------------

    async def test_of_two_steps_that_are_admitted_at_once_one_has_the_place(
        self, store: Store, payments: Player, inventory: Player
    ) -> None:
        first, second = await begun(payments, await paying(store), 2)
        verdicts = await asyncio.gather(admit(payments, first), admit(inventory, second))
        assert sorted(verdicts) == [Verdict.APPLIED, Verdict.IGNORED]
        assert len(await holders(store)) == 1

    async def test_one_batch_takes_no_more_places_than_there_are(
        self, store: Store, payments: Player
    ) -> None:
        some = await begun(payments, await paying(store, limit=2), 4)
        batch = payments.batch(transitions=[admission(one) for one in some])
        found = [one.changes.verdict for one in _moved(await payments.commit(batch))]
        assert found == [Verdict.APPLIED] * 2 + [Verdict.IGNORED] * 2
        assert await holders(store) == [InLine(one, PAY) for one in some[:2]]

    async def test_who_finds_no_place_is_overtaken_by_nobody_in_his_batch(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        """Versions differ in how many may: the place is free for the next, but not his to take."""
        wide, narrow = await paying(store, limit=5), await paying(store)
        some = []
        for definition in (wide, narrow, wide, wide):
            some += await begun(payments, definition)
            await backend.pass_time(1)
        assert await next_are(store, some[0])
        batch = payments.batch(transitions=[admission(one) for one in some])
        found = [one.changes.verdict for one in _moved(await payments.commit(batch))]
        assert found == [Verdict.APPLIED] + [Verdict.IGNORED] * 3
        assert await holders(store) == [InLine(some[0], PAY)]
        await payments.apply(some[1], CancelRequested())
        assert await next_are(store, *some[2:])

    async def test_many_keys_are_asked_for_at_once_in_the_order_in_which_they_are_given(
        self, store: Store, payments: Player
    ) -> None:
        definition = await paying(store, limit=2)
        keys = [ACME._replace(key=f'"{name}"') for name in ("b", "none", "a")]
        lines: dict[TurnKey, list[InLine]] = {}
        for key in (keys[0], keys[2]):
            body = f'{{"account":{key.key}}}'
            lines[key] = [
                InLine(await payments.start(definition, body=body), PAY) for _ in range(2)
            ]
        found = [(key, one) for key, line in lines.items() for one in line]
        assert list(await store.next_turns(keys, 10)) == found
        assert list(await store.next_turns(keys, 3)) == found[:3]
        first = lines[keys[0]][0]
        assert list(await store.next_turns(keys[:1], 9, without=[first.workflow])) == found[1:2]
        assert list(await store.next_turns([], 10)) == []

    async def test_one_that_is_passed_over_leaves_his_place_to_the_next(
        self, store: Store, payments: Player
    ) -> None:
        first, second = await begun(payments, await paying(store), 2)
        assert await next_are(store, first)
        found = await store.next_turns([ACME], 10, without=[first])
        assert list(found) == [(ACME, InLine(second, PAY))]

    async def test_keys_with_a_place_are_told_page_by_page(
        self, store: Store, payments: Player
    ) -> None:
        definition = await paying(store)
        for number in range(7):
            await payments.start(definition, body=f'{{"account":"{number}"}}')
        pages, after = [], None
        while page := await store.free_turns(NAMESPACE, 3, after):
            pages.append(len(page))
            after = page[-1]
            assert not {one.key for one in page} - {f'"{number}"' for number in range(7)}
        assert pages == [3, 3, 1]
        assert len(await store.free_turns(NAMESPACE, 10)) == 7

    async def test_who_is_admitted_and_stopped_by_one_batch_keeps_no_place(
        self, store: Store, payments: Player
    ) -> None:
        first, second, third = await begun(payments, await paying(store), 3)
        members = [
            admission(first),
            Transition(first, CancelRequested(), wait=True),
            admission(second),
        ]
        found = _moved(await payments.commit(payments.batch(transitions=members)))
        assert [one.changes.verdict for one in found] == [Verdict.APPLIED] * 3
        assert await payments.status(first) is WorkflowStatus.ROLLED_BACK
        assert await holders(store) == [InLine(second, PAY)]
        await payments.answer(await payments.claim_one())
        assert await next_are(store, third)

    async def test_one_batch_may_bring_a_step_to_its_end_and_the_next_to_its_turn(
        self, store: Store, payments: Player
    ) -> None:
        claimed, (_, second) = await at_work(payments, await paying(store))
        batch = payments.batch(transitions=[settle(claimed), admission(second)])
        found = _moved(await payments.commit(batch))
        assert [one.changes.verdict for one in found] == [Verdict.APPLIED] * 2
        assert await holders(store) == [InLine(second, PAY)]

    async def test_a_step_that_begins_to_wait_and_ends_in_one_batch_leaves_nothing(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("buy"), in_turn())
        workflow = await payments.start(definition, body=BODY)
        claimed = await payments.claim_one()
        cancel = Transition(workflow, CancelRequested(), wait=True)
        batch = payments.batch(transitions=[settle(claimed), cancel])
        await payments.commit(batch)
        assert (await payments.statuses(workflow))["pay"] is StepStatus.CANCELLED
        assert await store.free_turns(NAMESPACE, 10) == []
        assert await next_are(store)

    async def test_an_admission_in_doubt_is_done_once(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        first, second = await begun(payments, await paying(store), 2)
        batch = payments.batch(transitions=[admission(first)])
        await backend.lose_answer(store, batch)
        await payments.commit(batch)
        assert await holders(store) == [InLine(first, PAY)]
        assert await admit(payments, second) is Verdict.IGNORED


def _moved(result: Any) -> list[Moved]:
    assert all(isinstance(one, Moved) for one in result.transitions), result.transitions
    return list(result.transitions)
