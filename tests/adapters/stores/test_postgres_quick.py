"""Settlements that are decided on what a claim has brought, and those that cannot be.

Either way the outcome is the same; what is looked at here is that the quick way is taken where
it is safe, and never believed where it is not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from sidecar.adapters.postgres import kept, writing
from sidecar.adapters.postgres.commit import _LONG_AGO, Transaction
from sidecar.adapters.postgres.kept import KeptStates
from sidecar.adapters.postgres.writing import Answer
from sidecar.adapters.postgres.written import Written
from sidecar.adapters.stores.postgres import PostgresStore
from sidecar.errors import StoreConflict, StoreError, StoreUnavailable
from sidecar.ports.store import Missing, Moved, Started
from sidecar.saga.changes import Verdict
from sidecar.saga.definition import Definition, JsonText
from sidecar.saga.states import Action, WorkflowStatus
from sidecar.saga.workflow import DefinitionRef, StepKey, Workflow, WorkflowId
from tests.adapters.stores.postgres_backend import PostgresBackend, backend, migrated
from tests.conformance.store_play import (
    Player,
    assert_sound,
    call,
    done,
    refused,
    register,
    settle,
    start_of,
)

__all__ = ["backend", "migrated"]

pytestmark = pytest.mark.postgres

RENDERING = (
    call("charge"),
    call("reserve", input={"paid": "${steps.charge.output.id}", "for": "${input.amount}"}),
    call("ship", input={"stock": "${steps.reserve.output.id}"}),
)


@pytest.fixture
async def store(backend: PostgresBackend) -> PostgresStore:
    return await backend.open_store()


@pytest.fixture
def locking(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many members each batch that went under locks had."""
    seen: list[int] = []
    run = Transaction.run

    async def run_and_count(self: Transaction) -> Answer:
        seen.append(len(self._batch.starts) + len(self._batch.transitions))
        return await run(self)

    monkeypatch.setattr(Transaction, "run", run_and_count)
    return seen


async def warm(player: Player, definition: Definition) -> None:
    """Let the store hear the clock and compile the definition."""
    await player.start(definition)
    for claimed in await player.claim():
        await player.answer(claimed)
    while claims := await player.claim():
        for claimed in claims:
            await player.answer(claimed)


async def test_a_saga_that_goes_straight_ahead_takes_no_lock_to_read(
    store: PostgresStore, locking: list[int]
) -> None:
    player = Player(store)
    definition = await register(store, *RENDERING)
    await warm(player, definition)
    locking.clear()
    workflow = await player.start(definition, start_key="once")
    inputs = []
    for number in range(3):
        claimed = await player.claim_one()
        inputs.append(json.loads(claimed.input))
        await player.answer(claimed, done(json.dumps({"id": f"made-{number}"})))
    assert await player.status(workflow) is WorkflowStatus.COMPLETED
    assert inputs[1:] == [{"paid": "made-0", "for": 5}, {"stock": "made-1"}]
    assert locking == []


async def test_the_way_back_takes_no_lock_either_and_tells_what_was_done(
    store: PostgresStore, locking: list[int]
) -> None:
    player = Player(store)
    definition = await register(store, call("charge"), call("ship"))
    await warm(player, definition)
    locking.clear()
    workflow = await player.start(definition)
    await player.answer(await player.claim_one(), done('{"id":"a charge"}'))
    member = settle(await player.claim_one(), refused(), claim_next=True)
    (undo,) = (await player.commit(player.batch(transitions=[member]))).claimed
    assert (undo.key.step, undo.action, undo.attempt) == ("charge", Action.COMPENSATE, 1)
    assert (undo.output, undo.succeeded) == ('{"id":"a charge"}', True)
    await player.answer(undo)
    assert await player.status(workflow) is WorkflowStatus.ROLLED_BACK
    assert locking == []


