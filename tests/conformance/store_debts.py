"""What is owed: since when, by whom, until it is undone; and rollbacks to be looked at again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from sidecar.ports.debts import Debt, DebtTotals
from sidecar.ports.store import Claimed, Moved, Store
from sidecar.saga.events import (
    Resolution,
    ResolveRequested,
    RollbackReviewed,
    TerminateRequested,
)
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.states import StepStatus, WorkflowStatus
from sidecar.saga.workflow import StepKey, WorkflowId
from tests.conformance.store_play import (
    Backend,
    Player,
    StoreFixtures,
    assert_utc,
    call,
    refused,
    register,
    settle,
    start_of,
    unknown,
)

HOUR = timedelta(hours=1)


async def owed(store: Store, service: str | None = None) -> Sequence[Debt]:
    """All that is owed, as the leader was told."""
    found = await store.list_debts("default", service, None, 100)
    if service is None:
        work = await store.leader_work("default", HOUR, None)
        assert work.debts == bool(found)
    return found


async def counted(store: Store, older_than: timedelta = HOUR) -> dict[str, tuple[int, int]]:
    """The totals by step."""
    found: DebtTotals = await store.debt_totals("default", older_than, 100)
    assert not found.more
    return {one.step: (one.count, one.overdue) for one in found.totals}


class DebtSuite(StoreFixtures):
    """What a store promises of what is owed."""

    async def turned_back(self, store: Store, payments: Player, **more: Any) -> WorkflowId:
        """A workflow of which two steps were done and the third was refused."""
        definition = await register(store, call("one"), call("two"), call("three"), **more)
        workflow = await payments.start(definition)
        for outcome in (None, None, refused()):
            await payments.answer(await payments.claim_one(), outcome)
        return workflow

    async def test_nothing_is_owed_on_the_way_forward(self, store: Store, payments: Player) -> None:
        workflow = await payments.start(await register(store, call("one"), call("two")))
        await payments.answer(await payments.claim_one())
        assert await owed(store) == []
        assert (await payments.see(workflow)).owes_since is None
        await payments.answer(await payments.claim_one())
        assert await owed(store) == []

    async def test_what_was_done_is_owed_from_the_turning_back_until_it_is_undone(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await self.turned_back(store, payments)
        found = await owed(store)
        assert [(one.place.key.step, one.status) for one in found] == [
            ("one", StepStatus.SUCCEEDED),
            ("two", StepStatus.COMPENSATING),
        ]
        first = found[0]
        since = (await payments.see(workflow)).owes_since
        assert (first.place.workflow, first.place.since) == (workflow, since)
        assert_utc(since)
        assert (first.service, first.workflow_status) == ("payments", WorkflowStatus.ROLLING_BACK)
        assert first.definition == ("default", "order", 1)
        assert await counted(store) == {"one": (1, 0), "two": (1, 0)}
        await payments.answer(await payments.claim_one())
        assert (await payments.see(workflow)).owes_since == since
        assert [one.place.key.step for one in await owed(store)] == ["one"]
        await payments.answer(await payments.claim_one())
        assert await owed(store) == []
        assert (await payments.see(workflow)).owes_since is None

    async def test_what_cannot_be_undone_is_told_apart_with_its_age(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        workflow = await self.turned_back(store, payments)
        failed = Outcome(OutcomeKind.REFUSED, error=refused().error)
        await payments.answer(await payments.claim_one(), failed)
        await backend.pass_time(2 * 3600)
        found = await store.debt_totals("default", HOUR, 100)
        kinds = {one.step: (one.failed, one.count, one.overdue) for one in found.totals}
        assert kinds == {"one": (False, 1, 1), "two": (True, 1, 1)}
        assert {one.service for one in found.totals} == {"payments"}
        assert await counted(store, 3 * HOUR) == {"one": (1, 0), "two": (1, 0)}
        (_, two) = await owed(store)
        assert (two.workflow_status, two.status) == (
            WorkflowStatus.ERROR,
            StepStatus.COMPENSATION_FAILED,
        )
        assert two.error is not None
        event = ResolveRequested(StepKey("two"), Resolution.COMPENSATED, "seen", "the books")
        assert isinstance(await payments.apply(workflow, event), Moved)
        await payments.answer(await payments.claim_one())
        assert await owed(store) == []
        assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK

    async def test_an_unknown_effect_is_owed_like_a_known_one(
        self, store: Store, payments: Player
    ) -> None:
        once = {"max_attempts": 1}
        workflow = await payments.start(await register(store, call("one", retry=once)))
        await payments.answer(await payments.claim_one(), unknown())
        (found,) = await owed(store)
        assert (found.place.workflow, found.status) == (workflow, StepStatus.COMPENSATING)

    async def test_a_terminated_workflow_owes_what_it_had_done(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("one"), call("two"), call("three"))
        workflow = await payments.start(definition)
        await payments.answer(await payments.claim_one())
        held = await payments.claim_one()
        await payments.apply(workflow, TerminateRequested("enough"))
        assert [(one.place.key.step, one.workflow_status) for one in await owed(store)] == [
            ("one", WorkflowStatus.TERMINATED),
            ("two", WorkflowStatus.TERMINATED),
        ]
        await backend.pass_time(60)
        await payments.answer(held)
        assert len(await owed(store)) == 2

    async def test_what_has_nothing_to_undo_is_for_the_asker_to_leave_out(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, {**call("look"), "compensate": "none"}, call("two"))
        workflow = await payments.start(definition)
        await payments.answer(await payments.claim_one())
        await payments.answer(await payments.claim_one(), refused())
        assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK
        assert (await payments.see(workflow)).owes_since is None
        assert await owed(store) == []

    async def test_a_fan_out_is_told_by_its_items(self, store: Store, payments: Player) -> None:
        items = call("one", for_each="${input.lines}", max_parallel=2)
        definition = await register(store, items, call("two"))
        start = start_of(definition, body='{"lines":[1,2,3]}')
        await store.commit(payments.batch(starts=[start]))
        for outcome in (None, None, None, refused()):
            # Straight to the store: its items are not in what the judge gets to see.
            claimed = (await store.commit(payments.batch(due=1))).claimed
            await store.commit(payments.batch(transitions=[settle(claimed[0], outcome)]))
        found = await owed(store)
        assert [str(one.place.key) for one in found] == ["one[0]", "one[1]", "one[2]"]
        assert await counted(store) == {"one": (3, 0)}

    async def test_the_list_comes_by_pages_the_oldest_first(
        self, store: Store, payments: Player, inventory: Player, backend: Backend
    ) -> None:
        first = await self.turned_back(store, payments)
        await backend.pass_time(60)
        definition = await register(
            store, call("pay"), call("book", service="inventory"), call("last"), name="other"
        )
        second = await payments.start(definition)
        for player, step in ((payments, "pay"), (inventory, "book"), (payments, "last")):
            claimed = await player.claim_key(second, step)
            assert isinstance(claimed, Claimed)
            await player.answer(claimed, refused() if step == "last" else None)
        pages = []
        after = None
        while page := await store.list_debts("default", None, after, 3):
            pages.append([(one.place.workflow, one.place.key.step) for one in page])
            after = page[-1].place
        assert pages == [
            [(first, "one"), (first, "two"), (second, "book")],
            [(second, "pay")],
        ]
        (booked,) = await owed(store, "inventory")
        assert booked.service == "inventory"
        assert await store.list_debts("elsewhere", None, None, 10) == []
        bounded = await store.debt_totals("default", HOUR, 2)
        assert bounded.more
        assert {one.step for one in bounded.totals} == {"one", "two"}

    # -- rollbacks of central definitions -----------------------------------------------------

    @pytest.mark.parametrize("mode", ["central", "service"])
    async def test_open_central_rollbacks_are_found_and_no_others(
        self, store: Store, payments: Player, mode: str
    ) -> None:
        workflow = await self.turned_back(store, payments, compensation={"mode": mode})
        wanted = [workflow] if mode == "central" else []

        async def found() -> Sequence[WorkflowId]:
            page = await store.central_rollbacks("default", None, 10)
            work = await store.leader_work("default", HOUR, None)
            assert work.central_rollbacks == bool(page)
            return page

        assert await found() == wanted
        assert await store.central_rollbacks("default", workflow, 10) == []
        assert await store.central_rollbacks("elsewhere", None, 10) == []
        for _ in range(2):
            await payments.answer(await payments.claim_one())
        assert await found() == []

    async def test_looking_again_changes_nothing_where_all_has_begun(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await self.turned_back(store, payments, compensation={"mode": "central"})
        before = await payments.see(workflow)
        for _ in range(2):
            moved = await payments.apply(workflow, RollbackReviewed())
            assert isinstance(moved, Moved)
            assert not moved.changes.writes
        assert await payments.see(workflow) == before
        for _ in range(2):
            await payments.answer(await payments.claim_one())
        moved = await payments.apply(workflow, RollbackReviewed())
        assert isinstance(moved, Moved)
        assert not moved.changes.writes
