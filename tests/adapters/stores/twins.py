"""The store on PostgreSQL and its twin side by side: the same batches, and what came of each.

Both go by one clock that is moved by hand: in the database two functions of the schema stand before
those of the server that tell the time. So everything must be the same to the microsecond.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import compress
from operator import not_
from typing import Any

import psycopg
import pytest
from msgspec.structs import asdict, replace

from sidecar.adapters.clock import ManualClock
from sidecar.adapters.memory.tables import MemoryTables
from sidecar.adapters.postgres import connections, kept
from sidecar.adapters.postgres.migrate import migrate
from sidecar.adapters.stores.memory import MemoryStore
from sidecar.adapters.stores.postgres import PostgresStore
from sidecar.errors import StoreUnavailable
from sidecar.ports.records import SidecarBeat
from sidecar.ports.store import Batch, BatchResult, Missing, Moved, Started, TransitionResult
from sidecar.saga.changes import Changes
from sidecar.saga.definition import Definition, JsonText
from sidecar.saga.workflow import Step, Workflow, WorkflowId
from tests.servers.postgres import PostgresServer
from tests.unit.saga.worlds import render

NAMESPACE = "default"
ALL = 10_000
UNSEEN = timedelta(seconds=20)
_CLOCK = """
CREATE TABLE goconductor.told_time (now timestamptz NOT NULL);
INSERT INTO goconductor.told_time VALUES ('2030-01-01 00:00:00+00');
CREATE FUNCTION goconductor.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
    AS 'SELECT now FROM goconductor.told_time';
CREATE FUNCTION goconductor.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
    AS 'SELECT now FROM goconductor.told_time';
