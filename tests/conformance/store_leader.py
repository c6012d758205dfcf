"""What the leader asks: leases, deadlines, steps to ring again, sidecars."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from sidecar.errors import StaleEpoch
from sidecar.ports.queue import Doorbell
from sidecar.ports.records import LeaderWork, Lease, Ringable
from sidecar.ports.store import Moved, Store
from sidecar.saga.changes import Verdict
from sidecar.saga.events import CancelRequested, DeadlinePassed
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.states import Action, Reason, WorkflowStatus
from sidecar.saga.workflow import StepKey, WorkflowId
from tests.conformance.store_play import (
    Backend,
    Player,
    StoreFixtures,
    assert_utc,
    call,
    refused,
    register,
    unknown,
)

SILENT = timedelta(seconds=20)
LONG = timedelta(seconds=10)


async def ended_leases(store: Store) -> Sequence[Lease]:
    """What is found, which is something if the leader was told that something would be."""
    told = await store.leader_work("default", SILENT, None)
    found = await store.ended_leases("default", SILENT, 10)
    assert told.ended_leases == bool(found)
    return found


async def overdue_workflows(store: Store) -> Sequence[WorkflowId]:
    """What is found, as the leader was told."""
    told = await store.leader_work("default", SILENT, None)
    found = await store.overdue_workflows("default", 10)
    assert told.overdue_workflows == bool(found)
    return found


async def ringable_steps(store: Store, unseen_for: timedelta = SILENT) -> Sequence[Ringable]:
    """What is found, as the leader was told if it had asked for that."""
    told = await store.leader_work("default", unseen_for, LONG)
    found = await store.ringable_steps("default", unseen_for, LONG, 10)
    assert told.ringable_steps == bool(found)
    assert not (await store.leader_work("default", unseen_for, None)).ringable_steps
    return found


class LeaderSuite(StoreFixtures):
    """What the leader's duties are made of."""

    # -- leases -------------------------------------------------------------------------------

    async def test_a_lease_ends_with_its_time_and_not_before(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("charge", timeout="30s"))
        await payments.beat()
        workflow = await payments.start(definition)
        await payments.claim_one()
        assert await ended_leases(store) == []
        await backend.pass_time(34)
        await payments.beat()
        assert await ended_leases(store) == []
        await backend.pass_time(2)
        (lease,) = await ended_leases(store)
        assert (lease.workflow, lease.key) == (workflow, StepKey("charge"))
        assert (lease.action, lease.attempt) == (Action.EXECUTE, 1)
        assert_utc(lease.lease_until)
        assert await store.ended_leases("elsewhere", SILENT, 10) == []

    @pytest.mark.fault(5)
    async def test_leases_of_a_silent_sidecar_end_at_once_and_of_no_other(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("charge", timeout="1h"))
        other = Player(store)
        mine = await payments.start(definition)
        await payments.beat()
        claimed = await payments.claim_one()
        await other.start(definition)
        await other.beat()
        await other.claim_one()
        await backend.pass_time(15)
        await other.beat()
        assert await ended_leases(store) == []
        await backend.pass_time(6)
        (lease,) = await ended_leases(store)
        assert lease.workflow == mine
        assert await other.end_lease(claimed) is Verdict.APPLIED
        assert await ended_leases(store) == []

    async def test_leases_of_a_sidecar_that_left_end_at_once(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("charge"))
        await payments.beat()
        workflow = await payments.start(definition)
        await payments.claim_one()
        await store.leave(payments.incarnation)
        await store.leave(payments.incarnation)
        found = await ended_leases(store)
        assert [one.workflow for one in found] == [workflow]
        assert await store.list_sidecars("default") == []

    async def test_the_lease_of_a_compensation_names_its_action_and_attempt(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("a"), call("b"))
        await payments.start(definition)
        await payments.answer(await payments.claim_one())
        await payments.answer(await payments.claim_one(), refused())
        claimed = await payments.claim_one()
        await backend.pass_time(3600)
        (lease,) = await ended_leases(store)
        assert (lease.key.step, lease.action, lease.attempt) == ("a", Action.COMPENSATE, 1)
        assert await payments.end_lease(claimed) is Verdict.APPLIED

    async def test_ended_leases_come_in_bounded_numbers(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("charge"))
        for _ in range(3):
            await payments.start(definition)
        await payments.claim()
        await backend.pass_time(3600)
        assert len(await store.ended_leases("default", SILENT, 2)) == 2
        assert len(await store.ended_leases("default", SILENT, 5)) == 3

    # -- deadlines ----------------------------------------------------------------------------

    @pytest.mark.fault(25)
    async def test_an_overdue_workflow_is_found_and_turned_back(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        await payments.start(await register(store, call("charge"), name="endless"))
        definition = await register(store, call("charge"), timeout="1m")
        workflow = await payments.start(definition)
        assert await overdue_workflows(store) == []
        early = await payments.apply(workflow, DeadlinePassed())
        assert isinstance(early, Moved)
        assert early.changes.verdict is Verdict.IGNORED
        await backend.pass_time(61)
        assert list(await overdue_workflows(store)) == [workflow]
        assert await store.overdue_workflows("elsewhere", 10) == []
        await payments.apply(workflow, DeadlinePassed())
        found = await payments.see(workflow)
        assert (found.status, found.reason) == (WorkflowStatus.ROLLED_BACK, Reason.TIMED_OUT)
        assert await overdue_workflows(store) == []

    async def test_the_deadline_of_a_paused_workflow_waits_for_the_resume(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("charge"), timeout="1m")
        workflow = await payments.start(definition)
        await backend.set_paused(workflow, True)
        await backend.pass_time(61)
        assert await overdue_workflows(store) == []
        await backend.set_paused(workflow, False)
        assert list(await overdue_workflows(store)) == [workflow]

    async def test_a_deadline_past_the_pivot_is_told_once(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("charge", pivot=True, timeout="1h"), timeout="1m")
        workflow = await payments.start(definition)
        await payments.answer(await payments.claim_one(), unknown())
        await backend.pass_time(61)
        claimed = await payments.claim_one()
        await payments.apply(workflow, DeadlinePassed())
        assert await overdue_workflows(store) == []
        assert (await payments.events(workflow))[-1].kind == "deadline_ignored"
        await payments.answer(claimed)
        assert await payments.status(workflow) is WorkflowStatus.COMPLETED

    async def test_a_deadline_during_the_first_claim_of_a_pivot_waits_for_its_end(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        """It may be given back uncalled, and then the way back is open."""
        definition = await register(store, call("charge", pivot=True, timeout="1h"), timeout="1m")
        workflow = await payments.start(definition)
        claimed = await payments.claim_one()
        await backend.pass_time(61)
        await payments.apply(workflow, DeadlinePassed())
        assert await overdue_workflows(store) == []
        assert (await payments.events(workflow))[-1].kind == "deadline_deferred"
        held = Outcome(OutcomeKind.HELD, retry_after=timedelta(hours=9))
        await payments.answer(claimed, held)
        await backend.pass_time(2 * 3600)
        assert list(await overdue_workflows(store)) == [workflow]
        await payments.apply(workflow, DeadlinePassed())
        found = await payments.see(workflow)
        assert (found.status, found.reason) == (WorkflowStatus.ROLLED_BACK, Reason.TIMED_OUT)

    async def test_a_pivot_that_was_only_given_back_can_be_cancelled(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("charge", pivot=True))
        for kind in (OutcomeKind.HELD, OutcomeKind.RELEASED):
            workflow = await payments.start(definition)
            for _ in range(2):
                await payments.answer(await payments.claim_one(), Outcome(kind))
            await payments.apply(workflow, CancelRequested())
            assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK

    # -- ringing again ------------------------------------------------------------------------

    @pytest.mark.fault(2, 57)
    async def test_a_step_that_nobody_claims_can_be_rung_again(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("charge"))
        first = await payments.start(definition, trace="00-aa-bb-01")
        await backend.pass_time(2)
        second = await payments.start(definition)
        await payments.beat()
        assert await ringable_steps(store) == []
        await backend.pass_time(11)
        await payments.beat()
        found = await ringable_steps(store)
        assert [one.doorbell for one in found] == [
            Doorbell(first, StepKey("charge"), "payments", "00-aa-bb-01"),
            Doorbell(second, StepKey("charge"), "payments"),
        ]
        assert found[0].due_at < found[1].due_at
        assert_utc(found[0].due_at)
        assert len(await store.ringable_steps("default", SILENT, LONG, 1)) == 1
        assert await store.ringable_steps("elsewhere", SILENT, LONG, 10) == []
        await payments.claim()
        assert await ringable_steps(store) == []

    @pytest.mark.parametrize("why", ["nobody", "not ready", "draining", "silent", "left", "paused"])
    @pytest.mark.fault(2)
    async def test_nobody_is_rung_who_cannot_come(
        self, store: Store, payments: Player, inventory: Player, backend: Backend, why: str
    ) -> None:
        workflow = await payments.start(await register(store, call("charge")))
        await backend.pass_time(60)
        await inventory.beat()
        if why == "paused":
            await payments.beat()
            assert len(await ringable_steps(store)) == 1
            await backend.set_paused(workflow, True)
        elif why != "nobody":
            await payments.beat(ready=why != "not ready", draining=why == "draining")
        if why == "silent":
            await backend.pass_time(21)
        if why == "left":
            await store.leave(payments.incarnation)
        assert await ringable_steps(store) == []

    @pytest.mark.fault(2)
    async def test_who_is_silent_is_for_the_leader_to_say(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        await payments.start(await register(store, call("charge")))
        await backend.pass_time(60)
        await payments.beat()
        await backend.pass_time(21)
        assert await ringable_steps(store) == []
        assert len(await ringable_steps(store, timedelta(seconds=30))) == 1

    async def test_the_leader_is_told_of_no_other_namespace(
        self, store: Store, payments: Player, inventory: Player, backend: Backend
    ) -> None:
        nothing = LeaderWork(
            ended_leases=False,
            due_timers=False,
            waiting_letters=False,
            free_turns=False,
            overdue_workflows=False,
            ringable_steps=False,
        )
        assert await store.leader_work("default", SILENT, LONG) == nothing
        held = call("charge", timeout="30s")
        open_for_long = call("reserve", service="inventory", after=[])
        await payments.start(await register(store, held, open_for_long, timeout="1m"))
        await payments.claim_one()
        await backend.pass_time(61)
        await inventory.beat()
        everything = LeaderWork(
            ended_leases=True,
            due_timers=False,
            waiting_letters=False,
            free_turns=False,
            overdue_workflows=True,
            ringable_steps=True,
        )
        assert await store.leader_work("default", SILENT, LONG) == everything
        assert await store.leader_work("elsewhere", SILENT, LONG) == nothing

    # -- sidecars -----------------------------------------------------------------------------

    async def test_sidecars_are_known_by_their_last_beat(
        self, store: Store, payments: Player, inventory: Player, backend: Backend
    ) -> None:
        await payments.beat()
        await inventory.beat()
        await backend.pass_time(5)
        await payments.beat(ready=False, draining=True)
        first, second = await store.list_sidecars("default")
        assert (first.beat.service, second.beat.service) == ("inventory", "payments")
        assert second.beat.incarnation == payments.incarnation
        assert (second.beat.version, second.beat.host) == ("1.0", "here")
        assert (second.beat.ready, second.beat.draining) == (False, True)
        assert (first.beat.ready, first.beat.draining) == (True, False)
        assert second.seen_at - second.started_at >= timedelta(seconds=5)
        assert second.seen_at - first.seen_at >= timedelta(seconds=5)
        assert_utc(second.started_at)
        assert_utc(second.seen_at)
        assert await store.list_sidecars("elsewhere") == []

    async def test_sidecars_long_silent_are_forgotten_by_the_leader_alone(
        self, store: Store, payments: Player, inventory: Player, backend: Backend
    ) -> None:
        await payments.beat()
        await backend.pass_time(100)
        await inventory.beat()
        old = await store.mint_epoch("default", "one")
        epoch = await store.mint_epoch("default", "two")
        with pytest.raises(StaleEpoch):
            await store.forget_sidecars("default", timedelta(seconds=60), old)
        assert len(await store.list_sidecars("default")) == 2
        assert await store.forget_sidecars("default", timedelta(seconds=60), epoch) == 1
        (left,) = await store.list_sidecars("default")
        assert left.beat.incarnation == inventory.incarnation
        assert await store.forget_sidecars("default", timedelta(seconds=60), epoch) == 0
