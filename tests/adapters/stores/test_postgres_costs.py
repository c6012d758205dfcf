"""What an item costs the database does not depend on how many there are; counted, not timed.

`python -m tests.benchmarks.items` measures the time of it, too.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.rows import tuple_row

from sidecar.adapters.postgres.connections import parameters
from sidecar.adapters.postgres.queries import SQL as QUERIES
from sidecar.adapters.postgres.rates import SQL as RATES
from sidecar.adapters.postgres.rates import values_of
from sidecar.adapters.postgres.sql import Connection, send
from sidecar.adapters.postgres.writing import write
from sidecar.adapters.postgres.written import Written
from sidecar.adapters.stores.postgres import PostgresStore
from sidecar.ports.rates import RateAsk
from sidecar.ports.store import Batch, Claimed, Transition
from sidecar.saga.definition import Definition
from sidecar.saga.events import Admitted
from sidecar.saga.fan_out import MOST_NEXT
from sidecar.saga.pacing import RateLimit
from sidecar.saga.states import Action
from sidecar.saga.turns import TurnKey
from sidecar.saga.workflow import StepKey, WorkflowId
from tests.adapters.stores.postgres_backend import PostgresBackend, backend, migrated
from tests.benchmarks.metering import Cost, metered, rows_read
from tests.conformance.store_language import fan, lines, taken_on
from tests.conformance.store_play import (
    RETRY_ONCE,
    Player,
    call,
    new_id,
    next_in,
    refused,
    register,
    settle,
    start_of,
    unknown,
)

__all__ = ["backend", "migrated"]

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(120)]

FEW, MANY = 20, 1_000
FEW_ROWS = 12


@pytest.fixture
async def player(backend: PostgresBackend) -> Player:
    return Player(await backend.open_store())


async def _begin(player: Player, definition: Definition, size: int) -> WorkflowId:
    start = start_of(definition, body=lines(*range(size)))
    await player.store.commit(player.batch(starts=[start]))
    return start.id


async def _held(player: Player) -> list[Claimed]:
    return list((await player.store.commit(player.batch(due=10))).claimed)


async def _go(player: Player, count: int) -> list[Claimed]:
    """Settle so many items; return the next that are held."""
    while claims := await _held(player):
        if count <= 0 or claims[0].key == StepKey("last"):
            break
        count -= len(claims)
        await player.store.commit(player.batch(transitions=[settle(one) for one in claims]))
    return claims


async def _settled(player: Player, claimed: Claimed) -> Cost:
    with metered() as cost:
        await player.store.commit(player.batch(transitions=[settle(claimed)]))
    return cost


async def _let_the_planner_count(backend: PostgresBackend) -> None:
    for table in ("workflows", "steps", "items", "events", "turns"):
        await backend.run(f"ANALYZE {table}")


def _as_cheap(few: Cost, many: Cost) -> None:
    assert (many.statements, many.written) == (few.statements, few.written)
    for table in ("steps", "items", "events", "signals"):
        # A planner that has counted a tiny table may even read a few rows more of it.
        assert many.read[table] <= max(few.read[table], FEW_ROWS)


def _same(few: Cost, many: Cost) -> None:
    _as_cheap(few, many)
    assert few.written["steps"] == 3  # the item, its step, and the item that comes next


@pytest.mark.parametrize("counted", [(), (FEW,), (FEW, MANY)], ids=["new", "tiny", "analyzed"])
async def test_an_item_costs_the_same_forward_and_on_the_way_back(
    player: Player, backend: PostgresBackend, counted: tuple[int, ...]
) -> None:
    """Also by plans made when the tables were new, or when they were counted and tiny."""
    definition = await register(player.store, fan("each", at_once=10), call("last"))
    forward, back = [], []
    for size in (FEW, MANY):
        await _begin(player, definition, size)
        claims = await _go(player, size // 2 - 10)
        if size in counted:
            await _let_the_planner_count(backend)
        forward.append(await _settled(player, claims[0]))
        await player.store.commit(player.batch(transitions=[settle(one) for one in claims[1:]]))
        (last,) = await _go(player, size)
        await player.store.commit(player.batch(transitions=[settle(last, refused())]))
        claims = await _go(player, size // 2 - 10)
        assert {one.action for one in claims} == {Action.COMPENSATE}
        back.append(await _settled(player, claims[0]))
        await player.store.commit(player.batch(transitions=[settle(one) for one in claims[1:]]))
        await _go(player, size)
    _same(*forward)
    _same(*back)


async def test_while_large_items_fill_up_a_settlement_reads_those_that_it_opens(
    player: Player,
) -> None:
    """The first were held back by what they come to; each end opens more, and reads no others."""
    large = {"line": "${each.item}", "text": "${input.text}"}
    definition = await register(player.store, fan("each", at_once=100, input=large))
    body = json.dumps({"lines": list(range(MANY)), "text": "x" * 300_000})
    workflow = await player.start(definition, body=body)
    for _ in range(3):
        (claimed,) = await player.claim(1)
        before = (await player.see_step(workflow, "each")).fan
        cost = await _settled(player, claimed)
        after = (await player.see_step(workflow, "each")).fan
        assert before is not None
        assert after is not None
        assert after.opened - before.opened == 7
        assert cost.read["items"] <= MOST_NEXT + 1


@pytest.mark.parametrize("named", [False, True], ids=["due", "named"])
@pytest.mark.parametrize("counted", [(), (FEW,), (FEW, MANY)], ids=["new", "tiny", "analyzed"])
async def test_a_claim_costs_the_same_however_many_items_there_are(
    player: Player, backend: PostgresBackend, counted: tuple[int, ...], named: bool
) -> None:
    assert isinstance(player.store, PostgresStore)
    definition = await register(player.store, fan("each", at_once=10), call("last"))
    found: dict[int, int] = {}
    async with (await player.store._new_writer()).connection as connection:
        for size in (FEW, MANY):
            workflow = await _begin(player, definition, size)
            members = [settle(one) for one in await _go(player, size // 2 - 10)]
            await player.store.commit(player.batch(transitions=members))
            if size in counted:
                await _let_the_planner_count(backend)
            for at in range(6):  # more often than a statement is sent before its plan is kept
                key = (workflow, StepKey("each", size // 2 + at))
                batch = player.batch(keys=[key]) if named else player.batch(due=1)
                claimed, found[size] = await _claimed(connection, batch)
                await player.store.commit(player.batch(transitions=[settle(claimed)]))
            await _go(player, size)
    assert found[MANY] <= max(found[FEW], FEW_ROWS), found


@pytest.mark.parametrize("counted", [(), (FEW,), (FEW, MANY)], ids=["new", "tiny", "analyzed"])
async def test_a_claim_costs_the_same_however_many_wait_and_however_urgent_those_are(
    player: Player, backend: PostgresBackend, counted: tuple[int, ...]
) -> None:
    """Also beside many that are so urgent that they would be first, and are not due yet."""
    assert isinstance(player.store, PostgresStore)
    retry = {**RETRY_ONCE, "max_attempts": 9, "initial_interval": "60s", "max_interval": "60s"}
    later = await register(player.store, call("charge", priority=9, retry=retry))
    waiting = [await register(player.store, call("charge", priority=one)) for one in (0, 3, 0, 9)]
    found: dict[int, int] = {}
    async with (await player.store._new_writer()).connection as connection:
        for size in (FEW, MANY):
            starts = [start_of(later) for _ in range(size)]
            await player.store.commit(player.batch(starts=starts))
            claims = (await player.store.commit(player.batch(due=2 * MANY))).claimed
            members = [settle(one, unknown()) for one in claims]
            await player.store.commit(player.batch(transitions=members))
            starts = [start_of(waiting[at % len(waiting)]) for at in range(size)]
            await player.store.commit(player.batch(starts=starts))
            if size in counted:
                await _let_the_planner_count(backend)
            for _ in range(6):
                _, found[size] = await _claimed(connection, player.batch(due=1))
    assert found[MANY] <= max(found[FEW], FEW_ROWS), found


async def _claimed(connection: Connection, batch: Batch) -> tuple[Claimed, int]:
    """Make a claim; return it, and how many rows of steps were read for it."""
    await connection.execute("BEGIN")
    before = await rows_read(connection)
    (claimed,) = (await write(connection, batch, Written())).claimed
    read = (await rows_read(connection))["steps"] - before.get("steps", 0)
    await connection.execute("COMMIT")
    return claimed, read


async def test_a_plain_step_beside_many_items_costs_what_it_costs_beside_few(
    player: Player, backend: PostgresBackend
) -> None:
    each = fan("each", at_once=10) | {"service": "inventory"}
    definition = await register(player.store, each, call("beside", after=[]))
    costs = []
    for size in (FEW, MANY):
        await _begin(player, definition, size)
        (claimed,) = await _held(player)
        await player.store.commit(player.batch(transitions=[settle(claimed, taken_on())]))
        await _let_the_planner_count(backend)
        assert isinstance(player.store, PostgresStore)
        player.store._kept.forget_all()  # as at any other sidecar, which must read
        costs.append(await _settled(player, claimed))
    _as_cheap(*costs)


async def test_the_steps_of_a_workflow_are_found_without_its_items(
    player: Player, backend: PostgresBackend
) -> None:
    """The key of the table begins with what tells steps from items."""
    definition = await register(player.store, fan("each", at_once=10), call("last"))
    workflow = await _begin(player, definition, MANY)
    await _go(player, MANY)
    for counted in (False, True):
        if counted:
            await _let_the_planner_count(backend)
        async with backend.session() as session:
            await session.execute(b"SET enable_seqscan = off; SET enable_bitmapscan = off")
            plan = await session.execute(
                b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM steps"
                b" WHERE workflow_id = %s AND idx = -1",
                [workflow],
            )
            ((found,),) = await plan.fetchone() or ()
        node = found["Plan"]
        assert node["Index Name"] == "steps_pkey"
        assert node["Shared Hit Blocks"] + node["Shared Read Blocks"] < 10


@pytest.mark.parametrize("step", ["", "pay"], ids=["workflows", "steps"])
async def test_who_is_next_is_found_however_many_wait(
    player: Player, backend: PostgresBackend, step: str
) -> None:
    """With each start, each end and each round of a leader it is asked."""
    assert isinstance(player.store, PostgresStore)
    await backend.run(
        "INSERT INTO turns (workflow_id, step, idx, namespace, definition, turn_step, turn,"
        " turn_limit, priority, since, placed)"
        " SELECT ('01890000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, %(step)s, -1,"
        " 'default', 'order', %(step)s, 'k', 1, 0, now(), n = 1 FROM generate_series(1, 2001) n",
        step=step,
    )
    await backend.run("ANALYZE turns")
    values: dict[str, Any] = {
        "namespace": "default",
        "definition": "order",
        "turn_step": step,
        "turn": "k",
        "limit": 10,
    }
    values |= {"unseen": timedelta(seconds=20), "due_for": None, "without": []}
    values |= {"after_definition": "", "after_step": "", "after_turn": ""}
    key = {name: values[name] for name in ("namespace", "definition", "turn_step", "turn")}
    values["turns"] = json.dumps([key, {**key, "turn": "of nobody"}])
    async with (await player.store._new_writer()).connection as connection:
        for name in ("next_turns", "free_turns", "leader_work"):
            await connection.execute("BEGIN")
            before = await rows_read(connection)
            await (await send(connection, QUERIES[name], **values)).fetchall()
            read = (await rows_read(connection))["turns"] - before.get("turns", 0)
            await connection.execute("COMMIT")
            assert read <= FEW_ROWS, name


@pytest.mark.parametrize("counted", [(), (FEW,), (FEW, MANY)], ids=["new", "tiny", "analyzed"])
async def test_a_workflow_is_read_whole_however_many_others_are_stored(
    player: Player, backend: PostgresBackend, counted: tuple[int, ...]
) -> None:
    """Nearly all steps there are have one index: nobody may look for steps by that."""
    definition = await register(player.store, call("first"), call("last"))
    workflows: list[WorkflowId] = []
    settings = parameters(backend.dsn, "goconductor")
    async with await AsyncConnection.connect(**settings, row_factory=tuple_row) as connection:
        for size in (FEW, MANY):
            while len(workflows) < size:
                starts = [start_of(definition) for _ in range(FEW)]
                await player.store.commit(player.batch(starts=starts))
                workflows += [one.id for one in starts]
            if size in counted:
                await _let_the_planner_count(backend)
            for workflow in workflows[-8:]:  # more often than it takes until a plan is kept
                before = await rows_read(connection)
                rows = await send(connection, QUERIES["get_workflows"], ids=json.dumps([workflow]))
                assert len(await rows.fetchall()) == 1
                read = (await rows_read(connection))["steps"] - before.get("steps", 0)
                assert read <= FEW_ROWS
                await connection.commit()


@pytest.mark.parametrize("counted", [(), (FEW,), (FEW, MANY)], ids=["new", "tiny", "analyzed"])
async def test_an_item_that_takes_turns_costs_the_same_however_many_wait(
    player: Player, backend: PostgresBackend, counted: tuple[int, ...]
) -> None:
    """To settle it, and to let the next one begin."""
    turns = {"key": "all", "limit": 5}
    definition = await register(player.store, fan("each", at_once=MANY, concurrency=turns))
    turn = TurnKey("default", "order", '"all"', "each")
    settled, begun = [], []
    for size in (FEW, MANY):
        await _begin(player, definition, size)
        for _ in range(3):
            waiting = await next_in(player.store, turn)
            admitted = [Transition(w, Admitted(key), turn=turn) for w, key in waiting]
            await player.store.commit(player.batch(transitions=admitted))
            claims = await _held(player)
            assert len(claims) == 5
            if size in counted:
                await _let_the_planner_count(backend)
            settled.append(await _settled(player, claims[0]))
            (one,) = await next_in(player.store, turn)
            member = Transition(one.workflow, Admitted(one.step), turn=turn)
            with metered() as cost:
                await player.store.commit(player.batch(transitions=[member]))
            begun.append(cost)
            rest = [*claims[1:], *await _held(player)]
            await player.store.commit(player.batch(transitions=[settle(one) for one in rest]))
        await _finish(player, turn)
    for costs in (settled, begun):
        _as_cheap(costs[0], costs[-1])
        assert all(one.read["turns"] <= FEW_ROWS for one in costs)


async def _finish(player: Player, turn: TurnKey) -> None:
    """Let all items have their turn that are left."""
    while waiting := await next_in(player.store, turn):
        admitted = [Transition(w, Admitted(key), turn=turn) for w, key in waiting]
        await player.store.commit(player.batch(transitions=admitted))
        members = [settle(one) for one in await _held(player)]
        await player.store.commit(player.batch(transitions=members))


@pytest.mark.parametrize("counted", [(), (FEW,), (FEW, MANY)], ids=["new", "tiny", "analyzed"])
async def test_a_turn_costs_the_same_however_long_the_line_is(
    player: Player, backend: PostgresBackend, counted: tuple[int, ...]
) -> None:
    """Its meter is locked meanwhile, and all others wait for it."""
    assert isinstance(player.store, PostgresStore)
    slow = RateLimit(1, timedelta(hours=1))
    found: dict[int, int] = {}
    async with (await player.store._new_writer()).connection as connection:
        for size in (FEW, MANY):
            asks = [*(_ask("/charges", slow) for _ in range(size)), _ask("/refunds", slow)]
            await player.store.ask_rates("default", "payments", asks)
            if size in counted:
                await backend.run("ANALYZE rate_limits")
                await backend.run("ANALYZE rate_promises")
            for at in range(6):  # more often than a statement is sent before its plan is kept
                asked = [asks[at], _ask("/refunds", slow)]
                await connection.execute("BEGIN")
                before = await rows_read(connection)
                values = values_of("default", "payments", asked)
                rows = await send(connection, RATES["ask"], **values)
                assert len(await rows.fetchall()) == len(asked)
                read = (await rows_read(connection))["rate_promises"]
                found[size] = read - before.get("rate_promises", 0)
                await connection.execute("COMMIT")
    assert found[MANY] <= max(found[FEW], FEW_ROWS), found


def _ask(path: str, limit: RateLimit) -> RateAsk:
    return RateAsk(path, limit, new_id(), StepKey("charge"), Action.EXECUTE, 0, 0)