"""


def prepare(dsn: str) -> None:
    """Make the schema in an empty database, with a clock that is moved by hand."""
    asyncio.run(migrate(dsn))
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(_CLOCK.encode())


@dataclass
class _StandingClock:
    """In the place of `time` in `kept`: between two answers no time passes."""

    def monotonic(self) -> float:
        return 0.0


class Twins:
    """One store in memory, and some handles on one database."""

    def __init__(self, dsn: str, patch: pytest.MonkeyPatch, handles: int = 2) -> None:
        patch.setattr(connections, "checked_schema", lambda schema: schema)
        patch.setattr(kept, "time", _StandingClock())
        patch.setattr("sidecar.adapters.stores.postgres.VITAL", 1)
        self._dsn = dsn
        self._definitions: dict[str, Definition] = {}
        self._made: dict[str, Any] = {"compile_document": self._compile, "render": render}
        self.clock = ManualClock()
        self.tables = MemoryTables()
        self.memory = MemoryStore(**self._made, clock=self.clock, tables=self.tables)
        schema = "goconductor,pg_catalog"
        self.stores = [
            PostgresStore(dsn, **self._made, schema=schema, readers=1) for _ in range(handles)
        ]

    async def open(self) -> None:
        """Open all of them."""
        self._setting = await psycopg.AsyncConnection.connect(self._dsn, autocommit=True)
        for store in (self.memory, *self.stores):
            await store.open()
        await self.pass_time(0)

    async def close(self) -> None:
        """Close all of them."""
        await self._setting.close()
        for store in (self.memory, *self.stores):
            await store.close()

    async def pass_time(self, seconds: float) -> None:
        """Let time pass for both."""
        self.clock.advance(seconds)
        now = self.clock.now()
        await self._setting.execute("UPDATE goconductor.told_time SET now = %s", [now])
        for store in self.stores:
            if store._kept._clock is not None:
                store._kept._clock = (now, 0.0)

    async def define(self, made: Definition) -> Definition:
        """Keep a definition made in code in both, under a document that only names it."""
        digest = hashlib.sha256(str(len(self._definitions)).encode()).hexdigest()
        document = JsonText(json.dumps({"made": digest}))
        self._definitions[document] = made
        for store in (self.memory, self.stores[0]):
            stored, _ = await store.put_definition(NAMESPACE, "order", document, digest)
        return self._compile(document, NAMESPACE, "order", stored.version)

    def _compile(self, document: JsonText, namespace: str, name: str, version: int) -> Definition:
        made = self._definitions[document]
        return dataclasses.replace(made, namespace=namespace, name=name, version=version)

    async def beat(self, incarnation: str, service: str) -> None:
        """Write in both that a sidecar is alive."""
        beat = SidecarBeat(incarnation, NAMESPACE, service, "1", "here", ready=True)
        await self.memory.beat(beat)
        await self.stores[0].beat(beat)
        await self._setting.execute(
            "UPDATE goconductor.sidecars SET seen_at = %s WHERE incarnation = %s",
            [self.clock.now(), incarnation],
        )

    async def leave(self, incarnation: str) -> None:
        """Write in both that a sidecar has gone."""
        await self.memory.leave(incarnation)
        await self.stores[0].leave(incarnation)

    async def commit(self, handle: int, batch: Batch, *, lost: bool = False) -> None:
        """Commit a batch to both; fail unless the same comes of it.

        `lost` lets the first answer get lost on its way, so that the whole batch is repeated.
        """
        store = self.stores[handle % len(self.stores)]
        if lost:
            store._kept.forget_all()  # else a member may be told that its workflow had moved
            await _lose_answer(store, batch)
            await self.memory.commit(batch)
        for taken, found in await _in_rounds(store, batch):
            same(shown(found), shown(await self.memory.commit(taken)))

    async def compare(self, workflows: Sequence[WorkflowId]) -> None:
        """Fail unless both tell the same of these workflows, and of what a leader has to do."""
        real, twin = self.stores[0], self.memory
        for known in workflows:
            one = await real.get_workflow(NAMESPACE, known)
            other = await twin.get_workflow(NAMESPACE, known)
            same(one, other)
            events = await real.list_events(known, 0, ALL), await twin.list_events(known, 0, ALL)
            same(*events)
            for step in other.steps.values() if other else ():
                if step.fan is not None:
                    page = (known, step.key.step, -1, ALL)
                    same(await real.list_items(*page), await twin.list_items(*page))
            await self._compare_attempts(known)
        leases = [await one.ended_leases(NAMESPACE, UNSEEN, ALL) for one in (real, twin)]
        same(*[sorted(map(repr, one)) for one in leases])
        timers = [await one.due_timers(NAMESPACE, ALL) for one in (real, twin)]
        same(*[sorted(one) for one in timers])
        await self._compare_turns()
        work = [await one.leader_work(NAMESPACE, UNSEEN, timedelta()) for one in (real, twin)]
        same(*work)
        asked = (NAMESPACE, UNSEEN, timedelta(), ALL)
        same(*[list(await one.ringable_steps(*asked)) for one in (real, twin)])

    async def _compare_turns(self) -> None:
        """Who waits for a place and who has one, and that no more have one than may."""
        both = (self.stores[0], self.memory)
        # Keys come in no order of which anything is promised.
        same(*[sorted(await one.free_turns(NAMESPACE, ALL)) for one in both])
        for turn in list(self.tables.turns):
            same(*[list(await one.next_turns([turn], ALL)) for one in both])
            same(*[await one.turn_holders(turn) for one in both])
        cursor = await self._setting.execute("SELECT count(*) FROM goconductor.turns")
        assert await cursor.fetchone() == (sum(map(len, self.tables.turns.values())),)

    async def _compare_attempts(self, known: WorkflowId) -> None:
        """Whether the newest attempt of a step is under way, and those around it."""
        steps = [one for one in self.whole(known).steps.values() if one.run.attempt]
        for step in steps[:: max(1, len(steps) // 2)]:
            asked = (known, step.key, step.action, step.run.attempt)
            same(await self.stores[0].is_current(*asked), await self.memory.is_current(*asked))

    def whole(self, known: WorkflowId) -> Workflow:
        """A workflow with all its items, as the twin has it."""
        return self.tables.rows[known].workflow


async def _in_rounds(store: PostgresStore, batch: Batch) -> list[tuple[Batch, BatchResult]]:
    """Commit a batch; return which of its members were taken when, and what came of them.

    A member that finds its workflow moved is offered again, as the engine does. The twin, which is
    never behind, has to take them in the same order.
    """
    rounds = []
    while True:
        result = await store.commit(batch)
        taken = [one is not Missing.LOCKED for one in result.transitions]
        part = tuple(compress(batch.transitions, taken))
        found = tuple(compress(result.transitions, taken))
        rounds.append((replace(batch, transitions=part), replace(result, transitions=found)))
        if all(taken):
            return rounds
        late = tuple(compress(batch.transitions, map(not_, taken)))
        batch = replace(batch, starts=(), transitions=late, claim_keys=None, claim_due=None)


async def _lose_answer(store: PostgresStore, batch: Batch) -> None:
    run = store._run

    async def run_and_lose(*arguments: Any) -> BatchResult:
        await run(*arguments)
        raise psycopg.OperationalError("the connection is lost")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_run", run_and_lose)
        with pytest.raises(StoreUnavailable):
            await store.commit(batch)


# -- what is to be the same -------------------------------------------------------------------


def shown(result: BatchResult) -> Mapping[str, Any]:
    """What a batch came to, without what may differ: the order of claims, what was read for it."""
    return {
        "now": result.now,
        "starts": [
            replace(one, changes=None) if isinstance(one, Started) else repr(one)
            for one in result.starts
        ],
        "begun": [
            _changes(one.changes)
            for one in result.starts
            if isinstance(one, Started) and one.changes is not None
        ],
        "transitions": [_transition(one) for one in result.transitions],
        "claimed": sorted((asdict(one) for one in result.claimed), key=repr),
        "refused": sorted(result.refused_keys.items()),
    }


def _transition(result: TransitionResult) -> Any:
    if isinstance(result, Moved):
        return _changes(result.changes)
    return repr(result)


def _changes(changes: Changes) -> Mapping[str, Any]:
    return {
        "verdict": changes.verdict,
        "status": changes.workflow.status,
        "steps": [_step(one) for one in changes.steps],
        "queued": [str(one.key) for one in changes.queued],
        "events": changes.events,
        "items": changes.items,
        "kept": changes.kept,
        "taken": changes.taken,
        "turns": changes.turns,
        "ended": changes.ended,
    }


def _step(step: Step) -> Step:
    """A step without bodies: None means "as it was", whether it was read or not."""
    return replace(
        step,
        input=None,
        output=None,
        error=None,
        compensation_input=None,
        compensation_output=None,
        compensation_error=None,
    )


def same(one: object, other: object, path: str = "") -> None:
    """Fail with the first place where two values differ: PostgreSQL's and the twin's."""
    if one == other:
        return
    fields = [_parts(one), _parts(other)]
    if fields[0] is not None and fields[1] is not None:
        for name in dict.fromkeys((*fields[0], *fields[1])):
            found = [field.get(name, "nothing") for field in fields if field is not None]
            same(*found, path=f"{path}.{name}")
        if fields[0] != fields[1]:
            return
    raise AssertionError(f"{path}:\n  PostgreSQL {one!r}\n  twin       {other!r}")


def _parts(value: object) -> dict[Any, Any] | None:
    match value:
        case Workflow() | Step():
            return asdict(value)
        case dict():
            return value
        case list() | tuple():
            return dict(enumerate(value))
        case _:
            return None


@pytest.fixture(scope="module")
def timed(postgres_server: PostgresServer) -> Iterator[str]:
    """The address of a database with the schema and a clock that is moved by hand."""
    name = f"twins_{uuid.uuid4().hex}"
    dsn = postgres_server.create_database(name)
    prepare(dsn)
    yield dsn
    if postgres_server.alive:
        postgres_server.drop_database(name)


@pytest.fixture
async def twins(timed: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Twins]:
    both = Twins(timed, monkeypatch)
    await both.open()
    yield both
    await both.close()
