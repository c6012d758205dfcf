"""The leader's duties with something that goes wrong again and again: the rest is done."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, MutableMapping
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from sidecar.adapters.clock import ManualClock
from sidecar.adapters.entropy import SeededEntropy
from sidecar.adapters.telemetry.memory import MemoryTelemetry
from sidecar.definitions import compile_stored, render
from sidecar.engine import duties
from sidecar.engine.duties import Duties, DutyTimes
from sidecar.engine.identity import Identity
from sidecar.errors import SchemaMismatch, StaleEpoch, StoreConflict, StoreUnavailable
from sidecar.ports import telemetry as metrics
from sidecar.ports.queue import Doorbell
from sidecar.ports.records import LeaderWork
from sidecar.ports.store import Epoch
from sidecar.saga.states import StepStatus, WorkflowStatus
from sidecar.saga.workflow import WorkflowId
from tests.conformance.store_play import Player, call, register, start_of
from tests.unit.engine.poison import BUG, PoisonedStore, names

LEASE_S = 40
DUTIES = ("leases", "deadlines", "ring_again", "sidecars")


class HeardRinger:
    """Hears the doorbells that a real one would publish."""

    def __init__(self) -> None:
        self.rung: list[Doorbell] = []

    def ring(self, doorbells: list[Doorbell]) -> None:
        """Take doorbells."""
        self.rung += doorbells

    def conclude(self, *_: object) -> None:
        """Take what was moved."""


class Leader:
    """Duties over a store that can be poisoned, under an epoch in force."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.entropy = SeededEntropy(7, self.clock)
        self.telemetry = MemoryTelemetry()
        self.store = PoisonedStore(compile_document=compile_stored, render=render, clock=self.clock)
        self.payments = Player(self.store, "payments")
        self.inventory = Player(self.store, "inventory")
        self.ringer = HeardRinger()
        self.duties = Duties(
            self.store,
            self.ringer,  # type: ignore[arg-type]
            Identity("default", "payments", "me", "host", "0"),
            DutyTimes(ring_every=timedelta(), forget_every=timedelta()),
            spread=lambda changes: None,
            look=lambda turn: None,
            clock=self.clock,
            entropy=self.entropy,
            telemetry=self.telemetry,
        )
        self.epoch = Epoch(0)

    async def open(self) -> None:
        """Begin a term."""
        await self.store.open()
        self.epoch = await self.store.mint_epoch("default", "me")

    async def round(self) -> None:
        """Do all duties."""
        await self.duties.round(self.epoch, may_end_leases=True)

    async def crashed(self, number: int) -> list[WorkflowId]:
        """Workflows whose step is held by nobody any more."""
        definition = await register(self.store, call("charge", timeout="30s"), timeout="1m")
        workflows = [await self.payments.start(definition) for _ in range(number)]
        await self.payments.claim()
        self.clock.advance(LEASE_S)
        return workflows

    async def held(self, workflows: list[WorkflowId]) -> list[WorkflowId]:
        """Those whose step still runs."""
        return [
            one
            for one in workflows
            if (await self.payments.see_step(one, "charge")).status is StepStatus.RUNNING
        ]

    def runs(self, duty: str, result: str) -> int:
        """How often a duty ended so."""
        return self.telemetry.counts[metrics.DUTY_RUNS.name, (duty, result)]


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """What was logged; a terminal would show each of the traces at length."""
    with capture_logs() as lines:
        yield lines


@pytest.fixture
async def leader() -> AsyncIterator[Leader]:
    """A leader in its term."""
    made = Leader()
    await made.open()
    yield made
    await made.store.close()


async def test_a_workflow_that_cannot_be_moved_holds_up_no_other(
    leader: Leader, logs: list[MutableMapping[str, Any]]
) -> None:
    bad, *good = await leader.crashed(20)
    leader.store.poison = names(bad, BUG)
    await leader.round()
    assert await leader.held([bad, *good]) == [bad]
    assert [line["workflow"] for line in logs if line["event"] == "duty_refused"] == [bad]