async def test_a_workflow_that_moved_meanwhile_is_decided_once_more(
    store: PostgresStore, backend: PostgresBackend, locking: list[int]
) -> None:
    here, there = Player(store), Player(await backend.open_store())
    definition = await register(store, call("a"), call("b", after=[]), call("c", after=["a", "b"]))
    await warm(here, definition)
    await warm(there, definition)
    locking.clear()
    workflow = await here.start(definition)
    first, second = await here.claim()
    there_answer = await there.answer(first)
    assert there_answer is Verdict.APPLIED
    member = settle(second)
    (answer,) = (await here.commit(here.batch(transitions=[member]))).transitions
    assert answer is Missing.LOCKED
    (answer,) = (await here.commit(here.batch(transitions=[member]))).transitions
    assert isinstance(answer, Moved)
    assert len(locking) == 2
    assert (await here.claim_one()).key.step == "c"
    await assert_sound(store, "default", workflow)


async def test_a_workflow_paused_meanwhile_is_settled_and_nothing_of_it_claimed(
    store: PostgresStore, backend: PostgresBackend
) -> None:
    player = Player(store)
    definition = await register(store, call("a"), call("b"))
    await warm(player, definition)
    workflow = await player.start(definition)
    claimed = await player.claim_one()
    await backend.set_paused(workflow, paused=True)
    batch = [settle(claimed, claim_next=True)]
    result = await player.commit(player.batch(transitions=batch))
    if result.transitions[0] is Missing.LOCKED:
        result = await player.commit(player.batch(transitions=batch))
    assert isinstance(result.transitions[0], Moved)
    assert result.claimed == ()
    assert (await player.see(workflow)).paused


@pytest.mark.parametrize(
    ("output", "steps"),
    [('"' + "x" * 3 * writing.LARGE + '"', 0), ('{"id":1}', writing.OTHERS)],
    ids=["a large output", "many steps"],
)
async def test_a_state_that_does_not_come_whole_is_read_again(
    store: PostgresStore,
    locking: list[int],
    output: str,
    steps: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writing, "LARGE", 16)
    player = Player(store)
    beside = [call(f"step_{number}", "others", after=[]) for number in range(steps)]
    tail = call("last", after=["middle"], input={"all": "${steps.first.output}"})
    definition = await register(
        store, call("first"), call("middle", after=["first"]), tail, *beside
    )
    await player.start(definition)
    await player.answer(await player.claim_one(), done(output))
    locking.clear()
    await player.answer(await player.claim_one())
    assert locking == [1]
    assert json.loads((await player.claim_one()).input) == {"all": json.loads(output)}


async def test_of_two_starts_with_one_key_in_one_batch_the_second_is_told_of_the_first(
    store: PostgresStore, locking: list[int]
) -> None:
    player = Player(store)
    definition = await register(store, call("charge"))
    await warm(player, definition)
    locking.clear()
    starts = [start_of(definition, start_key="once") for _ in range(2)]
    other = start_of(definition)
    result = await player.commit(player.batch(starts=[*starts, other], due=5))
    first, second, third = result.starts
    assert isinstance(first, Started)
    assert isinstance(second, Started)
    assert isinstance(third, Started)
    assert (first.workflow, first.existed) == (starts[0].id, False)
    assert (second.workflow, second.existed) == (starts[0].id, True)
    assert (third.workflow, third.existed) == (other.id, False)
    assert locking == [1]


