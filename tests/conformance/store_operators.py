"""What a person may do to a workflow: pause, resume, terminate, retry, skip, resolve."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from msgspec.structs import replace

from sidecar.errors import IllegalTransition
from sidecar.ports.store import Claimed, Missing, Store, Transition
from sidecar.saga.changes import Verdict
from sidecar.saga.definition import JsonText
from sidecar.saga.events import (
    CancelRequested,
    PauseRequested,
    Resolution,
    ResolveRequested,
    ResumeRequested,
    RetryRequested,
    TerminateRequested,
)
from sidecar.saga.states import Action, StepStatus, WorkflowStatus
from sidecar.saga.workflow import StepKey
from tests.conformance.store_language import (
    ONE_TRY,
    called_back,
    keys_of,
    moved,
    pause_of,
    signalled,
    skip,
    taken_on,
    unwanted,
    verdict,
)
from tests.conformance.store_play import (
    NAMESPACE,
    RETRY_ONCE,
    Backend,
    Player,
    StoreFixtures,
    answer_to,
    call,
    done,
    not_sent,
    refused,
    register,
    unknown,
)

PAUSE = PauseRequested("maintenance", "anna")
RESUME = ResumeRequested("all well", "anna")
TERMINATE = TerminateRequested("out of business", "anna")


def _resolve(step: str, resolution: Resolution, output: str | None = None) -> ResolveRequested:
    text = None if output is None else JsonText(output)
    return ResolveRequested(StepKey(step), resolution, "looked", "ledger 7", text, actor="anna")


class OperatorSuite(StoreFixtures):
    """What a store keeps of the verbs of operators."""

    # -- pause and resume ---------------------------------------------------------------------

    async def test_nothing_is_claimed_while_paused_and_what_is_due_is_rung_for_then(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("a"), call("b", after=[]), call("c", after=["a"]))
        workflow = await payments.start(definition)
        held = await payments.claim_key(workflow, "a")
        assert isinstance(held, Claimed)
        assert verdict(await payments.apply(workflow, PAUSE)) is Verdict.APPLIED
        assert verdict(await payments.apply(workflow, PAUSE)) is Verdict.IGNORED
        assert await payments.claim() == []
        assert await payments.claim_key(workflow, "b") is Missing.NOT_CLAIMABLE
        # A call in flight is settled, and what it frees is not claimed with it.
        member = Transition(workflow, answer_to(held), claim_next=True)
        result = await payments.commit(payments.batch(transitions=[member]))
        assert verdict(result.transitions[0]) is Verdict.APPLIED
        assert result.claimed == ()
        assert (await payments.see(workflow)).paused
        result = await payments.commit(
            payments.batch(transitions=[Transition(workflow, RESUME, claim_next=True)])
        )
        changes = moved(result.transitions[0])
        assert [step.key.step for step in changes.queued] == ["b", "c"]
        assert not (await payments.see(workflow)).paused
        assert keys_of([*result.claimed, *await payments.claim()]) == ["b", "c"]
        told = [one for one in await payments.events(workflow) if one.kind == "operator"]
        assert [(one.cause, one.actor) for one in told] == [("paused", "anna"), ("resumed", "anna")]
        assert json.loads(str(told[0].details)) == {"reason": "maintenance"}

    async def test_a_workflow_that_turns_back_can_be_paused_too(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(await register(store, call("a"), call("b")))
        await payments.answer(await payments.claim_one())
        await payments.apply(workflow, PAUSE)
        await payments.cancel(workflow)
        assert (await payments.see(workflow)).status is WorkflowStatus.ROLLING_BACK
        assert await payments.claim() == []
        await payments.apply(workflow, RESUME)
        await payments.answer(await payments.claim_one())
        assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK

    async def test_the_end_ends_a_pause_and_nothing_can_be_done_after_it(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(await register(store, call("a")))
        claimed = await payments.claim_one()
        await payments.apply(workflow, PAUSE)
        await payments.answer(claimed)
        found = await payments.see(workflow)
        assert (found.status, found.paused) == (WorkflowStatus.COMPLETED, False)
        for event in (PAUSE, RESUME, TERMINATE, RetryRequested(), skip("a")):
            assert isinstance(await payments.apply(workflow, event), IllegalTransition)

    # -- terminate ----------------------------------------------------------------------------

    async def test_what_is_terminated_stops_where_it_stands_and_late_answers_are_noted(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(
            store,
            call("done"),
            call("called"),
            call("queued", "inventory", after=["done"]),
            pause_of("timer", 60, after=["done"]),
            called_back("later", after=["done"]),
            call("never", after=["called"]),
        )
        workflow = await payments.start(definition)
        await payments.answer(await payments.claim_one())
        claims = {one.key.step: one for one in await payments.claim()}
        await payments.answer(claims["later"], taken_on())
        changes = moved(await payments.apply(workflow, TERMINATE))
        assert changes.ended
        found = await payments.see(workflow)
        assert (found.status, found.reason) == (WorkflowStatus.TERMINATED, None)
        assert found.ended_at is not None
        assert await payments.statuses(workflow) == {
            "done": StepStatus.SUCCEEDED,
            "called": StepStatus.FAILED,
            "queued": StepStatus.CANCELLED,
            "timer": StepStatus.CANCELLED,
            "later": StepStatus.FAILED,
            "never": StepStatus.CANCELLED,
        }
        assert found.steps[StepKey("called")].may_have_effect
        assert await payments.answer(claims["called"], done('"x"')) is Verdict.LATE
        assert await payments.answer(claims["later"], done('"x"')) is Verdict.LATE
        late = [one for one in await payments.events(workflow) if one.kind == "late_answer"]
        assert [one.step for one in late] == ["called", "later"]
        assert await payments.claim() == []
        assert verdict(await payments.apply(workflow, TERMINATE)) is Verdict.IGNORED
        assert isinstance(await payments.cancel(workflow), IllegalTransition)
        ended = next(one for one in await payments.events(workflow) if one.after == "terminated")
        assert json.loads(str(ended.details)) == {"reason": "out of business"}

    async def test_a_rollback_can_be_terminated_and_owes_nothing_any_more(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(await register(store, call("a"), call("b"), call("c")))
        for _ in range(2):
            await payments.answer(await payments.claim_one())
        await payments.answer(await payments.claim_one(), refused())
        undo = await payments.claim_one()
        await payments.apply(workflow, TERMINATE)
        assert await payments.statuses(workflow) == {
            "a": StepStatus.SUCCEEDED,
            "b": StepStatus.COMPENSATION_FAILED,
            "c": StepStatus.FAILED,
        }
        assert await payments.answer(undo) is Verdict.LATE
        for event in (RetryRequested(), RetryRequested(undo.key), unwanted("b")):
            assert isinstance(await payments.apply(workflow, event), IllegalTransition)
        assert await payments.claim() == []

    # -- retry --------------------------------------------------------------------------------

    async def test_a_retry_makes_due_what_waits_for_its_next_try(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(await register(store, call("a", retry=RETRY_ONCE)))
        await payments.answer(await payments.claim_one(), unknown())
        assert await payments.claim() == []
        assert await payments.claim_key(workflow, "a") is Missing.NOT_DUE
        retry = RetryRequested(StepKey("a"), "now", "anna")
        result = await payments.commit(
            payments.batch(transitions=[Transition(workflow, retry, claim_next=True)])
        )
        (claimed,) = result.claimed
        assert (claimed.attempt, claimed.tries) == (2, 1)
        # It is being tried: repeated, the wish changes nothing.
        assert moved(await payments.apply(workflow, retry)).verdict is Verdict.IGNORED

    async def test_a_retry_after_the_last_try_of_a_compensation_begins_its_tries_anew(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        undo = {"path": "/undo/a", "retry": RETRY_ONCE}
        definition = await register(store, call("a", compensate=undo), call("b"))
        workflow = await payments.start(definition)
        await payments.answer(await payments.claim_one())
        await payments.answer(await payments.claim_one(), refused())
        for _ in range(2):
            await payments.answer(await payments.claim_one(), unknown())
            await backend.pass_time(2)
        found = await payments.see(workflow)
        assert (found.status, found.ended_at) == (WorkflowStatus.ERROR, None)
        changes = moved(await payments.apply(workflow, RetryRequested(None, "fixed", "anna")))
        assert changes.workflow.status is WorkflowStatus.ROLLING_BACK
        again = await payments.claim_one()
        assert (again.action, again.attempt, again.tries) == (Action.COMPENSATE, 3, 0)
        await payments.answer(again, unknown())
        await backend.pass_time(2)
        await payments.answer(await payments.claim_one())
        assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK

    async def test_past_a_pivot_a_retry_goes_forward(self, store: Store, payments: Player) -> None:
        workflow = await payments.start(
            await register(store, call("pay", pivot=True), call("ship"))
        )
        await payments.answer(await payments.claim_one())
        await payments.answer(await payments.claim_one(), refused())
        assert await payments.status(workflow) is WorkflowStatus.ERROR
        assert isinstance(await payments.cancel(workflow), IllegalTransition)
        changes = moved(await payments.apply(workflow, RetryRequested(StepKey("ship"))))
        assert changes.workflow.status is WorkflowStatus.IN_PROGRESS
        again = await payments.claim_one()
        assert (again.action, again.attempt) == (Action.EXECUTE, 2)
        await payments.answer(again)
        assert await payments.status(workflow) is WorkflowStatus.COMPLETED

    # -- skip ---------------------------------------------------------------------------------

    @pytest.mark.parametrize("state", ["pending", "queued", "retrying", "awaiting", "timer"])
    async def test_a_step_that_nobody_calls_can_be_skipped(
        self, store: Store, payments: Player, state: str
    ) -> None:
        steps = {
            "timer": [pause_of("odd", 60)],
            "awaiting": [called_back("odd")],
            "pending": [signalled("first"), call("odd")],
        }.get(state, [call("odd")])
        after = [one["name"] for one in steps]
        definition = await register(
            store,
            *steps,
            call("next", input={"was": "${steps.odd.output.by}"}, after=after),
            output={"odd": "${steps.odd.status}"},
        )
        workflow = await payments.start(definition)
        if state == "retrying":
            await payments.answer(await payments.claim_one(), not_sent())
        if state == "awaiting":
            await payments.answer(await payments.claim_one(), taken_on())
        await payments.apply(workflow, skip("odd", '{"by":"hand"}'))
        step = await payments.see_step(workflow, "odd")
        assert (step.status, step.output) == (StepStatus.SKIPPED, '{"by":"hand"}')
        assert (step.due_at, step.lease_until, step.awaiting) == (None, None, False)
        assert step.may_have_effect is (state == "awaiting")
        if state == "pending":
            await payments.apply(workflow, skip("first"))
        following = await payments.claim_one()
        assert (following.key.step, following.input) == ("next", '{"was":"hand"}')
        await payments.answer(following)
        assert (await payments.see(workflow)).output == '{"odd":"skipped"}'
        told = next(one for one in await payments.events(workflow) if one.cause == "skipped")
        assert (told.step, told.actor) in {("odd", "anna"), ("first", "anna")}

    async def test_what_is_being_called_cannot_be_skipped_nor_resolved(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(await register(store, call("a")))
        claimed = await payments.claim_one()
        for event in (skip("a"), _resolve("a", Resolution.SUCCEEDED)):
            assert isinstance(await payments.apply(workflow, event), IllegalTransition)
        assert await payments.answer(claimed) is Verdict.APPLIED
        assert isinstance(await payments.apply(workflow, skip("a")), IllegalTransition)

    async def test_what_was_skipped_and_may_have_acted_is_undone_later(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("a", retry=RETRY_ONCE), call("b"))
        workflow = await payments.start(definition)
        await payments.answer(await payments.claim_one(), unknown())
        await payments.apply(workflow, skip("a", "7"))
        await payments.answer(await payments.claim_one(), refused())
        undo = await payments.claim_one()
        assert (undo.key.step, undo.action, undo.output) == ("a", Action.COMPENSATE, "7")
        assert not undo.succeeded
        await payments.answer(undo)
        assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK

    async def test_an_undoing_that_is_skipped_counts_as_done(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(await register(store, call("a"), call("b"), call("c")))
        for _ in range(2):
            await payments.answer(await payments.claim_one())
        await payments.answer(await payments.claim_one(), refused())
        undo = await payments.claim_one()
        assert isinstance(await payments.apply(workflow, unwanted("b")), IllegalTransition)
        await payments.answer(undo, refused())
        assert await payments.status(workflow) is WorkflowStatus.ERROR
        changes = moved(await payments.apply(workflow, unwanted("b")))
        assert changes.workflow.status is WorkflowStatus.ROLLING_BACK
        assert verdict(await payments.apply(workflow, unwanted("b"))) is Verdict.IGNORED
        assert isinstance(await payments.apply(workflow, skip("b")), IllegalTransition)
        undo = await payments.claim_one()
        assert undo.key.step == "a"
        await payments.answer(undo, not_sent())
        await payments.apply(workflow, unwanted("a"))
        assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK

    async def test_a_skip_that_is_repeated_after_the_turning_back_clears_no_effect(
        self, store: Store, payments: Player
    ) -> None:
        lasting = {**call("b", retry=RETRY_ONCE), "compensate": None}
        del lasting["compensate"]
        definition = await register(store, call("a", retry=RETRY_ONCE), lasting, call("c"))
        workflow = await payments.start(definition)
        for step in ("a", "b"):
            await payments.answer(await payments.claim_one(), unknown())
            await payments.apply(workflow, skip(step))
            assert verdict(await payments.apply(workflow, skip(step))) is Verdict.IGNORED
        await payments.answer(await payments.claim_one(), refused())
        found = await payments.statuses(workflow)
        assert found["b"] is StepStatus.COMPENSATION_FAILED
        for event in (skip("b"), unwanted("a")):
            assert isinstance(await payments.apply(workflow, event), IllegalTransition)
        await payments.apply(workflow, unwanted("b"))
        assert (await payments.statuses(workflow))["a"] is StepStatus.COMPENSATING
        assert isinstance(await payments.apply(workflow, skip("a")), IllegalTransition)
        assert (await payments.claim_one()).key.step == "a"

    # -- resolve ------------------------------------------------------------------------------

    async def test_a_person_says_that_it_succeeded(self, store: Store, payments: Player) -> None:
        definition = await register(store, call("a", retry=RETRY_ONCE), call("b"))
        workflow = await payments.start(definition)
        await payments.answer(await payments.claim_one(), unknown())
        await payments.apply(workflow, _resolve("a", Resolution.SUCCEEDED, '"seen"'))
        step = await payments.see_step(workflow, "a")
        assert (step.status, step.output) == (StepStatus.SUCCEEDED, '"seen"')
        told = next(one for one in await payments.events(workflow) if one.cause == "resolved")
        assert json.loads(str(told.details)) == {
            "resolution": "succeeded",
            "reason": "looked",
            "evidence": "ledger 7",
        }
        await payments.answer(await payments.claim_one(), refused())
        undo = await payments.claim_one()
        assert (undo.key.step, undo.succeeded, undo.output) == ("a", True, '"seen"')

    async def test_a_person_says_that_nothing_happened(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("a"), call("b", retry=RETRY_ONCE))
        workflow = await payments.start(definition)
        await payments.answer(await payments.claim_one())
        await payments.answer(await payments.claim_one(), unknown())
        await payments.apply(workflow, _resolve("b", Resolution.NO_EFFECT))
        found = await payments.see(workflow)
        assert found.status is WorkflowStatus.ROLLING_BACK
        assert not found.steps[StepKey("b")].may_have_effect
        assert '"step": "b"' in str(found.error)
        assert keys_of(await payments.claim()) == ["a"]

    async def test_a_person_says_that_it_was_undone(self, store: Store, payments: Player) -> None:
        workflow = await payments.start(
            await register(store, call("a", compensate={"path": "/u", "retry": ONE_TRY}), call("b"))
        )
        await payments.answer(await payments.claim_one())
        await payments.answer(await payments.claim_one(), refused())
        await payments.answer(await payments.claim_one(), taken_on())
        await payments.apply(workflow, _resolve("a", Resolution.COMPENSATED))
        assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK
        assert await store.ended_leases(NAMESPACE, timedelta(), 10) == []

    @pytest.mark.parametrize("event", [skip("nobody"), RetryRequested(StepKey("nobody"))])
    async def test_a_step_that_is_not_there_is_unknown(
        self, store: Store, payments: Player, event: RetryRequested
    ) -> None:
        workflow = await payments.start(await register(store, call("a")))
        assert await payments.apply(workflow, event) is Missing.UNKNOWN

    async def test_verbs_of_one_batch_are_decided_in_their_order(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(await register(store, call("a"), call("b")))
        events = [PAUSE, skip("a"), RESUME, replace(skip("b"), actor="ben"), CancelRequested()]
        members = [Transition(workflow, event) for event in events]
        result = await payments.commit(payments.batch(transitions=members))
        assert [verdict(one) for one in result.transitions[:4]] == [Verdict.APPLIED] * 4
        assert isinstance(result.transitions[4], IllegalTransition)
        assert await payments.status(workflow) is WorkflowStatus.COMPLETED
