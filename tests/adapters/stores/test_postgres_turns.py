"""Turns on PostgreSQL when many want them at once: never more than may, nobody forgotten."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection

from sidecar.adapters.clock import SystemClock
from sidecar.adapters.elections.memory import Booth, MemoryElection
from sidecar.adapters.entropy import SystemEntropy
from sidecar.adapters.notices_memory import MemoryNotices, NoticeHub
from sidecar.adapters.postgres.reading import Reading
from sidecar.adapters.queues.memory import MemoryBroker, MemoryQueue
from sidecar.adapters.stores.postgres import PostgresStore
from sidecar.adapters.telemetry.memory import MemoryTelemetry
from sidecar.engine.agent import Agent, Ports, Settings
from sidecar.engine.duties import DutyTimes
from sidecar.engine.identity import Identity
from sidecar.engine.receiving import LookInterval
from sidecar.ports.service import Call
from sidecar.ports.store import Missing, Moved, Store, Transition
from sidecar.saga.bodies import error_body
from sidecar.saga.changes import Verdict
from sidecar.saga.definition import JsonText
from sidecar.saga.events import Admitted, CancelRequested
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.states import WORKFLOW_ENDS, Action, WorkflowStatus
from sidecar.saga.turns import InLine, TurnKey
from sidecar.saga.workflow import StepKey, WorkflowId
from tests.adapters.stores.postgres_backend import PostgresBackend, backend, migrated
from tests.adapters.stores.racing import ROUNDS, behind, long, neck_and_neck, race
from tests.adapters.stores.stubborn import Stubborn
from tests.conformance.store_language import fan
from tests.conformance.store_many_turns import in_turn
from tests.conformance.store_play import NAMESPACE, call, next_in, register, settle
from tests.conformance.store_step_turns import BODY
from tests.servers.facts import until

__all__ = ["backend", "migrated"]

pytestmark = pytest.mark.postgres

PAY = StepKey("pay")
ACME = TurnKey(NAMESPACE, "order", '"acme"', "pay")
SIDECARS = 3
LIMIT = 2
TIMES = DutyTimes(every=timedelta(milliseconds=20), idle_every=timedelta(milliseconds=50))


class Desk:
    """The services of all sidecars, and their book: who is inside, at once, by their keys."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.inside: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    async def open(self) -> None:
        """Nothing is to be opened."""

    async def close(self) -> None:
        """Nothing is to be closed."""

    async def ready(self) -> bool:
        """Always."""
        return True

    async def call(self, call: Call) -> Outcome:
        """Let one in for some turns of the loop, and write down how many there were."""
        name = f"{call.key.step} {json.loads(call.body).get('key')}"
        if call.action is Action.EXECUTE:
            self.inside[name] += 1
            self.calls[name] += 1
            self.most[name] = max(self.most[name], self.inside[name])
            for _ in range(self.draw.randrange(20)):
                await asyncio.sleep(0)
            self.inside[name] -= 1
        return self._outcome(call)

    def _outcome(self, call: Call) -> Outcome:
        roll = self.draw.random()
        if call.action is Action.EXECUTE and roll < 0.02:
            return Outcome(OutcomeKind.REFUSED, error=error_body("no", "no"))
        if roll < 0.10:
            error = error_body("timeout", "no answer")
            return Outcome(OutcomeKind.UNKNOWN, error=error, may_have_effect=True)
        return Outcome(OutcomeKind.DONE, output=JsonText("{}"))


@pytest.fixture
async def desk(backend: PostgresBackend) -> AsyncIterator[tuple[Desk, list[Agent]]]:
    """Some whole sidecars on one database, of which one leads."""
    desk = Desk(seed=5)
    broker, hub, booth = MemoryBroker(), NoticeHub(), Booth()
    settings = Settings(
        concurrency=8, look=LookInterval(first_s=0.05, last_s=0.2), duties=TIMES, drain_s=5.0
    )
    agents = []
    for number in range(SIDECARS):
        named = {"namespace": NAMESPACE, "service": "payments"}
        ports = Ports(
            store=backend.make(),
            queue=MemoryQueue(broker, **named),
            notices=MemoryNotices(hub, **named),
            service=desk,
            election=MemoryElection(booth),
            clock=SystemClock(),
            entropy=SystemEntropy(),
            telemetry=MemoryTelemetry(),
        )
        agents.append(
            Agent(
                Identity(**named, incarnation=f"s{number}", host="h", version="1"), ports, settings
            )
        )
    for agent in agents:
        await agent.start()
    yield desk, agents
    for agent in agents:
        await agent.stop()