@pytest.mark.parametrize(
    ("fault", "meaning"),
    [
        (psycopg.OperationalError("the connection is lost"), StoreUnavailable),
        (psycopg.errors.DeadlockDetected("and the connection is as good as before"), StoreConflict),
    ],
    ids=["lost", "conflict"],
)
async def test_a_batch_that_took_effect_in_part_takes_effect_once(
    store: PostgresStore,
    monkeypatch: pytest.MonkeyPatch,
    fault: psycopg.Error,
    meaning: type[StoreError],
) -> None:
    player = Player(store)
    definition = await register(store, call("a"), call("b"))
    await warm(player, definition)
    workflow, waiting = await player.start(definition), await player.start(definition)
    claims = {one.workflow: one for one in await player.claim()}
    rival = Player(store)
    await rival.start(definition)
    start = start_of(definition)
    members = [settle(claims[workflow]), settle(claims[waiting])]
    batch = player.batch(starts=[start], transitions=members, due=5)
    store._kept._states.pop(waiting)
    run = Transaction.run

    async def fail(self: Transaction) -> Answer:
        monkeypatch.setattr(Transaction, "run", run)
        raise fault

    monkeypatch.setattr(Transaction, "run", fail)
    with pytest.raises(meaning):
        await store.commit(batch)
    result = await player.commit(batch)
    assert [one.workflow for one in result.starts] == [start.id]
    verdicts = [one.changes.verdict for one in result.transitions if isinstance(one, Moved)]
    assert verdicts == [Verdict.DUPLICATE, Verdict.APPLIED]
    assert [one.attempt for one in result.claimed] == [1]
    left = await player.claim()
    assert {(one.workflow, one.key) for one in left}.isdisjoint(
        {(one.workflow, one.key) for one in result.claimed}
    )
    assert all(one.attempt == 1 for one in left)


async def test_claiming_by_name_reads_nothing_but_what_was_named(
    store: PostgresStore, backend: PostgresBackend
) -> None:
    player = Player(store)
    definition = await register(store, call("charge"))
    starts = [start_of(definition) for _ in range(300)]
    await store.commit(player.batch(starts=starts))
    read = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'steps_claimable'"
    before = await backend.run(read)
    for start in starts[:20]:
        assert not isinstance(await player.claim_key(start.id, "charge"), Missing)
    await store.close()
    await backend.until_nobody_is_connected()
    assert await backend.run(read) == before


# -- what is kept -------------------------------------------------------------------------------


async def test_an_old_answer_does_not_tell_the_time(
    store: PostgresStore, locking: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    player = Player(store)
    definition = await register(store, call("charge"))
    await warm(player, definition)
    locking.clear()
    real: Callable[[], float] = time.monotonic
    monkeypatch.setattr(kept.time, "monotonic", lambda: real() + kept.CLOCK_GOOD_FOR_S + 1)
    assert store._kept.now() is None
    await player.start(definition)
    assert locking == [1]


async def test_states_are_kept_within_bounds(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "KEPT", 3)
    player = Player(store)
    definition = await register(store, call("charge"))
    await store.commit(player.batch(starts=[start_of(definition) for _ in range(10)]))
    claims = await player.claim()
    assert len(store._kept._states) == 3
    for claimed in claims:
        assert await player.answer(claimed) is Verdict.APPLIED
    assert len(store._kept._states) == 0


def test_a_state_with_many_elements_is_not_kept() -> None:
    ref = DefinitionRef("default", "order", 1)
    elements = {StepKey("each", 0): JsonText('"' + "x" * kept.BODIES_KEPT + '"')}
    known = WorkflowId("w")
    large = Workflow(known, ref, WorkflowStatus.IN_PROGRESS, _LONG_AGO, elements=elements)
    states = KeptStates()
    states._put(large)
    assert states.get(known) is None


async def test_a_state_with_large_bodies_is_not_kept(store: PostgresStore) -> None:
    player = Player(store)
    body = json.dumps("x" * kept.BODIES_KEPT)
    definition = await register(store, call("charge", input={"all": "${input}"}))
    await player.start(definition, body=body)
    await player.claim_one()
    assert len(store._kept._states) == 0


async def test_an_older_state_never_replaces_a_newer_one(store: PostgresStore) -> None:
    player = Player(store)
    definition = await register(store, call("a"), call("b", after=[]))
    workflow = await player.start(definition)
    first, _ = await player.claim()
    old = store._kept.get(workflow)
    assert old is not None
    await player.answer(first)
    new = store._kept.get(workflow)
    assert new is not None
    assert new.revision == old.revision + 1
    now = store._kept.now()
    assert now is not None
    store._kept.learn(Answer(now, frozenset(), states=[old]), Written())
    assert store._kept.get(workflow) is new


def test_nothing_is_known_at_first() -> None:
    states: Any = KeptStates()
    assert states.now() is None
    assert states.get("none") is None
    assert StepKey("a") not in states._states