@pytest.mark.parametrize("question", ["leader_work", "ended_leases"])
@pytest.mark.fault(33)
async def test_who_waited_long_for_the_store_cannot_tell_who_is_silent(
    leader: Leader, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    """It was away, and the others could not be seen: no lease is ended by that answer."""
    workflows = await leader.crashed(2)
    ask, outage = getattr(leader.store, question), [11.0]

    async def after_an_outage(*values: Any) -> Any:
        leader.clock.advance(outage.pop() if outage else 0.0)
        return await ask(*values)

    monkeypatch.setattr(leader.store, question, after_an_outage)
    with pytest.raises(StoreUnavailable, match="too late"):
        await leader.round()
    assert await leader.held(workflows) == workflows
    await leader.round()
    assert await leader.held(workflows) == []


async def test_it_is_put_off_ever_longer_and_moved_when_it_can_be(
    leader: Leader, logs: list[MutableMapping[str, Any]]
) -> None:
    (bad,) = await leader.crashed(1)
    leader.store.poison = names(bad, BUG)
    for _ in range(40):
        await leader.round()
        leader.clock.advance(1)
    pauses = [line["again_in_s"] for line in logs if line["event"] == "duty_refused"]
    assert pauses == [5, 10, 20, 40]
    leader.store.poison = None
    leader.clock.advance(40)
    await leader.round()
    assert await leader.held([bad]) == []


async def test_those_that_are_put_off_do_not_hide_the_others(
    leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duties, "BATCH_MAX", 3)
    bad = await leader.crashed(3)
    leader.store.poison = lambda batch: BUG if batch.transitions else None
    await leader.round()
    later = await leader.crashed(1)
    leader.store.poison = lambda batch: (
        BUG if {one.workflow for one in batch.transitions} & set(bad) else None
    )
    for _ in range(3):
        await leader.round()
    assert await leader.held([*bad, *later]) == bad


async def test_a_duty_that_fails_keeps_no_other_from_being_done(
    leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    (late,) = await leader.crashed(1)
    leader.clock.advance(60)

    async def broken(*_: object) -> None:
        raise BUG

    monkeypatch.setattr(leader.store, "ended_leases", broken)
    await leader.round()
    assert (leader.runs("leases", "failed"), leader.runs("deadlines", "done")) == (1, 1)
    assert await leader.payments.status(late) is WorkflowStatus.ROLLING_BACK


@pytest.mark.parametrize(
    "error", [StoreConflict("40P01"), StoreUnavailable("away")], ids=["conflict", "away"]
)
async def test_what_interrupts_a_duty_is_raised_after_the_others_are_done(
    leader: Leader, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(leader.store, "ended_leases", broken)
    with pytest.raises(type(error)):
        await leader.round()
    assert leader.runs("sidecars", "done") == 1


@pytest.mark.parametrize("error", [BUG, StoreUnavailable("away")], ids=["bug", "away"])
async def test_all_duties_are_done_if_nobody_can_tell_which_have_work(
    leader: Leader, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def broken(*_: object) -> None:
        raise error

    workflows = await leader.crashed(2)
    monkeypatch.setattr(leader.store, "leader_work", broken)
    await leader.round()
    assert await leader.held(workflows) == []


async def test_a_round_without_work_is_one_question(
    leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def asked(*_: object) -> None:
        raise BUG

    for name in ("ended_leases", "overdue_workflows", "ringable_steps"):
        monkeypatch.setattr(leader.store, name, asked)
    work = LeaderWork(
        ended_leases=False,
        due_timers=False,
        waiting_letters=False,
        free_turns=False,
        overdue_workflows=False,
        ringable_steps=False,
    )

    async def told(*_: object) -> LeaderWork:
        return work

    monkeypatch.setattr(leader.store, "leader_work", told)
    await leader.round()
    assert [leader.runs(name, "done") for name in DUTIES] == [1, 1, 1, 1]


async def test_a_void_epoch_ends_the_round(leader: Leader) -> None:
    await leader.crashed(1)
    await leader.store.mint_epoch("default", "another")
    with pytest.raises(StaleEpoch):
        await leader.round()
    assert leader.runs("deadlines", "done") == 0


async def test_another_schema_is_nobodys_fault(leader: Leader) -> None:
    await leader.crashed(4)
    leader.store.poison = lambda batch: SchemaMismatch() if batch.transitions else None
    before = leader.store.commits
    await leader.round()
    assert leader.store.commits == before + 1
    assert leader.runs("leases", "failed") == 1


# -- ringing again -------------------------------------------------------------------------------


async def test_every_step_is_rung_for_however_many_another_service_has(
    leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duties, "RING_PER_SERVICE", 10)
    crowd = await register(leader.store, call("charge"), name="crowd")
    await leader.payments.commit(leader.payments.batch(starts=[start_of(crowd) for _ in range(35)]))
    leader.clock.advance(1)
    lone = await leader.inventory.start(
        await register(leader.store, call("reserve", service="inventory"), name="lone")
    )
    leader.clock.advance(timedelta(minutes=1).total_seconds())
    for number in range(1, 5):
        await leader.payments.beat()
        await leader.inventory.beat()
        await leader.round()
        mine = [one for one in leader.ringer.rung if one.service == "payments"]
        assert len(set(mine)) == len(mine) == min(10 * number, 35)
        assert [one.workflow for one in leader.ringer.rung if one.service == "inventory"] == [lone]
        leader.clock.advance(1)
    leader.clock.advance(10)
    await leader.payments.beat()
    await leader.round()
    # From the beginning again: the first page, and the lone one.
    assert len(leader.ringer.rung) == 36 + 11


async def test_duties_that_are_not_due_are_left_out(leader: Leader) -> None:
    leader.duties = Duties(
        leader.store,
        leader.ringer,  # type: ignore[arg-type]
        Identity("default", "payments", "me", "host", "0"),
        DutyTimes(),
        spread=lambda changes: None,
        look=lambda turn: None,
        clock=leader.clock,
        entropy=leader.entropy,
        telemetry=leader.telemetry,
    )
    for _ in range(3):
        await leader.round()
    done = {
        name: leader.telemetry.counts[metrics.DUTY_RUNS.name, (name, "done")] for name in DUTIES
    }
    assert done == {"leases": 3, "deadlines": 3, "ring_again": 1, "sidecars": 1}
    leader.clock.advance(5)
    await leader.round()
    assert leader.telemetry.counts[metrics.DUTY_RUNS.name, ("ring_again", "done")] == 2


def test_rounds_come_ever_more_rarely_while_there_is_nothing_to_do() -> None:
    times = DutyTimes()
    pauses = [1.0]
    while len(pauses) < 6:
        pauses.append(times.longer_pause(pauses[-1]))
    assert pauses == [1.0, 1.5, 2.25, 3.375, 5.0, 5.0]


async def test_a_leader_looks_at_the_keys_page_by_page_and_begins_anew(
    leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the first page may be of such as cannot be admitted."""
    monkeypatch.setattr(duties, "BATCH_MAX", 2)
    looked: list[str] = []
    monkeypatch.setattr(leader.duties, "_look", lambda turn: looked.append(turn.key))
    definition = await register(
        leader.store, call("a"), concurrency={"key": "${string(input.amount)}"}
    )
    for amount in range(5):
        await leader.payments.start(definition, body=f'{{"amount":{amount}}}')
    for _ in range(4):
        await leader.round()
    assert looked == [f'"{amount}"' for amount in (0, 1, 2, 3, 4, 0, 1)]
