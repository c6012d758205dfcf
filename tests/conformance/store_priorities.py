"""Priorities: who is claimed, rung for and admitted first, and that nobody waits for ever."""

from __future__ import annotations

from datetime import timedelta

from sidecar.ports.records import Ringable
from sidecar.ports.store import Store
from sidecar.saga.priority import AGEING
from sidecar.saga.turns import InLine
from sidecar.saga.workflow import StepKey, WorkflowId
from tests.conformance.store_language import fan, lines
from tests.conformance.store_play import (
    RETRY_ONCE,
    Backend,
    Player,
    StoreFixtures,
    call,
    next_in,
    register,
    start_of,
    unknown,
)

SOON = timedelta(seconds=1)
LEVEL = AGEING.total_seconds()


class PrioritySuite(StoreFixtures):
    """What the order of claims promises."""

    async def test_of_what_is_due_the_more_urgent_is_claimed_first(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        begun = {}
        for priority in (0, 3, 9, 5):
            definition = await register(store, call("charge", priority=priority))
            begun[priority] = await payments.start(definition)
            await backend.pass_time(1)
        claimed = [(await payments.claim(1))[0].workflow for _ in begun]
        assert claimed == [begun[9], begun[5], begun[3], begun[0]]

    async def test_one_that_has_waited_long_enough_goes_before_a_more_urgent_one(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        patient = await payments.start(await register(store, call("charge")))
        await backend.pass_time(2 * LEVEL + 1)
        urgent = await register(store, call("charge", priority=2))
        more_urgent = await register(store, call("charge", priority=3))
        second, first = await payments.start(urgent), await payments.start(more_urgent)
        claimed = [(await payments.claim(1))[0].workflow for _ in range(3)]
        assert claimed == [first, patient, second]

    async def test_urgent_or_not_nothing_is_claimed_before_it_is_due(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        retry = {**RETRY_ONCE, "initial_interval": "8s"}
        definition = await register(store, call("charge", priority=9, retry=retry))
        workflow = await payments.start(definition)
        await payments.answer(await payments.claim_one(), unknown())
        other = await payments.start(await register(store, call("charge")))
        assert [one.workflow for one in await payments.claim()] == [other]
        await backend.pass_time(9)
        late = await payments.start(await register(store, call("charge")))
        claimed = [(await payments.claim(1))[0].workflow for _ in range(2)]
        assert claimed == [workflow, late]

    async def test_a_step_without_one_has_the_priority_of_its_definition(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        plain = await payments.start(await register(store, call("charge")))
        await backend.pass_time(1)
        none = await register(store, call("charge", priority=0), priority=8)
        await payments.start(none)
        await backend.pass_time(1)
        inherits = await payments.start(await register(store, call("charge"), priority=8))
        claimed = [(await payments.claim(1))[0].workflow for _ in range(2)]
        assert claimed == [inherits, plain]

    async def test_items_that_are_queued_later_have_the_priority_of_their_step(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(
            store, call("first", "inventory"), fan("each", priority=7), call("last", priority=1)
        )
        inventory = Player(store, "inventory")
        workflow = await payments.start(definition, body=lines(1, 2))
        await payments.start(await register(store, call("charge", priority=6)))
        await inventory.answer(await inventory.claim_one())
        items = await payments.claim(2)
        assert [one.key for one in items] == [StepKey("each", 0), StepKey("each", 1)]
        assert {one.workflow for one in items} == {workflow}

    async def test_the_leader_rings_for_the_most_urgent_first_page_by_page(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        begun: list[WorkflowId] = []
        for priority in (0, 9, 4, 0, 9):
            begun.append(
                await payments.start(await register(store, call("charge", priority=priority)))
            )
            await backend.pass_time(2)
        await payments.beat()
        found: list[Ringable] = []
        after: dict[str, Ringable] = {}
        unseen = timedelta(hours=1)
        while page := await store.ringable_steps("default", unseen, SOON, 2, after):
            found += page
            after = {"payments": page[-1]}
        order = [begun.index(one.doorbell.workflow) for one in found]
        assert order == [1, 4, 2, 0, 3]
        for one in found:
            assert timedelta() <= one.due_at - one.rank <= 9 * AGEING

    async def test_of_those_that_wait_for_a_turn_the_most_urgent_is_admitted_first(
        self, store: Store, payments: Player
    ) -> None:
        keys = {"key": "${input.amount}", "limit": 1}
        waiting = []
        for priority in (0, 2, 9):
            definition = await register(store, call("a"), concurrency=keys, priority=priority)
            one = start_of(definition)
            await payments.commit(payments.batch(starts=[one]))
            waiting.append(one.id)
        (turn,) = await store.free_turns("default", 10)
        assert list(await next_in(store, turn)) == [InLine(waiting[2])]

    async def test_of_steps_that_wait_for_a_turn_the_most_urgent_is_admitted_first(
        self, store: Store, payments: Player
    ) -> None:
        """By the priority of the step, which need not be the one of its workflow."""
        keys = {"key": "${input.amount}", "limit": 1}
        waiting = []
        for priority in (4, 8, 6):
            step = call("charge", concurrency=keys, priority=priority)
            waiting.append(await payments.start(await register(store, step, priority=5)))
        (turn,) = await store.free_turns("default", 10)
        assert list(await next_in(store, turn)) == [InLine(waiting[1], StepKey("charge"))]
