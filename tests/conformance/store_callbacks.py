"""Steps that a service answers later: nobody holds them, and only time or a callback ends them."""

from __future__ import annotations

from datetime import timedelta

from sidecar.errors import IllegalTransition
from sidecar.ports.records import Lease
from sidecar.ports.store import Claimed, Missing, Store
from sidecar.saga.changes import Verdict
from sidecar.saga.events import Heartbeat, LeaseEnded, PauseRequested, ResumeRequested
from sidecar.saga.states import Action, StepStatus, WorkflowStatus
from sidecar.saga.workflow import StepKey
from tests.conformance.store_language import (
    CALLBACK_WITHIN_S,
    called_back,
    fan,
    lines,
    taken_on,
    verdict,
)
from tests.conformance.store_play import (
    NAMESPACE,
    Backend,
    Player,
    StoreFixtures,
    answer_to,
    call,
    done,
    refused,
    register,
    released,
    settle,
    unknown,
)

UNSEEN = timedelta(seconds=20)


class CallbackSuite(StoreFixtures):
    """What `Batch.transitions` promises about an answer that comes by a callback."""

    async def _taken_on(self, store: Store, payments: Player) -> Claimed:
        await payments.start(await register(store, called_back("charge"), call("ship")))
        claimed = await payments.claim_one()
        assert await payments.answer(claimed, taken_on()) is Verdict.APPLIED
        return claimed

    async def test_who_answers_later_is_waited_for_and_held_by_nobody(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        await payments.beat()
        claimed = await self._taken_on(store, payments)
        step = await payments.see_step(claimed.workflow, "charge")
        assert (step.status, step.awaiting, step.due_at) == (StepStatus.WAITING, True, None)
        assert (step.execute.attempt, step.execute.closed, step.execute.tries) == (1, 0, 0)
        assert step.lease_until is not None
        assert step.execute.claimed_at is not None
        waits = (step.lease_until - step.execute.claimed_at).total_seconds()
        assert abs(waits - CALLBACK_WITHIN_S) < 5
        assert await payments.claim() == []
        assert await payments.claim_key(claimed.workflow, "charge") is Missing.NOT_CLAIMABLE
        # Whoever made the call is silent, and gone: the service may call back all the same.
        await backend.pass_time(60)
        assert await store.ended_leases(NAMESPACE, UNSEEN, 10) == []
        await store.leave(payments.incarnation)
        assert await store.ended_leases(NAMESPACE, UNSEEN, 10) == []
        assert not (await store.leader_work(NAMESPACE, UNSEEN, None)).ended_leases

    async def test_no_callback_is_given_up_during_a_pause(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        """As no other wait ends then; its time counts, and is over when the pause is."""
        claimed = await self._taken_on(store, payments)
        await payments.apply(claimed.workflow, PauseRequested())
        await backend.pass_time(CALLBACK_WITHIN_S + 10)
        assert await store.ended_leases(NAMESPACE, UNSEEN, 10) == []
        assert not (await store.leader_work(NAMESPACE, UNSEEN, None)).ended_leases
        assert await payments.end_lease(claimed) is Verdict.IGNORED
        await payments.apply(claimed.workflow, ResumeRequested())
        assert (await store.leader_work(NAMESPACE, UNSEEN, None)).ended_leases
        assert len(await store.ended_leases(NAMESPACE, UNSEEN, 10)) == 1
        assert await payments.end_lease(claimed) is Verdict.APPLIED

    async def test_the_callback_is_an_answer_like_any_other_whoever_takes_it(
        self, store: Store, payments: Player, inventory: Player
    ) -> None:
        claimed = await self._taken_on(store, payments)
        assert await inventory.answer(claimed, done('"paid"')) is Verdict.APPLIED
        step = await payments.see_step(claimed.workflow, "charge")
        assert (step.status, step.output) == (StepStatus.SUCCEEDED, '"paid"')
        assert (step.awaiting, step.lease_until, step.execute.tries) == (False, None, 1)
        assert [one.cause for one in await payments.events(claimed.workflow)].count("claimed") == 1
        assert (await payments.claim_one()).key == StepKey("ship")
        assert await payments.answer(claimed, done('"again"')) is Verdict.DUPLICATE
        assert (await payments.see_step(claimed.workflow, "charge")).output == '"paid"'

    async def test_a_callback_that_is_a_refusal_turns_back(
        self, store: Store, payments: Player
    ) -> None:
        claimed = await self._taken_on(store, payments)
        await payments.answer(claimed, refused())
        assert await payments.status(claimed.workflow) is WorkflowStatus.ROLLED_BACK

    async def test_a_callback_may_come_before_the_word_that_there_will_be_one(
        self, store: Store, payments: Player
    ) -> None:
        await payments.start(await register(store, called_back("charge")))
        claimed = await payments.claim_one()
        assert await payments.answer(claimed, done('"paid"')) is Verdict.APPLIED
        assert await payments.answer(claimed, taken_on()) is Verdict.DUPLICATE
        assert await payments.status(claimed.workflow) is WorkflowStatus.COMPLETED

    async def test_it_is_said_once_that_a_callback_will_come(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        claimed = await self._taken_on(store, payments)
        until = (await payments.see_step(claimed.workflow, "charge")).lease_until
        await backend.pass_time(1)
        assert await payments.answer(claimed, taken_on()) is Verdict.DUPLICATE
        again = (await payments.see_step(claimed.workflow, "charge")).lease_until
        assert until is not None
        assert again is not None
        assert again <= until

    async def test_a_sign_of_life_extends_the_time_for_the_callback(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        claimed = await self._taken_on(store, payments)
        await backend.pass_time(CALLBACK_WITHIN_S - 100)
        alive = Heartbeat(claimed.key, claimed.action, claimed.attempt)
        assert verdict(await payments.apply(claimed.workflow, alive)) is Verdict.APPLIED
        await backend.pass_time(CALLBACK_WITHIN_S - 100)
        assert await store.ended_leases(NAMESPACE, UNSEEN, 10) == []
        await backend.pass_time(200)
        (lease,) = await store.ended_leases(NAMESPACE, UNSEEN, 10)
        assert (lease.key, lease.action, lease.attempt) == (claimed.key, Action.EXECUTE, 1)
        await payments.end_lease(claimed)
        assert verdict(await payments.apply(claimed.workflow, alive)) is Verdict.LATE

    async def test_a_callback_that_does_not_come_in_time_is_an_unknown_outcome(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        claimed = await self._taken_on(store, payments)
        await backend.pass_time(CALLBACK_WITHIN_S + 1)
        assert await payments.end_lease(claimed) is Verdict.APPLIED
        step = await payments.see_step(claimed.workflow, "charge")
        assert "callback_timeout" in str(step.error)
        undo = await payments.claim_one()
        assert (undo.action, undo.succeeded, undo.output) == (Action.COMPENSATE, False, None)
        # What comes later changes nothing: the compensation that is owed covers it.
        assert await payments.answer(claimed, done('"late"')) is Verdict.LATE
        assert (await payments.see_step(claimed.workflow, "charge")).output is None

    async def test_the_word_may_come_after_the_lease_of_the_call(
        self, store: Store, payments: Player
    ) -> None:
        """The leader took the outcome for unknown; then the 202 arrives, and then the callback."""
        retried = called_back("charge") | {"retry": {"max_attempts": 3, "initial_interval": "1s"}}
        await payments.start(await register(store, retried))
        claimed = await payments.claim_one()
        await payments.end_lease(claimed)
        assert await payments.answer(claimed, taken_on()) is Verdict.APPLIED
        step = await payments.see_step(claimed.workflow, "charge")
        assert (step.status, step.awaiting, step.execute.closed) == (StepStatus.WAITING, True, 0)
        assert await payments.end_lease(claimed) is Verdict.APPLIED
        step = await payments.see_step(claimed.workflow, "charge")
        # One attempt is one try, however often its end was told.
        assert (step.status, step.execute.tries) == (StepStatus.RETRYING, 1)
        assert await payments.answer(claimed, taken_on()) is Verdict.APPLIED
        assert await payments.answer(claimed, done()) is Verdict.APPLIED
        step = await payments.see_step(claimed.workflow, "charge")
        assert (step.status, step.execute.tries) == (StepStatus.SUCCEEDED, 1)

    async def test_what_is_taken_on_after_its_lease_was_seen_to_end_has_its_time(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        """The leader has read that the lease is over; the 202 is written before it says so."""
        await payments.start(await register(store, called_back("charge")))
        claimed = await payments.claim_one()
        await backend.pass_time(CALLBACK_WITHIN_S)
        (seen,) = await store.ended_leases(NAMESPACE, UNSEEN, 10)
        assert await payments.answer(claimed, taken_on()) is Verdict.APPLIED
        assert await self._end(payments, seen) is Verdict.IGNORED
        step = await payments.see_step(claimed.workflow, "charge")
        assert (step.status, step.awaiting, step.execute.tries) == (StepStatus.WAITING, True, 0)
        await backend.pass_time(CALLBACK_WITHIN_S + 1)
        (seen,) = await store.ended_leases(NAMESPACE, UNSEEN, 10)
        assert await self._end(payments, seen) is Verdict.APPLIED

    async def test_a_sign_of_life_counts_that_comes_after_the_time_was_seen_to_be_over(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        claimed = await self._taken_on(store, payments)
        await backend.pass_time(CALLBACK_WITHIN_S + 1)
        (seen,) = await store.ended_leases(NAMESPACE, UNSEEN, 10)
        alive = Heartbeat(claimed.key, claimed.action, claimed.attempt)
        assert verdict(await payments.apply(claimed.workflow, alive)) is Verdict.APPLIED
        assert await self._end(payments, seen) is Verdict.IGNORED
        assert await payments.answer(claimed) is Verdict.APPLIED

    async def _end(self, payments: Player, seen: Lease) -> Verdict:
        """Do what the leader does with a lease that it saw end."""
        event = LeaseEnded(seen.key, seen.action, seen.attempt, until=seen.lease_until)
        return verdict(await payments.apply(seen.workflow, event))

    async def test_an_attempt_is_current_from_its_claim_to_its_end(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(await register(store, called_back("charge")))
        key, execute = StepKey("charge"), Action.EXECUTE
        assert not await store.is_current(workflow, key, execute, 1)
        claimed = await payments.claim_one()
        assert await store.is_current(workflow, key, execute, 1)
        assert not await store.is_current(workflow, key, execute, 2)
        assert not await store.is_current(workflow, key, Action.COMPENSATE, 1)
        assert not await store.is_current(workflow, StepKey("nobody"), execute, 1)
        await payments.answer(claimed, taken_on())
        assert await store.is_current(workflow, key, execute, 1)
        await payments.answer(claimed)
        assert not await store.is_current(workflow, key, execute, 1)

    async def test_turning_back_does_not_wait_for_a_callback(
        self, store: Store, payments: Player
    ) -> None:
        claimed = await self._taken_on(store, payments)
        await payments.cancel(claimed.workflow)
        assert await payments.answer(claimed, done('"late"')) is Verdict.LATE
        undo = await payments.claim_one()
        assert (undo.key, undo.action, undo.succeeded) == (claimed.key, Action.COMPENSATE, False)
        assert not await store.is_current(claimed.workflow, claimed.key, Action.EXECUTE, 1)
        await payments.answer(undo)
        assert await payments.status(claimed.workflow) is WorkflowStatus.ROLLED_BACK

    async def test_a_word_that_comes_while_turning_back_ends_its_attempt(
        self, store: Store, payments: Player
    ) -> None:
        await payments.start(await register(store, called_back("charge")))
        claimed = await payments.claim_one()
        await payments.cancel(claimed.workflow)
        assert await payments.answer(claimed, taken_on()) is Verdict.APPLIED
        assert (await payments.claim_one()).action is Action.COMPENSATE

    async def test_a_compensation_may_be_answered_later_too(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, called_back("charge"), called_back("ship"))
        workflow = await payments.start(definition)
        await payments.answer(await payments.claim_one())
        await payments.answer(await payments.claim_one(), refused())
        undo = await payments.claim_one()
        assert await payments.answer(undo, taken_on()) is Verdict.APPLIED
        step = await payments.see_step(workflow, "charge")
        assert (step.status, step.awaiting) == (StepStatus.COMPENSATING, True)
        assert await payments.claim() == []
        assert await store.is_current(workflow, undo.key, Action.COMPENSATE, 1)
        await backend.pass_time(CALLBACK_WITHIN_S + 1)
        (lease,) = await store.ended_leases(NAMESPACE, UNSEEN, 10)
        assert lease.action is Action.COMPENSATE
        await payments.end_lease(undo)
        await backend.pass_time(1)
        again = await payments.claim_one()
        assert (again.action, again.attempt) == (Action.COMPENSATE, 2)
        await payments.answer(again, taken_on())
        assert await payments.answer(undo) is Verdict.LATE
        assert await payments.answer(again) is Verdict.APPLIED
        assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK

    async def test_a_callback_may_say_that_it_went_wrong(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        retried = called_back("charge") | {"retry": {"max_attempts": 3, "initial_interval": "1s"}}
        await payments.start(await register(store, retried))
        claimed = await payments.claim_one()
        await payments.answer(claimed, taken_on())
        released_late = await payments.apply(claimed.workflow, answer_to(claimed, released()))
        assert isinstance(released_late, IllegalTransition)
        assert await payments.answer(claimed, unknown()) is Verdict.APPLIED
        await backend.pass_time(2)
        assert (await payments.claim_one()).attempt == 2

    async def test_both_words_in_one_batch_are_one_answer(
        self, store: Store, payments: Player
    ) -> None:
        await payments.start(await register(store, called_back("charge"), call("ship")))
        claimed = await payments.claim_one()
        batch = payments.batch(
            transitions=[settle(claimed, taken_on()), settle(claimed, claim_next=True)]
        )
        result = await payments.commit(batch)
        assert [verdict(one) for one in result.transitions] == [Verdict.APPLIED] * 2
        assert [one.key.step for one in result.claimed] == ["ship"]

    async def test_an_item_may_be_answered_later(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, fan("each", callback_timeout="10m", retry={}))
        workflow = await payments.start(definition, body=lines(1, 2, 3))
        first, second = await payments.claim()
        await payments.answer(first, taken_on())
        await payments.answer(second, taken_on())
        assert await payments.claim() == []
        assert await store.is_current(workflow, first.key, Action.EXECUTE, 1)
        await payments.apply(workflow, answer_to(first))
        (third,) = await payments.claim()
        assert third.key == StepKey("each", 2)
        await backend.pass_time(CALLBACK_WITHIN_S + 1)
        ended = await store.ended_leases(NAMESPACE, UNSEEN, 10)
        assert {one.key for one in ended} == {second.key, third.key}
