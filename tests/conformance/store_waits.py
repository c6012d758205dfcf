"""Steps that wait: for their time, as the leader sees, or for a signal, which is kept for them."""

from __future__ import annotations

import json
from datetime import timedelta

from sidecar.errors import IllegalTransition, StoreDataError
from sidecar.ports.store import Moved, Store, Transition
from sidecar.saga.changes import Verdict
from sidecar.saga.events import PauseRequested, ResumeRequested, RetryRequested, TimerFired
from sidecar.saga.states import Reason, StepStatus, WorkflowStatus
from sidecar.saga.workflow import StepKey, WorkflowId
from tests.conformance.store_language import moved, pause_of, sent, signalled, verdict
from tests.conformance.store_play import (
    NAMESPACE,
    Backend,
    Player,
    StoreFixtures,
    call,
    done,
    register,
    settle,
)

UNSEEN = timedelta(seconds=20)
MOST_KEPT = 100


async def _fire(player: Player, workflow: WorkflowId, step: str) -> Verdict:
    return verdict(await player.apply(workflow, TimerFired(StepKey(step))))


class WaitSuite(StoreFixtures):
    """What a store promises about timers and signals."""

    # -- timers -------------------------------------------------------------------------------

    async def test_a_wait_is_nobodys_to_claim_and_ends_by_its_time(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        workflow = await payments.start(
            await register(store, call("charge"), pause_of("cool_down", 60), call("ship"))
        )
        charged = await payments.claim_one()
        await payments.commit(payments.batch(transitions=[settle(charged, claim_next=True)]))
        assert await payments.claim() == []
        assert await store.due_timers(NAMESPACE, 10) == []
        assert await _fire(payments, workflow, "cool_down") is Verdict.IGNORED
        await backend.pass_time(61)
        assert (await store.leader_work(NAMESPACE, UNSEEN, None)).due_timers
        assert await store.due_timers("elsewhere", 10) == []
        assert await store.due_timers(NAMESPACE, 10) == [(workflow, StepKey("cool_down"))]
        result = await payments.apply(workflow, TimerFired(StepKey("cool_down")))
        assert [step.key.step for step in moved(result).queued] == ["ship"]
        assert await _fire(payments, workflow, "cool_down") is Verdict.IGNORED
        assert not (await store.leader_work(NAMESPACE, UNSEEN, None)).due_timers
        await payments.answer(await payments.claim_one())
        assert await payments.status(workflow) is WorkflowStatus.COMPLETED

    async def test_timers_come_in_the_order_of_their_time_as_many_as_were_asked_for(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        waits = [pause_of(f"w{seconds}", seconds, after=[]) for seconds in (30, 10, 20, 900)]
        workflow = await payments.start(await register(store, *waits))
        await backend.pass_time(60)
        due = [key.step for _, key in await store.due_timers(NAMESPACE, 10)]
        assert due == ["w10", "w20", "w30"]
        assert [key.step for _, key in await store.due_timers(NAMESPACE, 2)] == ["w10", "w20"]
        fired = [Transition(workflow, TimerFired(StepKey(one))) for one in due]
        result = await payments.commit(payments.batch(transitions=fired))
        assert [verdict(one) for one in result.transitions] == [Verdict.APPLIED] * 3
        assert await store.due_timers(NAMESPACE, 10) == []

    async def test_the_timers_of_a_paused_workflow_wait_for_the_resume(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        workflow = await payments.start(await register(store, pause_of("nap", 10)))
        await payments.apply(workflow, PauseRequested())
        await backend.pass_time(11)
        assert await store.due_timers(NAMESPACE, 10) == []
        assert not (await store.leader_work(NAMESPACE, UNSEEN, None)).due_timers
        assert await _fire(payments, workflow, "nap") is Verdict.IGNORED
        await payments.apply(workflow, ResumeRequested())
        assert await store.due_timers(NAMESPACE, 10) == [(workflow, StepKey("nap"))]
        await _fire(payments, workflow, "nap")
        assert await payments.status(workflow) is WorkflowStatus.COMPLETED

    async def test_a_timer_of_a_workflow_that_turned_back_is_none_any_more(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        workflow = await payments.start(await register(store, pause_of("nap", 10)))
        await payments.cancel(workflow)
        await backend.pass_time(11)
        assert await store.due_timers(NAMESPACE, 10) == []
        assert await _fire(payments, workflow, "nap") is Verdict.IGNORED
        assert await payments.statuses(workflow) == {"nap": StepStatus.CANCELLED}

    async def test_a_wait_until_a_moment_is_told_by_an_expression(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        until = {"name": "until", "wait": {"until": "${input.at}"}}
        definition = await register(store, until)
        past = await payments.start(definition, body='{"at":"2020-01-01T00:00:00Z"}')
        bad = await payments.start(definition, body='{"at":"tomorrow"}')
        assert await store.due_timers(NAMESPACE, 10) == [(past, StepKey("until"))]
        await _fire(payments, past, "until")
        assert await payments.status(past) is WorkflowStatus.COMPLETED
        assert await payments.status(bad) is WorkflowStatus.ROLLED_BACK

    # -- signals ------------------------------------------------------------------------------

    async def test_a_signal_goes_to_the_step_that_waits_for_it(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(await register(store, signalled("approve"), call("ship")))
        event = sent('{"by" :  "x"}', reason="it is fine", actor="anna")
        result = await payments.commit(
            payments.batch(transitions=[Transition(workflow, event, claim_next=True)])
        )
        assert [one.key.step for one in result.claimed] == ["ship"]
        step = await payments.see_step(workflow, "approve")
        assert step.status is StepStatus.SUCCEEDED
        assert str(step.output).startswith('{"payload":{"by" :  "x"},')
        told = json.loads(str(step.output))
        assert (told["actor"], told["reason"]) == ("anna", "it is fine")
        assert told["sent_at"].endswith("+00:00")
        line = next(one for one in await payments.events(workflow) if one.kind == "signal")
        assert (line.cause, line.actor, line.step) == ("received", "anna", "approve")
        assert json.loads(str(line.details)) == {"name": "go", "reason": "it is fine"}

    async def test_a_signal_that_comes_early_is_kept_and_taken_once(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(
            store, call("charge"), signalled("first"), signalled("second"), call("ship")
        )
        workflow = await payments.start(definition)
        for payload in ('"one"', '"two"', '"three"'):
            changes = moved(await payments.apply(workflow, sent(payload, actor="ben")))
            assert [one.payload for one in changes.kept] == [payload]
        assert (await payments.see(workflow)).last_signal == 3
        result = await payments.apply(workflow, settle(await payments.claim_one()).event)
        assert moved(result).taken == (1, 2)
        steps = (await payments.see(workflow)).steps
        told = [json.loads(str(steps[StepKey(one)].output)) for one in ("first", "second")]
        assert [one["payload"] for one in told] == ["one", "two"]
        assert {one["actor"] for one in told} == {"ben"}
        await payments.answer(await payments.claim_one())
        assert await payments.status(workflow) is WorkflowStatus.COMPLETED
        kept = [one.cause for one in await payments.events(workflow) if one.kind == "signal"]
        assert kept == ["kept"] * 3

    async def test_a_signal_that_was_taken_is_never_taken_again(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(
            await register(
                store, call("charge"), signalled("first"), call("ship"), signalled("second")
            )
        )
        for payload in ('"one"', '"two"', '"three"'):
            await payments.apply(workflow, sent(payload))
        for number in (1, 2):
            changes = moved(
                await payments.apply(workflow, settle(await payments.claim_one()).event)
            )
            assert changes.taken == (number,)
        step = await payments.see_step(workflow, "second")
        assert json.loads(str(step.output))["payload"] == "two"

    async def test_signals_of_one_batch_find_each_other(
        self, store: Store, payments: Player
    ) -> None:
        """One is kept and taken in the same stroke, and its number is not given again."""
        workflow = await payments.start(
            await register(store, call("charge"), signalled("first"), signalled("second"))
        )
        charged = await payments.claim_one()
        members = [
            Transition(workflow, sent('"one"')),
            settle(charged),
            Transition(workflow, sent('"two"')),
        ]
        result = await payments.commit(payments.batch(transitions=members))
        assert all(isinstance(one, Moved) for one in result.transitions)
        found = await payments.see(workflow)
        assert (found.status, found.last_signal) == (WorkflowStatus.COMPLETED, 2)
        outputs = [json.loads(str(found.steps[StepKey(one)].output)) for one in ("first", "second")]
        assert [one["payload"] for one in outputs] == ["one", "two"]

    async def test_the_same_signal_again_is_no_other(self, store: Store, payments: Player) -> None:
        """Whether it is still kept or was taken, or has even ended its workflow."""
        workflow = await payments.start(
            await register(store, call("charge"), signalled("first"), signalled("second"))
        )
        early, late = sent(id="a"), sent(id="b")
        both = [Transition(workflow, early), Transition(workflow, early)]
        result = await payments.commit(payments.batch(transitions=both))
        assert [verdict(one) for one in result.transitions] == [Verdict.APPLIED, Verdict.DUPLICATE]
        await payments.answer(await payments.claim_one())
        assert verdict(await payments.apply(workflow, early)) is Verdict.DUPLICATE
        assert (await payments.statuses(workflow))["second"] is StepStatus.WAITING
        assert verdict(await payments.apply(workflow, late)) is Verdict.APPLIED
        assert await payments.status(workflow) is WorkflowStatus.COMPLETED
        assert verdict(await payments.apply(workflow, late)) is Verdict.DUPLICATE
        assert isinstance(await payments.apply(workflow, sent(id="c")), IllegalTransition)
        told = [one for one in await payments.events(workflow) if one.kind == "signal"]
        assert [json.loads(str(one.details))["id"] for one in told] == ["a", "b"]

    async def test_a_batch_with_signals_whose_answer_was_lost_keeps_each_once(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        workflow = await payments.start(
            await register(store, call("charge"), call("b", after=[]), signalled("go"))
        )
        charged, _ = sorted(await payments.claim(), key=lambda one: one.key, reverse=True)
        batch = payments.batch(transitions=[settle(charged), Transition(workflow, sent(id="a"))])
        await backend.lose_answer(store, batch)
        result = await payments.commit(batch)
        assert [verdict(one) for one in result.transitions] == [Verdict.DUPLICATE] * 2
        found = await payments.see(workflow)
        kept = [one.cause for one in await payments.events(workflow) if one.kind == "signal"]
        assert found.last_signal == len(kept) == 1

    async def test_a_signal_that_nobody_ever_waits_for_is_refused(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(await register(store, signalled("approve")))
        refused = await payments.apply(workflow, sent(name="other"))
        assert isinstance(refused, IllegalTransition)
        await payments.apply(workflow, sent())
        assert isinstance(await payments.apply(workflow, sent()), IllegalTransition)

    async def test_so_many_signals_are_kept_and_no_more(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(await register(store, call("charge"), signalled("go")))
        members = [Transition(workflow, sent(str(number))) for number in range(MOST_KEPT + 1)]
        result = await store.commit(payments.batch(transitions=members))
        kinds = [isinstance(one, Moved) for one in result.transitions]
        assert kinds == [True] * MOST_KEPT + [False]
        assert (await payments.see(workflow)).last_signal == MOST_KEPT

    async def test_a_signal_that_does_not_come_in_time_fails_its_step(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("charge"), signalled("approve", within="1m"))
        workflow = await payments.start(definition)
        await payments.answer(await payments.claim_one())
        await backend.pass_time(61)
        assert await store.due_timers(NAMESPACE, 10) == [(workflow, StepKey("approve"))]
        await _fire(payments, workflow, "approve")
        found = await payments.see(workflow)
        assert (found.status, found.reason) == (WorkflowStatus.ROLLING_BACK, Reason.FAILED)
        assert "signal_timeout" in str(found.error)
        assert isinstance(await payments.apply(workflow, sent()), IllegalTransition)
        await payments.answer(await payments.claim_one(), done(None))
        assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK

    async def test_what_is_sent_during_a_pause_is_handed_out_at_the_resume(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(await register(store, signalled("approve"), call("ship")))
        await payments.apply(workflow, PauseRequested("lunch", "anna"))
        assert [one.number for one in moved(await payments.apply(workflow, sent('"x"'))).kept] == [
            1
        ]
        assert await payments.statuses(workflow) == {"approve": StepStatus.WAITING}
        changes = moved(await payments.apply(workflow, ResumeRequested("back", "anna")))
        assert changes.taken == (1,)
        assert [step.key.step for step in changes.queued] == ["ship"]
        assert (await payments.claim_one()).key == StepKey("ship")

    async def test_what_cannot_be_kept_of_a_signal_fails_its_batch(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(await register(store, call("charge"), signalled("go")))
        for event in (sent('"\\u0000"'), sent(reason="\x00"), sent(reason="\ud800")):
            try:
                await store.commit(payments.batch(transitions=[Transition(workflow, event)]))
            except StoreDataError:
                continue
            raise AssertionError(event)
        assert (await payments.see(workflow)).last_signal == 0

    async def test_a_signal_that_did_not_come_past_a_pivot_is_waited_for_once_more(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(
            store, call("buy", pivot=True), signalled("go", within="60s"), call("ship")
        )
        workflow = await payments.start(definition)
        await payments.answer(await payments.claim_one())
        await backend.pass_time(61)
        assert await _fire(payments, workflow, "go") is Verdict.APPLIED
        assert await payments.status(workflow) is WorkflowStatus.ERROR
        assert verdict(await payments.apply(workflow, RetryRequested())) is Verdict.APPLIED
        assert await payments.status(workflow) is WorkflowStatus.IN_PROGRESS
        assert await store.due_timers(NAMESPACE, 10) == []
        await payments.apply(workflow, sent("1"))
        assert (await payments.claim_one()).key == StepKey("ship")