@pytest.mark.timeout(120)
async def test_never_more_are_called_at_a_time_than_may_and_all_come_to_their_turn(
    desk: tuple[Desk, list[Agent]], backend: PostgresBackend
) -> None:
    """Some are refused, some are tried again, and some workflows are cancelled meanwhile."""
    book, agents = desk
    store = await backend.open_store()
    retry = {"initial_interval": "1ms", "max_interval": "10ms", "max_attempts": 5}
    item = {"key": "${string(each.item % 2)}"}
    await register(
        store,
        fan("each", 5, retry=retry, input=item, concurrency={**item, "limit": LIMIT}),
        call("one", retry=retry, input={"key": "one"}, concurrency={"key": "one"}),
    )
    begun = []
    for number in range(30):
        agent = agents[number % SIDECARS]
        begun.append(await agent.commands.start(NAMESPACE, "order", input={"lines": [1, 2, 3, 4]}))
        if number % 7 == 3:
            await agent.verbs.cancel(NAMESPACE, begun[-1].id)
    ids = [WorkflowId(one.id) for one in begun]

    async def all_have_ended() -> bool:
        return set((await store.statuses(ids)).values()) <= WORKFLOW_ENDS

    await until(all_have_ended, within_s=100)
    assert book.most == {"each 0": LIMIT, "each 1": LIMIT, "one one": 1}
    assert sum(book.calls.values()) > 100
    ends = Counter((await store.statuses(ids)).values())
    assert min(ends[WorkflowStatus.COMPLETED], ends[WorkflowStatus.ROLLED_BACK]) > 3
    assert await backend.run("SELECT * FROM turns") == []


# -- two at once ------------------------------------------------------------------------------


@pytest.fixture
async def here(backend: PostgresBackend) -> Stubborn:
    return Stubborn(await backend.open_store())


@pytest.fixture
async def there(backend: PostgresBackend) -> Stubborn:
    return Stubborn(await backend.open_store())


async def _verdict(player: Stubborn, workflow: WorkflowId) -> Verdict:
    result = await player.insist(Transition(workflow, Admitted(PAY), turn=ACME))
    assert isinstance(result, Moved), result
    return result.changes.verdict


@long
async def test_two_who_admit_two_to_one_place_admit_one(here: Stubborn, there: Stubborn) -> None:
    definition = await register(here.store, in_turn())
    winners: Counter[bool] = Counter()
    for turn in range(ROUNDS):
        first, second = [await here.start(definition, body=BODY) for _ in range(2)]
        verdicts = await neck_and_neck(
            turn,
            here.store,
            lambda one=first: _verdict(here, one),
            there.store,
            lambda one=second: _verdict(there, one),
        )
        assert sorted(verdicts) == [Verdict.APPLIED, Verdict.IGNORED]
        winners[verdicts[0] is Verdict.APPLIED] += 1
        for one in (first, second):
            await here.insist(Transition(one, CancelRequested()))
    assert len(winners) == 2, "one side always won"


@long
async def test_an_admission_that_races_a_cancel_leaves_no_place_behind(
    here: Stubborn, there: Stubborn, backend: PostgresBackend
) -> None:
    definition = await register(here.store, in_turn())
    winners: Counter[Verdict] = Counter()
    for turn in range(ROUNDS):
        workflow = await here.start(definition, body=BODY)
        verdict, _ = await neck_and_neck(
            turn,
            here.store,
            lambda one=workflow: _verdict(here, one),
            there.store,
            lambda one=workflow: there.insist(Transition(one, CancelRequested())),
        )
        winners[verdict] += 1
        assert await here.status(workflow) is WorkflowStatus.ROLLED_BACK
        assert await backend.run("SELECT * FROM turns") == []
    assert len(winners) == 2, "one side always won"


@long
async def test_an_end_that_races_an_admission_is_seen_now_or_at_the_next_look(
    here: Stubborn, there: Stubborn
) -> None:
    definition = await register(here.store, in_turn())
    winners: Counter[Verdict] = Counter()
    first = await here.start(definition, body=BODY)
    assert await _verdict(here, first) is Verdict.APPLIED
    for turn in range(ROUNDS):
        second = await here.start(definition, body=BODY)
        claimed = await here.claim_one()
        _, verdict = await neck_and_neck(
            turn,
            here.store,
            lambda one=claimed: here.insist(settle(one)),
            there.store,
            lambda one=second: _verdict(there, one),
        )
        winners[verdict] += 1
        if verdict is Verdict.IGNORED:
            assert await next_in(here.store, ACME) == [InLine(second, PAY)]
            assert await _verdict(here, second) is Verdict.APPLIED
        assert [one.who for one in await here.store.turn_holders(ACME)] == [InLine(second, PAY)]
    assert len(winners) == 2, "one side always won"


