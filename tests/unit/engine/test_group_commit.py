"""The group commit: who shares a transaction, and who pays for whose faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise

import pytest
from msgspec.structs import replace

from sidecar.adapters.clock import ManualClock
from sidecar.adapters.entropy import SeededEntropy
from sidecar.adapters.stores.memory import MemoryStore
from sidecar.adapters.telemetry.memory import MemoryTelemetry
from sidecar.definitions import compile_stored, parse_definition, render
from sidecar.engine.commit_line import REST_MAX_S, Waiting
from sidecar.engine.group_commit import CommitLimits, Committer
from sidecar.engine.identity import Identity
from sidecar.errors import Overloaded, StoreConflict, StoreDataError, StoreUnavailable
from sidecar.ports import telemetry as metrics
from sidecar.ports.store import (
    Batch,
    BatchResult,
    Claimed,
    Missing,
    Moved,
    Start,
    Started,
    Transition,
)
from sidecar.saga.definition import Definition, JsonText
from sidecar.saga.events import Admitted, Answered, CancelRequested
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.turns import TurnKey
from sidecar.saga.workflow import StepKey, WorkflowId
from tests.servers.facts import until

DOCUMENT = b"name: order\nsteps:\n- {name: a, service: payments, execute: /a, compensate: /b}\n"
POISON = JsonText('{"text": "\\u0000"}')
KEY = StepKey("a")


class Tricky(MemoryStore):
    """A memory store whose commits fail as they are told."""

    faults: list[Exception]
    answers_lost: int = 0
    batches: list[Batch]

    async def commit(self, batch: Batch) -> BatchResult:
        """Fail before, succeed, or succeed and lose the answer."""
        self.batches.append(batch)
        if self.faults:
            raise self.faults.pop(0)
        result = await super().commit(batch)
        if self.answers_lost:
            self.answers_lost -= 1
            raise StoreUnavailable("the answer was lost")
        return result


class Bench:
    """A committer over a tricky store."""

    def __init__(self, **limits: int) -> None:
        self.clock = ManualClock()
        self.entropy = SeededEntropy(7, self.clock)
        self.telemetry = MemoryTelemetry()
        self.store = Tricky(compile_document=compile_stored, render=render, clock=self.clock)
        self.store.faults, self.store.batches = [], []
        self.concluded: list[BatchResult] = []
        self.definition: Definition
        self.committer = Committer(
            self.store,
            Identity("default", "payments", "me", "host", "0"),
            CommitLimits(lease_margin=timedelta(seconds=5), **limits),
            clock=self.clock,
            entropy=self.entropy,
            telemetry=self.telemetry,
            after=lambda _batch, result, _began: self.concluded.append(result),
        )

    async def open(self) -> None:
        """Open the store and register the definition."""
        await self.store.open()
        parsed = parse_definition(DOCUMENT)
        stored, _ = await self.store.put_definition(
            "default", parsed.name, parsed.document, parsed.digest
        )
        self.definition = compile_stored(stored.document, "default", "order", stored.version)
        await self.committer.start()

    def start(self, body: str = "{}") -> Start:
        """A new workflow."""
        return Start(self.entropy.workflow_id(), self.definition, JsonText(body), "hash")

    async def claimed(self) -> Claimed:
        """A step that this sidecar holds."""
        started = await self.committer.submit(self.start())
        (answer,) = await self.committer.claim([(started.workflow, KEY)])
        assert isinstance(answer, Claimed)
        return answer


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """A committer that runs."""
    made = Bench()
    await made.open()
    yield made
    await made.committer.stop()
    await made.store.close()


def settled(claimed: Claimed, output: JsonText | None = None) -> Transition:
    """A success of what was claimed."""
    outcome = Outcome(OutcomeKind.DONE, output=output)
    return Transition(
        claimed.workflow, Answered(claimed.key, claimed.action, claimed.attempt, outcome)
    )


async def test_a_lone_member_goes_at_once_and_a_crowd_shares(bench: Bench) -> None:
    await bench.committer.submit(bench.start())
    await asyncio.gather(*(bench.committer.submit(bench.start()) for _ in range(50)))
    sizes = [len(batch.starts) for batch in bench.store.batches]
    assert sizes[0] == 1
    assert sum(sizes) == 51
    assert len(sizes) <= 3


async def test_a_poisoned_member_fails_alone(bench: Bench) -> None:
    bodies = ["{}"] * 20
    bodies[13] = POISON
    results = await asyncio.gather(
        *(bench.committer.submit(bench.start(body)) for body in bodies), return_exceptions=True
    )
    failed = [number for number, result in enumerate(results) if isinstance(result, Exception)]
    assert failed == [13]
    assert isinstance(results[13], StoreDataError)
    stored = await bench.store.statuses(
        [one.workflow for one in results if isinstance(one, Started)]
    )
    assert len(stored) == 19


@pytest.mark.fault(31)
async def test_a_conflict_is_tried_again_unseen(bench: Bench) -> None:
    bench.store.faults = [StoreConflict("40001"), StoreConflict("40P01")]
    assert isinstance(await bench.committer.submit(bench.start()), Started)
    assert bench.telemetry.total(metrics.COMMIT_RETRIES) == 2


@pytest.mark.fault(32)
async def test_a_lost_answer_repeats_the_same_batch_and_finds_its_claims(bench: Bench) -> None:
    started = await bench.committer.submit(bench.start())
    bench.store.answers_lost = 1
    (claimed,) = await bench.committer.claim([(started.workflow, KEY)])
    assert isinstance(claimed, Claimed)
    assert claimed.attempt == 1
    assert bench.store.batches[-1] is bench.store.batches[-2]


async def test_a_lost_answer_to_a_settlement_applies_it_once(bench: Bench) -> None:
    claimed = await bench.claimed()
    bench.store.answers_lost = 1
    answer = await bench.committer.submit(settled(claimed))
    assert isinstance(answer, Moved)
    assert answer.changes.verdict == "duplicate"
    workflow = await bench.store.get_workflow("default", claimed.workflow)
    assert workflow is not None
    assert workflow.status == "completed"
    assert workflow.steps[KEY].execute.tries == 1


async def test_a_start_gives_up_in_time_while_a_settlement_waits_for_ever(bench: Bench) -> None:
    claimed = await bench.claimed()
    bench.store.faults = [StoreUnavailable("away")] * 3
    settling = asyncio.create_task(bench.committer.submit(settled(claimed)))
    with pytest.raises(StoreUnavailable):
        await bench.committer.submit(bench.start(), within=0)
    assert isinstance(await settling, Moved)


async def test_a_start_that_nobody_waits_for_any_more_claims_nothing(bench: Bench) -> None:
    """Its slot has been given to somebody else."""
    claimed = await bench.claimed()
    bench.store.batches.clear()
    bench.store.faults = [StoreUnavailable("away")] * 2
    settling = asyncio.create_task(bench.committer.submit(settled(claimed)))
    with pytest.raises(StoreUnavailable):
        await bench.committer.submit(replace(bench.start(), claim_next=True), within=0)
    await settling
    tries = [batch.starts[0].claim_next for batch in bench.store.batches if batch.starts]
    assert tries == [True, False, False]
    assert bench.concluded[-1].claimed == ()


async def test_a_locked_workflow_rides_again_and_then_waits(bench: Bench) -> None:
    claimed = await bench.claimed()
    bench.store.locked = lambda _workflow: True  # for whoever does not wait
    assert isinstance(await bench.committer.submit(settled(claimed)), Moved)
    rides = [one.wait for batch in bench.store.batches for one in batch.transitions]
    assert rides == [False, False, False, True]


async def test_one_that_takes_a_turn_rests_between_its_rides(bench: Bench) -> None:
    """The lock of its key is not waited for, so it would go from batch to batch without an end."""
    key = TurnKey("default", "order", '"acme"')
    future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    one = Waiting(Transition(WorkflowId("one"), Admitted(), turn=key), future)
    rests = [one.ride_again() for _ in range(10)]
    assert rests[:2] == [0.0, 0.0]
    assert all(0.0 < before < after for before, after in pairwise(rests[2:8]))
    assert rests[-2:] == [REST_MAX_S] * 2
    plain = Waiting(Transition(WorkflowId("one"), CancelRequested()), future)
    assert {plain.ride_again() for _ in range(10)} == {0.0}
    assert plain.waits_for_lock


async def test_one_that_takes_a_turn_gives_up_while_its_key_is_locked_and_others_go_on(
    bench: Bench,
) -> None:
    workflow = (await bench.claimed()).workflow
    bench.store.locked = lambda _workflow: True
    commit = bench.store.commit

    async def all_locked(batch: Batch) -> BatchResult:
        plain = tuple(replace(one, wait=False) for one in batch.transitions)
        return await commit(replace(batch, transitions=plain))

    bench.store.commit = all_locked  # type: ignore[method-assign]
    key = TurnKey("default", "order", '"acme"')
    member = Transition(workflow, Admitted(), turn=key)
    waiting = asyncio.create_task(bench.committer.submit(member, within=0.05))
    await until(lambda: any(batch.transitions for batch in bench.store.batches))
    assert isinstance(await bench.committer.submit(bench.start()), Started)
    assert not waiting.done()
    bench.clock.advance(1)
    with pytest.raises(StoreConflict, match="locked by somebody else"):
        await waiting


@pytest.mark.fault(31)
async def test_whoever_waits_in_vain_for_a_lock_holds_up_nobody(bench: Bench) -> None:
    """Its row is held for long: what gathers meanwhile goes on apart, and it rides again."""
    claimed = await bench.claimed()
    held, commit = True, bench.store.commit
    bench.store.locked = lambda _workflow: held

    async def time_out(batch: Batch) -> BatchResult:
        if held and any(one.wait for one in batch.transitions):
            assert not batch.starts
            raise StoreConflict("55P03")
        await asyncio.sleep(0)  # a real store lets others run
        return await commit(batch)

    bench.store.commit = time_out  # type: ignore[method-assign]
    settling = asyncio.create_task(bench.committer.submit(settled(claimed)))
    await until(lambda: bench.telemetry.total(metrics.COMMIT_RETRIES) > 0)
    others = [await bench.committer.submit(bench.start()) for _ in range(10)]
    assert all(isinstance(one, Started) for one in others)
    assert not settling.done()
    held = False
    assert isinstance(await settling, Moved)


async def test_what_is_not_claimable_says_why(bench: Bench) -> None:
    claimed = await bench.claimed()
    unknown = WorkflowId("00000000-0000-0000-0000-000000000000")
    answers = await bench.committer.claim([(claimed.workflow, KEY), (unknown, KEY)])
    assert answers == [Missing.NOT_CLAIMABLE, Missing.UNKNOWN]


async def test_too_much_waiting_refuses_starts_but_no_settlement() -> None:
    bench = Bench(max_waiting=1)
    await bench.open()
    claimed = await bench.claimed()
    await bench.committer.stop()
    waiting = [
        asyncio.create_task(bench.committer.submit(bench.start())),
        asyncio.create_task(bench.committer.submit(settled(claimed))),
    ]
    await asyncio.gather(*(asyncio.create_task(_turn()) for _ in range(2)))
    with pytest.raises(Overloaded):
        await bench.committer.submit(bench.start())
    await bench.committer.start()
    await asyncio.gather(*waiting)
    await bench.committer.stop()


async def _turn() -> None:
    """Let whoever was created before have a turn."""


async def test_an_illegal_transition_is_its_own_members_fault(bench: Bench) -> None:
    claimed = await bench.claimed()
    await bench.committer.submit(settled(claimed))
    cancel = Transition(claimed.workflow, CancelRequested())
    results = await asyncio.gather(
        bench.committer.submit(cancel),
        bench.committer.submit(bench.start()),
        return_exceptions=True,
    )
    assert type(results[0]).__name__ == "IllegalTransition"
    assert isinstance(results[1], Started)


async def test_who_waits_behind_a_batch_that_cannot_be_committed_is_told_in_time(
    bench: Bench,
) -> None:
    claimed = await bench.claimed()
    before = len(bench.store.batches)
    bench.store.faults = [StoreUnavailable("away")] * 1000
    settling = asyncio.create_task(bench.committer.submit(settled(claimed)))
    cancel = Transition(claimed.workflow, CancelRequested(), wait=True)
    with pytest.raises(StoreUnavailable):
        await bench.committer.submit(cancel, within=0)
    bench.store.faults.clear()
    assert isinstance(await settling, Moved)
    assert not any(one.wait for it in bench.store.batches[before:] for one in it.transitions)


async def test_stopping_tells_those_who_wait(bench: Bench) -> None:
    bench.store.faults = [StoreUnavailable("away")] * 1000
    waiting = asyncio.create_task(bench.committer.submit(bench.start()))
    while not bench.store.batches:
        await _turn()
        await asyncio.gather(_turn())
    await bench.committer.stop()
    with pytest.raises(StoreUnavailable):
        await waiting
