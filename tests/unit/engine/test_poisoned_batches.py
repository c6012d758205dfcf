"""Group commit with a member that poisons its batch: nobody else pays, and no answer is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from sidecar.adapters.clock import ManualClock
from sidecar.adapters.entropy import SeededEntropy
from sidecar.adapters.telemetry.memory import MemoryTelemetry
from sidecar.definitions import compile_stored, parse_definition, render
from sidecar.engine import group_commit
from sidecar.engine.group_commit import CommitLimits, Committer
from sidecar.engine.identity import Identity
from sidecar.errors import Overloaded, SchemaMismatch, StoreError, StoreUnavailable
from sidecar.ports import telemetry as metrics
from sidecar.ports.store import (
    BatchResult,
    Claimed,
    Missing,
    Moved,
    Start,
    Started,
    Transition,
)
from sidecar.saga.definition import JsonText
from sidecar.saga.events import Answered, CancelRequested
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.workflow import StepKey
from tests.unit.engine.faces import until
from tests.unit.engine.poison import BUG, PoisonedStore, names

DOCUMENT = b"name: order\nsteps:\n- {name: a, service: payments, execute: /a, compensate: /b}\n"
KEY = StepKey("a")


class Bench:
    """A committer over a store that can be poisoned."""

    def __init__(self, **limits: int) -> None:
        self.clock = ManualClock()
        self.entropy = SeededEntropy(7, self.clock)
        self.telemetry = MemoryTelemetry()
        self.store = PoisonedStore(compile_document=compile_stored, render=render, clock=self.clock)
        self.after: Callable[[BatchResult], None] = lambda _result: None
        self.committer = Committer(
            self.store,
            Identity("default", "payments", "me", "host", "0"),
            CommitLimits(lease_margin=timedelta(seconds=5), **limits),
            clock=self.clock,
            entropy=self.entropy,
            telemetry=self.telemetry,
            after=lambda _batch, result, _began: self.after(result),
        )

    async def open(self) -> None:
        """Open the store, register the definition, begin to write."""
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

    async def claimed(self, number: int) -> list[Claimed]:
        """Steps that this sidecar holds."""
        started = await asyncio.gather(
            *(self.committer.submit(self.start()) for _ in range(number))
        )
        answers = await self.committer.claim([(one.workflow, KEY) for one in started])
        return [one for one in answers if isinstance(one, Claimed)]


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """What was logged; a terminal would show each of the many traces at length."""
    with capture_logs() as lines:
        yield lines


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """A committer that runs, and lets nobody rest for long."""
    monkeypatch.setattr(group_commit, "REFUSED_PAUSE_S", 0.001)
    monkeypatch.setattr(group_commit, "UNAVAILABLE_PAUSE_S", 0.001)
    made = Bench()
    await made.open()
    yield made
    await made.committer.stop()


def settled(claimed: Claimed) -> Transition:
    """A success of what was claimed."""
    outcome = Outcome(OutcomeKind.DONE, output=JsonText("1"))
    return Transition(
        claimed.workflow, Answered(claimed.key, claimed.action, claimed.attempt, outcome)
    )


@pytest.mark.parametrize("error", [BUG, StoreError("25P03"), KeyError("x")], ids=repr)
@pytest.mark.fault(17)
async def test_a_poisoned_settlement_costs_no_one_else_an_answer(
    bench: Bench, error: Exception
) -> None:
    bad, *good = await bench.claimed(20)
    bench.store.poison = names(bad.workflow, error)
    ill = asyncio.create_task(bench.committer.submit(settled(bad)))
    answers = await asyncio.gather(*(bench.committer.submit(settled(one)) for one in good))
    assert all(isinstance(one, Moved) for one in answers)
    assert not ill.done()
    bench.store.poison = None
    assert isinstance(await ill, Moved)
    assert await bench.store.statuses([bad.workflow]) == {bad.workflow: "completed"}


async def test_a_settlement_that_failed_alone_goes_alone_again(bench: Bench) -> None:
    bad, good = await bench.claimed(2)
    bench.store.poison = names(bad.workflow, BUG)
    ill = asyncio.create_task(bench.committer.submit(settled(bad)))
    await until(lambda: bench.telemetry.total(metrics.COMMIT_RETRIES) >= 3)
    before = bench.store.commits
    assert isinstance(await bench.committer.submit(settled(good)), Moved)
    assert bench.telemetry.total(metrics.COMMIT_RETRIES) + 1 >= bench.store.commits - before
    bench.store.poison = None
    assert isinstance(await ill, Moved)


async def test_a_poisoned_start_is_told_and_harms_nobody(bench: Bench) -> None:
    starts = [bench.start() for _ in range(20)]
    bench.store.poison = names(starts[13].id, BUG)
    results = await asyncio.gather(
        *(bench.committer.submit(one) for one in starts), return_exceptions=True
    )
    assert [number for number, one in enumerate(results) if isinstance(one, Exception)] == [13]
    assert results[13] is BUG


async def test_a_poisoned_command_is_told_and_not_kept(bench: Bench) -> None:
    (claimed,) = await bench.claimed(1)
    bench.store.poison = names(claimed.workflow, BUG)
    cancel = Transition(claimed.workflow, CancelRequested(), wait=True)
    with pytest.raises(SystemError):
        await bench.committer.submit(cancel, within=20)


async def test_a_poisoned_key_is_offered_again_and_the_others_are_claimed(bench: Bench) -> None:
    started = [await bench.committer.submit(bench.start()) for _ in range(8)]
    bench.store.poison = names(started[3].workflow, BUG)
    answers = await bench.committer.claim([(one.workflow, KEY) for one in started])
    assert answers.pop(3) is Missing.LOCKED
    assert all(isinstance(one, Claimed) for one in answers)


async def test_another_schema_is_waited_for_like_a_store_that_is_away(bench: Bench) -> None:
    bad, good = await bench.claimed(2)
    refusals = [SchemaMismatch("no such column")] * 3
    bench.store.poison = lambda _batch: refusals.pop() if refusals else None
    answers = await asyncio.gather(
        bench.committer.submit(settled(bad)), bench.committer.submit(settled(good))
    )
    assert all(isinstance(one, Moved) for one in answers)
    assert bench.telemetry.total(metrics.COMMIT_RETRIES) == 3


async def test_what_goes_wrong_after_a_commit_takes_no_answer_away(
    bench: Bench, logs: list[MutableMapping[str, Any]]
) -> None:
    (claimed,) = await bench.claimed(1)

    def stumble(_result: BatchResult) -> None:
        raise BUG

    bench.after = stumble
    assert isinstance(await bench.committer.submit(settled(claimed)), Moved)
    assert isinstance(await bench.committer.submit(bench.start()), Started)
    assert bench.committer.sound
    assert [line["event"] for line in logs] == ["conclusions_failed"] * 2


async def test_stopping_tells_a_settlement_that_rests(bench: Bench) -> None:
    (claimed,) = await bench.claimed(1)
    bench.store.poison = names(claimed.workflow, BUG)
    ill = asyncio.create_task(bench.committer.submit(settled(claimed)))
    await until(lambda: bench.telemetry.total(metrics.COMMIT_RETRIES))
    await bench.committer.stop()
    with pytest.raises(StoreUnavailable):
        await ill


# -- what waits ----------------------------------------------------------------------------------


async def test_starts_that_gave_up_are_let_go_of_while_the_store_is_away(bench: Bench) -> None:
    bench.store.poison = lambda _batch: StoreUnavailable("away")
    first = asyncio.create_task(bench.committer.submit(bench.start()))
    await until(lambda: bench.store.commits)
    waiting = [
        asyncio.create_task(bench.committer.submit(bench.start("0" * 1000), within=5))
        for _ in range(10)
    ]
    line = bench.committer._line
    await until(lambda: len(line) == 10)
    assert line.weight > 10_000
    bench.clock.advance(6)
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(one, StoreUnavailable) for one in told)
    assert (len(line), line.weight) == (0, 0)
    bench.store.poison = None
    await first


async def test_the_bodies_that_wait_are_bounded() -> None:
    bench = Bench(max_waiting_bytes=100_000)
    await bench.open()
    bench.store.hold = asyncio.Event()
    body = JsonText(f'"{"x" * 50_000}"')
    waiting = []
    for number in range(3):
        waiting.append(asyncio.create_task(bench.committer.submit(bench.start(body))))
        await until(
            lambda wanted=number: bench.store.commits and len(bench.committer._line) == wanted
        )
    with pytest.raises(Overloaded):
        await bench.committer.submit(bench.start(body))
    waiting[2].cancel()
    bench.store.hold.set()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert bench.committer._line.weight == 0
    await bench.committer.submit(bench.start(body))
    await bench.committer.stop()
