"""Fan-outs, waits, callbacks and operators on PostgreSQL when others work at the same time.

Each race has one outcome or the other, never half of both, as the history shows.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from sidecar.errors import IllegalTransition
from sidecar.ports.store import Claimed, Missing, Moved, Transition
from sidecar.saga.changes import Verdict
from sidecar.saga.events import (
    LeaseEnded,
    PauseRequested,
    ResumeRequested,
    RetryRequested,
    TimerFired,
)
from sidecar.saga.states import Action, StepStatus, WorkflowStatus
from sidecar.saga.workflow import Fan, StepKey, WorkflowId
from tests.adapters.stores.postgres_backend import PostgresBackend, backend, migrated
from tests.adapters.stores.racing import ROUNDS, behind, long, neck_and_neck, race
from tests.adapters.stores.stubborn import Stubborn
from tests.conformance.store_language import (
    called_back,
    fan,
    lines,
    sent,
    signalled,
    skip,
    taken_on,
    verdict,
)
from tests.conformance.store_play import assert_sound, call, refused, register, settle, unknown

__all__ = ["backend", "migrated"]

pytestmark = pytest.mark.postgres


@pytest.fixture
async def here(backend: PostgresBackend) -> Stubborn:
    return Stubborn(await backend.open_store())


@pytest.fixture
async def there(backend: PostgresBackend) -> Stubborn:
    return Stubborn(await backend.open_store())


async def _causes(player: Stubborn, workflow: WorkflowId, step: str) -> list[str]:
    """Why a step changed, change by change."""
    return [one.cause for one in await player.events(workflow) if one.step == step]


# -- fan-outs ---------------------------------------------------------------------------------


@long
async def test_items_settled_at_once_are_all_counted_and_each_makes_way_for_one(
    here: Stubborn, there: Stubborn
) -> None:
    definition = await register(here.store, fan("each", at_once=3), call("last"))
    for turn in range(ROUNDS):
        workflow = await here.start(definition, body=lines(*range(6)))
        first, second, third = sorted(await here.claim(), key=lambda one: one.key)
        await race(turn, here.insist(settle(first)), there.insist(settle(second)))
        found = (await here.see_step(workflow, "each")).fan
        assert found == Fan(total=6, opened=5, open=3, effects=True)
        rest = {one.key.index: one for one in await there.claim()}
        assert sorted(rest) == [3, 4]
        await race(turn, here.insist(settle(third)), there.insist(settle(rest[3])))
        (fifth,) = await here.claim()
        # The last two at once: the step ends once, and what comes after it is queued once.
        await race(turn, here.insist(settle(rest[4])), there.insist(settle(fifth)))
        queued = [one for one in await here.events(workflow) if one.after == "queued"]
        assert Counter(one.step for one in queued) == {"each": 6, "last": 1}
        await here.answer(await there.claim_one())
        assert await here.status(workflow) is WorkflowStatus.COMPLETED


@long
async def test_items_settled_at_once_on_the_way_back_are_undone_once_each(
    here: Stubborn, there: Stubborn
) -> None:
    definition = await register(here.store, fan("each", at_once=2), call("last"))
    for turn in range(ROUNDS):
        workflow = await here.start(definition, body=lines(*range(4)))
        for _ in range(2):
            for one in await here.claim():
                await here.answer(one)
        await here.answer(await here.claim_one(), refused())
        for left in (2, 0):
            one, other = sorted(await here.claim(), key=lambda one: one.key)
            assert one.action is Action.COMPENSATE
            await race(turn, here.insist(settle(one)), there.insist(settle(other)))
            found = (await here.see_step(workflow, "each")).fan
            assert found is not None
            assert (found.undone, found.undoing) == (4, left)
        assert await here.status(workflow) is WorkflowStatus.ROLLED_BACK
        assert (await _causes(here, workflow, "each")).count("all_items_undone") == 1


@long
async def test_a_failure_too_many_that_races_another_items_answer_loses_no_effect(
    here: Stubborn, there: Stubborn
) -> None:
    definition = await register(here.store, fan("each", at_once=2))
    firsts = Counter[bool]()
    for turn in range(ROUNDS):
        workflow = await here.start(definition, body=lines(1, 2, 3))
        first, second = sorted(await here.claim(), key=lambda one: one.key)
        await neck_and_neck(
            turn,
            here.store,
            lambda one=first: here.insist(settle(one, refused())),
            there.store,
            lambda one=second: there.insist(settle(one)),
        )
        undo = await here.claim_one()
        assert (undo.key, undo.action, undo.succeeded) == (second.key, Action.COMPENSATE, True)
        await here.answer(undo)
        assert await here.status(workflow) is WorkflowStatus.ROLLED_BACK
        # Where the answer came first it had opened the third item, which was then taken away.
        third = (await here.store.list_items(workflow, "each", -1, 10))[2]
        firsts[third.status is StepStatus.CANCELLED] += 1
        await assert_sound(here.store, "default", workflow)
    assert len(firsts) == 2, "one side always won"


# -- waits ------------------------------------------------------------------------------------


@long
async def test_a_signal_that_races_its_timeout_has_one_winner(
    here: Stubborn, there: Stubborn, backend: PostgresBackend
) -> None:
    definition = await register(here.store, signalled("approve", within="1m"))
    workflows = [await here.start(definition) for _ in range(ROUNDS)]
    await backend.pass_time(61)
    ends = Counter[str]()
    for turn, workflow in enumerate(workflows):
        signal, fired = await race(
            turn,
            here.insist(Transition(workflow, sent())),
            there.insist(Transition(workflow, TimerFired(StepKey("approve")))),
        )
        status = await here.status(workflow)
        if isinstance(signal, IllegalTransition):
            assert verdict(fired) is Verdict.APPLIED
            assert status is WorkflowStatus.ROLLED_BACK
        else:
            assert verdict(fired) is Verdict.IGNORED
            assert status is WorkflowStatus.COMPLETED
        causes = await _causes(here, workflow, "approve")
        assert ("signal_timeout" in causes) is not ("signal" in causes)
        ends[status] += 1
    assert set(ends) == {"completed", "rolled_back"}


@long
async def test_a_signal_that_races_the_step_before_its_wait_is_taken_once(
    here: Stubborn, there: Stubborn
) -> None:
    definition = await register(here.store, call("charge"), signalled("approve"))
    kept = Counter[str]()
    for turn in range(ROUNDS):
        workflow = await here.start(definition)
        claimed = await here.claim_one()
        await race(
            turn,
            behind(here.store, turn, lambda one=claimed: here.insist(settle(one))),
            there.insist(Transition(workflow, sent('"x"'))),
        )
        assert await here.status(workflow) is WorkflowStatus.COMPLETED
        (told,) = [one for one in await here.events(workflow) if one.kind == "signal"]
        kept[told.cause] += 1
    assert set(kept) == {"kept", "received"}


# -- callbacks --------------------------------------------------------------------------------


@long
async def test_a_callback_that_races_the_end_of_its_time_has_one_winner(
    here: Stubborn, there: Stubborn, backend: PostgresBackend
) -> None:
    definition = await register(here.store, called_back("charge"))
    held: list[Claimed] = []
    for _ in range(ROUNDS):
        await here.start(definition)
        held.append(await here.claim_one())
        await here.answer(held[-1], taken_on())
    await backend.pass_time(700)
    ends = Counter[str]()
    for turn, claimed in enumerate(held):
        ended = LeaseEnded(claimed.key, claimed.action, claimed.attempt)
        answer, lease = await race(
            turn,
            behind(here.store, turn, lambda one=claimed: here.insist(settle(one))),
            there.insist(Transition(claimed.workflow, ended)),
        )
        in_time = verdict(answer) is Verdict.APPLIED
        assert verdict(lease) is (Verdict.IGNORED if in_time else Verdict.APPLIED)
        if not in_time:
            assert verdict(answer) is Verdict.LATE
            undo = await here.claim_one()
            assert (undo.action, undo.succeeded) == (Action.COMPENSATE, False)
            await here.answer(undo)
        status = await here.status(claimed.workflow)
        assert status is (WorkflowStatus.COMPLETED if in_time else WorkflowStatus.ROLLED_BACK)
        ends[status] += 1
    assert set(ends) == {"completed", "rolled_back"}


@long
async def test_two_callbacks_at_once_are_one_answer(here: Stubborn, there: Stubborn) -> None:
    definition = await register(here.store, called_back("charge"), call("ship"))
    for turn in range(ROUNDS):
        workflow = await here.start(definition)
        claimed = await here.claim_one()
        await here.answer(claimed, taken_on())
        both = await race(turn, here.insist(settle(claimed)), there.insist(settle(claimed)))
        assert {verdict(one) for one in both} == {Verdict.APPLIED, Verdict.DUPLICATE}
        await here.answer(await there.claim_one())
        assert await here.status(workflow) is WorkflowStatus.COMPLETED


# -- operators --------------------------------------------------------------------------------


@long
async def test_a_skip_that_races_a_claim_never_takes_away_what_is_called(
    here: Stubborn, there: Stubborn
) -> None:
    definition = await register(here.store, call("charge"), call("ship", "inventory"))
    wins = Counter[str]()
    for turn in range(ROUNDS):
        workflow = await here.start(definition)
        result, skipped = await race(
            turn,
            behind(here.store, turn, lambda: here.store.commit(here.batch(due=1))),
            there.insist(Transition(workflow, skip("charge"))),
        )
        causes = await _causes(here, workflow, "charge")
        if result.claimed:
            assert isinstance(skipped, IllegalTransition)
            assert "skipped" not in causes
            assert await here.answer(result.claimed[0]) is Verdict.APPLIED
        else:
            assert verdict(skipped) is Verdict.APPLIED
            assert causes == ["ready", "skipped"]
            assert await here.claim() == []
        assert (await here.see_step(workflow, "ship")).status is StepStatus.QUEUED
        wins["claim" if result.claimed else "skip"] += 1
    assert set(wins) == {"claim", "skip"}


@long
async def test_a_pause_that_races_a_claim_lets_a_call_be_settled_and_no_other_begin(
    here: Stubborn, there: Stubborn
) -> None:
    definition = await register(here.store, call("a"), call("b", after=[]), call("c", after=["a"]))
    wins = Counter[int]()
    for turn in range(ROUNDS):
        workflow = await here.start(definition)
        result, paused = await race(
            turn,
            behind(here.store, turn, lambda: here.store.commit(here.batch(due=2))),
            there.insist(Transition(workflow, PauseRequested("lunch"))),
        )
        assert isinstance(paused, Moved)
        held = {one.key for one in result.claimed}
        steps = (await here.see(workflow)).steps
        assert held == {key for key, one in steps.items() if one.status is StepStatus.RUNNING}
        assert await here.claim() == []
        for one in result.claimed:
            assert await here.answer(one) is Verdict.APPLIED
        assert await here.claim() == []
        assert await here.claim_key(workflow, "c") in (Missing.NOT_CLAIMABLE, Missing.UNKNOWN)
        moved = await there.insist(Transition(workflow, ResumeRequested()))
        assert isinstance(moved, Moved)
        due = {one.key for one in moved.changes.queued}
        assert due == {one.key for one in await here.claim()}
        wins[len(held)] += 1
    assert len(wins) > 1, "one side always won"


@long
async def test_a_retry_that_races_a_claim_leaves_one_attempt(
    here: Stubborn, there: Stubborn, backend: PostgresBackend
) -> None:
    definition = await register(here.store, call("charge", retry={"initial_interval": "1s"}))
    workflows = [await here.start(definition) for _ in range(ROUNDS)]
    for one in await here.claim(ROUNDS):
        await here.answer(one, unknown())
    await backend.pass_time(2)
    for turn, workflow in enumerate(workflows):
        key = (workflow, StepKey("charge"))
        result, _ = await race(
            turn,
            behind(here.store, turn, lambda key=key: here.store.commit(here.batch(keys=[key]))),
            there.insist(Transition(workflow, RetryRequested(StepKey("charge")))),
        )
        claimed = list(result.claimed) or [await here.claim_key(workflow, "charge")]
        (one,) = claimed
        assert isinstance(one, Claimed)
        assert one.attempt == 2
        assert await here.answer(one) is Verdict.APPLIED
        assert await here.status(workflow) is WorkflowStatus.COMPLETED


@long
async def test_many_sidecars_settle_one_large_fan_out_together(
    here: Stubborn, backend: PostgresBackend
) -> None:
    count = min(200, ROUNDS * 2)
    definition = await register(here.store, fan("each", at_once=40), call("last", "inventory"))
    workflow = await here.start(definition, body=lines(*range(count)))
    players = [here, *[Stubborn(await backend.open_store()) for _ in range(3)]]

    async def work(player: Stubborn) -> int:
        settled = 0
        while (await here.see_step(workflow, "each")).status is StepStatus.WAITING:
            claims = (await player.store.commit(player.batch(due=7))).claimed
            for one in claims:
                await player.insist(settle(one))
            settled += len(claims)
        return settled

    assert sum(await asyncio.gather(*(work(one) for one in players))) == count
    found = (await here.see_step(workflow, "each")).fan
    assert found == Fan(total=count, opened=count, open=0, effects=True)
    await assert_sound(here.store, "default", workflow)
