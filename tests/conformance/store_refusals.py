"""Reruns of workflows that were terminated: what cannot be taken over, and what helps then."""

from __future__ import annotations

from typing import Any

from sidecar.errors import IllegalTransition
from sidecar.ports.store import Claimed, Moved, Started, Store
from sidecar.saga.events import Resolution, ResolveRequested, TerminateRequested
from sidecar.saga.states import StepStatus
from sidecar.saga.workflow import StepKey, WorkflowId
from tests.conformance.store_children import family, runs
from tests.conformance.store_debts import owed
from tests.conformance.store_fan_out import statuses_of
from tests.conformance.store_language import fan, lines
from tests.conformance.store_play import (
    Player,
    StoreFixtures,
    call,
    done,
    refused,
    register,
    start_of,
)
from tests.conformance.store_reruns import again

STOP = TerminateRequested("enough")


def by_hand(step: str, index: int = -1) -> ResolveRequested:
    """Somebody has undone an effect, and says so."""
    found = ("undone by hand", "ticket 7")
    return ResolveRequested(StepKey(step, index), Resolution.COMPENSATED, *found)


class TerminatedFixtures(StoreFixtures):
    """Workflows that were terminated, and their reruns."""

    async def rerun(self, player: Player, old: WorkflowId, **more: Any) -> WorkflowId:
        """Run a workflow again."""
        seen = await player.see(old)
        definition = more.pop("definition")
        start = again(start_of(definition, body=seen.input or "", **more), old)
        result = await player.commit(player.batch(starts=[start]))
        (started,) = result.starts
        assert isinstance(started, Started), started
        assert started.workflow == start.id
        return start.id

    async def refusal(self, player: Player, definition: Any, old: WorkflowId) -> str:
        """Why a workflow cannot be run again; nothing is written then."""
        before = await player.see(old)
        start = again(start_of(definition, start_key="k"), old)
        result = await player.commit(player.batch(starts=[start]))
        (answer,) = result.starts
        assert isinstance(answer, IllegalTransition)
        assert await player.store.get_workflow("default", start.id) is None
        assert await player.see(old) == before
        return answer.state

    async def stopped(self, store: Store, payments: Player) -> tuple[Any, WorkflowId, Claimed]:
        """One step done and a second called, when the workflow is terminated."""
        definition = await register(store, call("one"), call("two"), call("three"))
        old = await payments.start(definition)
        await payments.answer(await payments.claim_one(), done('{"id":1}'))
        calling = await payments.claim_one()
        await payments.apply(old, STOP)
        return definition, old, calling


class RefusalSuite(TerminatedFixtures):
    """What a store promises where `Start.rerun` cannot take everything over."""

    async def test_another_version_cannot_take_over(self, store: Store, payments: Player) -> None:
        _, old, _ = await self.stopped(store, payments)
        other = await register(store, call("one"))
        assert "same version" in await self.refusal(payments, other, old)
        for step in ("two", "one"):
            moved = await payments.apply(old, by_hand(step))
            assert isinstance(moved, Moved)
        assert await owed(store) == []
        new = await self.rerun(payments, old, definition=other)
        assert await payments.statuses(new) == {"one": StepStatus.QUEUED}

    async def test_what_cannot_be_handed_over_is_refused_until_it_is_undone_by_hand(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, fan("each"), call("last"))
        old = await payments.start(definition, body=lines("a", "b", "c"))
        first, _ = sorted(await payments.claim(), key=lambda one: one.key)
        await payments.answer(first)
        await payments.apply(old, STOP)
        assert "each cannot be taken over" in await self.refusal(payments, definition, old)
        await payments.apply(old, by_hand("each", 0))
        assert len(await owed(store)) == 1
        assert "each cannot be taken over" in await self.refusal(payments, definition, old)
        await payments.apply(old, by_hand("each", 1))
        assert await owed(store) == []
        assert (await payments.see_step(old, "each")).status is StepStatus.COMPENSATED
        new = await self.rerun(payments, old, definition=definition)
        assert await statuses_of(payments, new) == [StepStatus.QUEUED] * 2 + [StepStatus.PENDING]

    async def test_a_fan_out_with_an_item_undone_by_hand_is_refused_until_all_are(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, fan("each"), call("last"))
        old = await payments.start(definition, body=lines("a", "b"))
        for one in await payments.claim():
            await payments.answer(one)
        await payments.claim_one()
        await payments.apply(old, STOP)
        await payments.apply(old, by_hand("last"))
        await payments.apply(old, by_hand("each", 1))
        said = await self.refusal(payments, definition, old)
        assert "undone by hand; resolve the others (each[0])" in said
        await payments.apply(old, by_hand("each", 0))
        assert await owed(store) == []
        new = await self.rerun(payments, old, definition=definition)
        assert await statuses_of(payments, new) == [StepStatus.QUEUED] * 2

    async def test_what_is_half_undone_is_refused(self, store: Store, payments: Player) -> None:
        definition = await register(store, call("one"), call("two"))
        old = await payments.start(definition)
        await payments.answer(await payments.claim_one())
        await payments.answer(await payments.claim_one(), refused())
        await payments.claim_one()
        await payments.apply(old, STOP)
        said = await self.refusal(payments, definition, old)
        assert "step one" in said
        assert "undoing had begun" in said
        assert "`resolve`" in said
        await payments.apply(old, by_hand("one"))
        new = await self.rerun(payments, old, definition=definition)
        one = await payments.claim_one()
        assert (one.workflow, one.key.step, one.origin) == (new, "one", None)

    async def test_a_child_is_not_handed_over(self, store: Store, payments: Player) -> None:
        definition = await family(store, runs(), call("last"))
        old = await payments.start(definition)
        await payments.apply(old, STOP)
        assert "it ran a child" in await self.refusal(payments, definition, old)
