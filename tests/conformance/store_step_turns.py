"""Turns of steps: calls with the same key wait for a place, and give it back when they are over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sidecar.errors import IllegalTransition
from sidecar.ports.records import Holder
from sidecar.ports.store import Claimed, Missing, Moved, Store, Transition
from sidecar.saga.changes import Verdict
from sidecar.saga.definition import Definition
from sidecar.saga.events import (
    Admitted,
    CancelRequested,
    DeadlinePassed,
    LeaseEnded,
    PauseRequested,
    Resolution,
    ResolveRequested,
    ResumeRequested,
    RetryRequested,
    TerminateRequested,
)
from sidecar.saga.explain import waiting_on
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.states import StepStatus, WorkflowStatus
from sidecar.saga.turns import InLine, TurnKey
from sidecar.saga.workflow import StepKey, WorkflowId
from tests.conformance.store_language import ONE_TRY, asked, busy, skip, taken_on
from tests.conformance.store_play import (
    NAMESPACE,
    RETRY_ONCE,
    Backend,
    Player,
    StoreFixtures,
    answer_to,
    call,
    next_in,
    refused,
    register,
    released,
    unknown,
)

PAY = StepKey("pay")
ACME = TurnKey(NAMESPACE, "order", '"acme"', "pay")
BODY = '{"account":"acme"}'


def in_turn(limit: int = 1, **more: Any) -> dict[str, Any]:
    """A call that takes turns by account."""
    turns = {"key": "${input.account}", "limit": limit}
    return call("pay", **{"retry": RETRY_ONCE, "concurrency": turns, **more})


async def paying(store: Store, limit: int = 1, **more: Any) -> Definition:
    """A definition of one call that takes turns."""
    return await register(store, in_turn(limit), **more)


async def begun(player: Player, definition: Definition, count: int = 1) -> list[WorkflowId]:
    """Start some workflows of one account."""
    return [await player.start(definition, body=BODY) for _ in range(count)]


def admission(workflow: WorkflowId, step: StepKey = PAY, turn: TurnKey = ACME) -> Transition:
    return Transition(workflow, Admitted(step), turn=turn)


async def admit(
    player: Player, workflow: WorkflowId, step: StepKey = PAY, turn: TurnKey = ACME
) -> Verdict:
    """Try to let one step begin."""
    result: object = Missing.LOCKED
    while result is Missing.LOCKED:  # somebody else counts the places of this key just now
        batch = player.batch(transitions=[admission(workflow, step, turn)])
        (result,) = (await player.commit(batch)).transitions
    assert isinstance(result, Moved), result
    return result.changes.verdict


async def admit_all(player: Player, turn: TurnKey = ACME) -> list[str]:
    """Do what the engine does: let all begin for whom there is a place; return which."""
    found = await next_in(player.store, turn)
    for one in found:
        assert one.step is not None
        assert await admit(player, one.workflow, one.step, turn) is Verdict.APPLIED
    return [str(one.step) for one in found]


async def at_work(
    player: Player, definition: Definition, count: int = 2
) -> tuple[Claimed, list[WorkflowId]]:
    """Start some, of which the first has the place and is being called."""
    some = await begun(player, definition, count)
    assert await admit(player, some[0]) is Verdict.APPLIED
    return await player.claim_one(), some


async def next_are(store: Store, *workflows: WorkflowId, turn: TurnKey = ACME) -> bool:
    """Whether just these can begin now, in this order."""
    return await next_in(store, turn) == [InLine(one, PAY) for one in workflows]


async def holders(store: Store, turn: TurnKey = ACME) -> Sequence[InLine]:
    return [one.who for one in await store.turn_holders(turn)]


class StepTurnSuite(StoreFixtures):
    """What a store promises about the turns of steps."""

    async def test_a_step_waits_until_it_is_admitted_and_nobody_can_claim_it(
        self, store: Store, payments: Player
    ) -> None:
        definition = await paying(store)
        (workflow,) = await begun(payments, definition)
        assert await payments.statuses(workflow) == {"pay": StepStatus.WAITING}
        assert await payments.claim() == []
        assert await payments.claim_key(workflow, "pay") is Missing.NOT_CLAIMABLE
        (line,) = waiting_on(definition, seen := await payments.see(workflow), seen.created_at)
        assert line == 'pay: execute waits for its turn: 1 at a time with the key "acme"'
        assert await store.free_turns(NAMESPACE, 10) == [ACME]
        assert await next_are(store, workflow)
        assert await holders(store) == []
        assert await admit(payments, workflow) is Verdict.APPLIED
        assert await admit(payments, workflow) is Verdict.IGNORED
        assert await holders(store) == [InLine(workflow, PAY)]
        assert await store.free_turns(NAMESPACE, 10) == []
        claimed = await payments.claim_one()
        assert (claimed.attempt, claimed.tries) == (1, 0)
        await payments.answer(claimed)
        assert await payments.status(workflow) is WorkflowStatus.COMPLETED
        assert await holders(store) == []

    async def test_steps_come_in_the_order_in_which_they_began_to_wait(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        some = []
        for _ in range(4):
            some += await begun(payments, definition := await paying(store, limit=2))
            await backend.pass_time(1)
        other = await payments.start(definition, body='{"account":"other"}')
        assert await next_are(store, *some[:2])
        for one in some[:2]:
            assert await admit(payments, one) is Verdict.APPLIED
        assert await admit(payments, some[2]) is Verdict.IGNORED
        assert await next_are(store)
        await payments.answer((await payments.claim())[0])
        assert await next_are(store, some[2])
        elsewhere = ACME._replace(key='"other"')
        assert await admit(payments, other, turn=elsewhere) is Verdict.APPLIED

    async def test_only_calls_of_the_same_step_of_the_same_definition_share_places(
        self, store: Store, payments: Player
    ) -> None:
        turns = {"key": "${input.account}"}
        two = await register(
            store, in_turn(after=[]), call("send", after=[], concurrency=turns), name="two"
        )
        (first,) = await begun(payments, await paying(store))
        (second,) = await begun(payments, two)
        sends = TurnKey(NAMESPACE, "two", '"acme"', "send")
        assert await admit(payments, first) is Verdict.APPLIED
        assert await admit(payments, second, turn=sends._replace(step="pay")) is Verdict.APPLIED
        assert await admit(payments, second, StepKey("send"), sends) is Verdict.APPLIED

    async def test_versions_share_places_and_each_is_held_to_its_own_limit(
        self, store: Store, payments: Player
    ) -> None:
        narrow, wide = await paying(store), await paying(store, limit=3)
        some = [*await begun(payments, narrow), *await begun(payments, wide, 2)]
        assert await admit(payments, some[1]) is Verdict.APPLIED
        assert await next_are(store)  # the first who waits could not take it
        assert await store.free_turns(NAMESPACE, 10) == []
        assert await admit(payments, some[0]) is Verdict.IGNORED
        await payments.apply(some[0], CancelRequested())
        assert await next_are(store, some[2])

    async def test_the_most_urgent_step_is_next_however_old_the_others_are(
        self, store: Store, payments: Player
    ) -> None:
        plain = await register(store, in_turn(), priority=1)
        old = await begun(payments, plain, 2)
        urgent = await begun(payments, await register(store, in_turn(priority=5), priority=1), 2)
        assert await next_are(store, urgent[0])
        assert await admit_all(payments) == ["pay"]
        await payments.apply(urgent[0], CancelRequested())
        assert await next_are(store, urgent[1])
        await payments.apply(urgent[1], CancelRequested())
        assert await next_are(store, old[0])

    async def test_a_step_that_a_rate_limit_holds_up_keeps_its_place(
        self, store: Store, payments: Player
    ) -> None:
        claimed, (first, _) = await at_work(payments, await paying(store))
        await payments.answer(claimed, Outcome(OutcomeKind.HELD, retry_after=timedelta(hours=1)))
        seen = await payments.see(first)
        assert not seen.steps[PAY].leased
        assert await holders(store) == [InLine(first, PAY)]
        assert await next_are(store)
        assert await admit(payments, first) is Verdict.IGNORED

    async def test_a_place_is_kept_as_long_as_the_step_is_on_its_way_forward(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        claimed, (first, second) = await at_work(payments, await paying(store))
        await payments.answer(claimed, unknown())
        assert await payments.statuses(first) == {"pay": StepStatus.RETRYING}
        assert await holders(store) == [InLine(first, PAY)]
        await backend.pass_time(60)
        claimed = await payments.claim_one()
        assert (claimed.workflow, claimed.attempt) == (first, 2)
        await payments.end_lease(claimed)
        assert await payments.statuses(first) == {"pay": StepStatus.COMPENSATING}
        assert await holders(store) == []  # to be undone needs no place
        assert await next_are(store, second)

    async def test_a_step_in_doubt_and_one_that_is_called_back_keep_their_places(
        self, store: Store, payments: Player
    ) -> None:
        turns = {"concurrency": {"key": "${input.account}"}}
        definition = await register(store, asked("pay", **turns))
        claimed, (first, _) = await at_work(payments, definition)
        await payments.answer(claimed, unknown())
        assert await payments.statuses(first) == {"pay": StepStatus.IN_DOUBT}
        assert await holders(store) == [InLine(first, PAY)]
        await payments.answer(await payments.claim_one())
        assert await holders(store) == []
        await admit_all(payments)
        claimed = await payments.claim_one()
        await payments.answer(claimed, taken_on())
        assert await payments.statuses(claimed.workflow) == {"pay": StepStatus.WAITING}
        assert await holders(store) == [InLine(claimed.workflow, PAY)]
        assert await admit(payments, claimed.workflow) is Verdict.IGNORED
        await payments.answer(claimed)
        assert await payments.status(claimed.workflow) is WorkflowStatus.COMPLETED
        assert await holders(store) == []

    async def test_who_is_cancelled_or_stopped_while_waiting_stands_before_nobody(
        self, store: Store, payments: Player
    ) -> None:
        some = await begun(payments, await paying(store), 4)
        await payments.apply(some[0], CancelRequested())
        assert await payments.statuses(some[0]) == {"pay": StepStatus.CANCELLED}
        await payments.apply(some[1], TerminateRequested("enough"))
        await payments.apply(some[2], skip("pay"))
        assert await payments.status(some[2]) is WorkflowStatus.COMPLETED
        assert await next_are(store, some[3])

    async def test_who_is_cancelled_or_stopped_with_a_place_gives_it_back(
        self, store: Store, payments: Player
    ) -> None:
        definition = await paying(store, limit=3)
        some = await begun(payments, definition, 4)
        assert len(await admit_all(payments)) == 3
        claimed = (await payments.claim(1))[0]
        rest = [one for one in some[:3] if one != claimed.workflow]
        await payments.apply(rest[0], CancelRequested())
        await payments.apply(rest[1], TerminateRequested("enough"))
        assert await holders(store) == [InLine(claimed.workflow, PAY)]
        await payments.apply(claimed.workflow, CancelRequested())
        # It is being called, and what comes of that is awaited: so it has its place still.
        assert await holders(store) == [InLine(claimed.workflow, PAY)]
        await payments.answer(claimed, released())
        assert await payments.status(claimed.workflow) is WorkflowStatus.ROLLED_BACK
        assert await holders(store) == []
        assert await next_are(store, some[3])

    async def test_a_pause_takes_away_neither_a_place_nor_a_turn(
        self, store: Store, payments: Player
    ) -> None:
        first, second = await begun(payments, await paying(store), 2)
        await payments.apply(first, PauseRequested())
        assert await next_are(store, first)
        assert await admit(payments, first) is Verdict.APPLIED
        assert await payments.claim() == []
        assert await next_are(store)
        (holder,) = await store.turn_holders(ACME)
        assert holder == Holder(InLine(first, PAY), WorkflowStatus.IN_PROGRESS, paused=True)
        await payments.apply(first, ResumeRequested())
        await payments.answer(await payments.claim_one())
        assert await next_are(store, second)

    async def test_a_deadline_takes_away_who_waits(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        first, second = await begun(payments, await paying(store, timeout="1m"), 2)
        await backend.pass_time(61)
        assert set(await store.overdue_workflows(NAMESPACE, 10)) == {first, second}
        await payments.apply(first, DeadlinePassed())
        assert await payments.status(first) is WorkflowStatus.ROLLED_BACK
        assert await next_are(store, second)

    async def test_a_retry_does_not_get_past_those_who_wait(
        self, store: Store, payments: Player
    ) -> None:
        (workflow,) = await begun(payments, await paying(store))
        for event in (RetryRequested(PAY), RetryRequested()):
            found = await payments.apply(workflow, event)
            assert isinstance(found, IllegalTransition)
            assert 'step pay is waiting for its turn, 1 at a time with the key "acme"' in str(found)
            assert "or `skip` this step: retry is not legal now" in str(found)
        assert await payments.statuses(workflow) == {"pay": StepStatus.WAITING}

    async def test_what_failed_past_a_pivot_waits_for_its_turn_again(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("buy", pivot=True), in_turn(retry=ONE_TRY))
        workflow = await payments.start(definition, body=BODY)
        await payments.answer(await payments.claim_one())
        await admit_all(payments)
        late = await payments.claim_one()
        await payments.answer(late, refused())
        assert await payments.status(workflow) is WorkflowStatus.ERROR
        assert await holders(store) == []
        other = await payments.start(definition, body=BODY)
        await payments.answer(await payments.claim_one())
        await backend.pass_time(1)
        await payments.apply(workflow, RetryRequested(PAY))
        assert await payments.status(workflow) is WorkflowStatus.IN_PROGRESS
        assert (await payments.see_step(workflow, "pay")).status is StepStatus.WAITING
        assert await admit_all(payments) == ["pay"]
        assert await holders(store) == [InLine(other, PAY)]
        await payments.answer(await payments.claim_one())
        assert await admit_all(payments) == ["pay"]
        assert (await payments.see_step(workflow, "pay")).status is StepStatus.RETRYING
        again = await payments.claim_one()
        assert (again.workflow, again.attempt, again.tries) == (workflow, 2, 0)
        await payments.answer(again)
        assert await payments.status(workflow) is WorkflowStatus.COMPLETED

    async def test_only_an_end_is_news_of_one_that_waits_to_be_tried_anew(
        self, store: Store, payments: Player
    ) -> None:
        """Its lease had ended, and it was given up: what comes of it late gives it no place."""
        for outcome, known in (
            (taken_on(), Verdict.LATE),
            (busy(), Verdict.LATE),
            (released(), Verdict.LATE),
            (unknown(), Verdict.LATE),
            (Outcome(OutcomeKind.DONE), Verdict.APPLIED),
        ):
            definition = await register(store, call("buy", pivot=True), _never_again())
            workflow = await payments.start(definition, body=BODY)
            await payments.answer(await payments.claim_one())
            await admit_all(payments)
            late = await payments.claim_one()
            await payments.end_lease(late)
            assert await payments.status(workflow) is WorkflowStatus.ERROR
            await payments.apply(workflow, RetryRequested())
            assert await payments.answer(late, outcome) is known
            if known is Verdict.LATE:
                assert (await payments.see_step(workflow, "pay")).status is StepStatus.WAITING
                found = ResolveRequested(PAY, Resolution.SUCCEEDED, "asked", "receipt 7")
                await payments.apply(workflow, found)
            assert await payments.status(workflow) is WorkflowStatus.COMPLETED
            assert await store.free_turns(NAMESPACE, 10) == []
            assert await holders(store) == []

    async def test_a_key_that_cannot_be_rendered_fails_the_step_before_it_is_sent(
        self, store: Store, payments: Player
    ) -> None:
        definition = await paying(store)
        account = "".join(chr(0x4E00 + at * 7919 % 20_000) for at in range(5_000))
        for body in ("{}", json.dumps({"account": account})):
            workflow = await payments.start(definition, body=body)
            seen = await payments.see(workflow)
            assert seen.status is WorkflowStatus.ROLLED_BACK
            assert "concurrency.key" in str(seen.steps[PAY].error)
        assert await store.free_turns(NAMESPACE, 10) == []

    async def test_a_lease_that_ends_does_not_give_the_place_away(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        """Whoever dies in a call keeps it until the step is over."""
        claimed, (first, second) = await at_work(payments, await paying(store))
        await backend.pass_time(60)
        event = LeaseEnded(claimed.key, claimed.action, claimed.attempt)
        await payments.apply(first, event)
        assert await payments.statuses(first) == {"pay": StepStatus.RETRYING}
        assert await next_are(store)
        await payments.apply(first, answer_to(claimed))
        assert await payments.status(first) is WorkflowStatus.COMPLETED
        assert await next_are(store, second)


def _never_again() -> dict[str, Any]:
    """A call past a pivot that is given up after one try."""
    undo = {"path": "/undo/pay", "retry": {"max_attempts": 1}}
    return in_turn(retry=ONE_TRY, compensate=undo)