async def _together(player: Stubborn, members: list[Transition]) -> list[Verdict]:
    """Admit some by one batch, and those whose key was locked by batches of their own."""
    result = await player.persist(player.batch(transitions=members))
    verdicts = []
    for member, answer in zip(members, result.transitions, strict=True):
        moved = await player.insist(member) if answer is Missing.LOCKED else answer
        assert isinstance(moved, Moved), moved
        verdicts.append(moved.changes.verdict)
    return verdicts


@long
async def test_batches_that_admit_crosswise_never_wait_for_each_other(
    here: Stubborn, there: Stubborn
) -> None:
    """Each locks two keys and two workflows, in the opposite order of its members."""
    definition = await register(here.store, in_turn(), call("end"))
    other = ACME._replace(key='"other"')
    for turn in range(ROUNDS):
        first = await here.start(definition, body=BODY)
        second = await here.start(definition, body='{"account":"other"}')
        members = [
            Transition(first, Admitted(PAY), turn=ACME, wait=True),
            Transition(second, Admitted(PAY), turn=other, wait=True),
        ]
        found = await race(
            turn,
            _together(here, members),
            behind(there.store, turn, lambda some=members[::-1]: _together(there, some)),
        )
        verdicts = [verdict for each in found for verdict in each]
        assert Counter(verdicts) == {Verdict.APPLIED: 2, Verdict.IGNORED: 2}
        for one in (first, second):
            cancel = Transition(one, CancelRequested(), wait=True)
            assert await here.insist(cancel) is not Missing.LOCKED
    assert (here.troubles, there.troubles) == (0, 0)


async def test_who_is_next_is_asked_beside_what_keeps_a_sidecar_alive(here: Stubborn) -> None:
    """Its connections may all be busy, and those of ordinary reads: neither waits for the other."""
    definition = await register(here.store, in_turn())
    workflow = await here.start(definition, body=BODY)
    store = here.store
    assert isinstance(store, PostgresStore)
    async with _all_of(store.vital):
        assert await next_in(store, ACME) == [InLine(workflow, PAY)]
    async with _all_of(store.readers):
        await store.ping()
        assert list(await store.free_turns(NAMESPACE, 10)) == [ACME]


@asynccontextmanager
async def _all_of(reading: Reading) -> AsyncIterator[None]:
    """Somebody has all connections of a pool."""
    async with AsyncExitStack() as taken:
        for _ in range(reading.pool.max_size):
            await taken.enter_async_context(reading.pool.connection())
        yield


async def test_a_key_that_somebody_else_has_locked_holds_up_nobody_else(
    here: Stubborn, backend: PostgresBackend
) -> None:
    """Its member is told so, and the batch takes effect without it."""
    definition = await register(here.store, in_turn())
    waits, goes = [
        await here.start(definition, body=json.dumps({"account": one})) for one in ("acme", "other")
    ]
    members = [
        Transition(waits, Admitted(PAY), turn=ACME),
        Transition(goes, Admitted(PAY), turn=ACME._replace(key='"other"')),
    ]
    async with _locked(backend, ACME):
        found = (await here.store.commit(here.batch(transitions=members))).transitions
        assert found[0] is Missing.LOCKED
        assert isinstance(found[1], Moved)
        assert found[1].changes.verdict is Verdict.APPLIED
        assert await here.store.turn_holders(ACME) == []
    assert await _verdict(here, waits) is Verdict.APPLIED


async def test_who_waits_for_a_locked_key_begins_after_it_and_others_go_on_meanwhile(
    desk: tuple[Desk, list[Agent]], backend: PostgresBackend
) -> None:
    book, agents = desk
    store = await backend.open_store()
    await register(store, call("plain"), name="plain")
    await register(store, in_turn())
    commands = agents[0].commands
    async with _locked(backend, ACME):
        waits = await commands.start(NAMESPACE, "order", input={"account": "acme"})
        others = [await commands.start(NAMESPACE, "plain", input={}) for _ in range(20)]
        await until(lambda: _all_ended(store, others), within_s=30)
        assert await store.turn_holders(ACME) == []
    await until(lambda: _all_ended(store, [waits]), within_s=30)
    assert sum(book.calls.values()) >= 21


async def _all_ended(store: Store, begun: Sequence[Any]) -> bool:
    found = await store.statuses([WorkflowId(one.id) for one in begun])
    return set(found.values()) <= WORKFLOW_ENDS


@asynccontextmanager
async def _locked(backend: PostgresBackend, turn: TurnKey) -> AsyncIterator[None]:
    """Another session has the lock of a key, as one that died with it would for a while."""
    name = f"{turn.namespace}/{turn.definition}/{turn.step}/{turn.key}"
    async with await AsyncConnection.connect(backend.dsn) as session:
        await session.execute("SELECT pg_advisory_xact_lock(24770, hashtext(%s))", (name,))
        yield
        await session.rollback()
