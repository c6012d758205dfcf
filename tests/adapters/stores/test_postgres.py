"""The store on PostgreSQL, bound to the suite; and what only a real database can show."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from sidecar.adapters.postgres.errors import translate
from sidecar.adapters.postgres.migrate import migrate
from sidecar.adapters.stores.postgres import PostgresStore
from sidecar.errors import (
    ConfigError,
    SchemaMismatch,
    StoreConflict,
    StoreDataError,
    StoreError,
    StoreUnavailable,
)
from sidecar.ports.store import Claimed, KeyReused, Missing, Moved, Transition
from sidecar.saga.events import CancelRequested
from sidecar.saga.states import WorkflowStatus
from tests.adapters.stores.postgres_backend import PostgresBackend, backend, migrated
from tests.conformance.store import StoreSuite
from tests.conformance.store_language import sent, signalled
from tests.conformance.store_play import Player, call, done, register, settle, start_of

__all__ = ["backend", "migrated"]

pytestmark = pytest.mark.postgres

CANCEL = CancelRequested()


class TestPostgresStore(StoreSuite):
    """PostgreSQL keeps every promise of the port."""


@pytest.fixture
async def store(backend: PostgresBackend) -> PostgresStore:
    return await backend.open_store()


@pytest.mark.parametrize(
    "body",
    [
        '{"a" : 1.10,  "a": 2, "é": "\\u00e9"}',
        '"a backslash before \\\\u0000"',
        "null",
        "12345678901234567890.123456789012345678901234567890",
        '"' + "x" * 100_000 + '"',
    ],
    ids=["spaces", "backslash", "null", "digits", "long"],
)
async def test_bodies_come_back_as_they_came(store: PostgresStore, body: str) -> None:
    payments = Player(store)
    workflow = await payments.start(await register(store, call("charge")), body=body)
    claimed = await payments.claim_one()
    assert claimed.input == body
    await payments.answer(claimed, done(body))
    found = await payments.see(workflow)
    assert (found.input, [step.output for step in found.steps.values()]) == (body, [body])


async def test_a_locked_workflow_is_skipped_or_waited_for(
    store: PostgresStore, backend: PostgresBackend
) -> None:
    payments = Player(store)
    definition = await register(store, call("charge"))
    workflow, other = await payments.start(definition), await payments.start(definition)
    members = [Transition(workflow, CANCEL), Transition(other, CANCEL)]
    async with backend.session() as holder:
        await holder.execute(b"SELECT 1 FROM workflows WHERE id = %s FOR UPDATE", [workflow])
        result = await store.commit(payments.batch(transitions=members))
        assert result.transitions[0] is Missing.LOCKED
        assert isinstance(result.transitions[1], Moved)
        patient = payments.batch(transitions=[Transition(workflow, CANCEL, wait=True)])
        waiting = asyncio.create_task(store.commit(patient))
        await backend.until_somebody_waits()
        await holder.commit()
    result = await waiting
    assert isinstance(result.transitions[0], Moved)
    assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK


async def test_a_locked_step_is_not_claimed_and_called_locked(
    store: PostgresStore, backend: PostgresBackend
) -> None:
    payments = Player(store)
    workflow = await payments.start(await register(store, call("a"), call("b", after=[])))
    async with backend.session() as holder:
        await holder.execute(b"SELECT 1 FROM steps WHERE step = 'a' FOR UPDATE")
        assert await payments.claim_key(workflow, "a") is Missing.LOCKED
        assert [str(one.key) for one in await payments.claim()] == ["b"]
        await holder.commit()
    assert isinstance(await payments.claim_key(workflow, "a"), Claimed)


async def test_a_signal_kept_and_taken_in_one_batch_leaves_nothing(
    store: PostgresStore, backend: PostgresBackend
) -> None:
    payments = Player(store)
    workflow = await payments.start(await register(store, call("charge"), signalled("approve")))
    members = [Transition(workflow, sent()), settle(await payments.claim_one())]
    await payments.commit(payments.batch(transitions=members))
    assert await payments.status(workflow) is WorkflowStatus.COMPLETED
    assert await backend.run("SELECT number FROM signals") == []


async def test_a_start_key_that_is_being_taken_is_waited_for(
    store: PostgresStore, backend: PostgresBackend
) -> None:
    payments = Player(store)
    start = start_of(await register(store, call("charge")), start_key="once")
    taken = (
        b"INSERT INTO start_keys (namespace, definition, start_key, workflow_id, input_hash)"
        b" VALUES ('default', 'order', 'once', gen_random_uuid(), 'another')"
    )
    async with backend.session() as rival:
        await rival.execute(taken)
        starting = asyncio.create_task(store.commit(payments.batch(starts=[start])))
        await backend.until_somebody_waits()
        await rival.commit()
    (answer,) = (await starting).starts
    assert isinstance(answer, KeyReused)


@pytest.mark.fault(42)
async def test_a_new_epoch_waits_for_the_last_write_of_the_old(
    store: PostgresStore, backend: PostgresBackend
) -> None:
    await store.mint_epoch("default", "one")
    async with backend.session() as writing:
        await writing.execute(b"SELECT 1 FROM leaders FOR SHARE")
        minting = asyncio.create_task(store.mint_epoch("default", "two"))
        await backend.until_somebody_waits()
        await writing.commit()
    assert (await minting).number == 2


async def test_no_table_is_ever_scanned_though_none_was_analysed(database: str) -> None:
    await migrate(database)
    backend = PostgresBackend(database)
    store = await backend.open_store()
    payments = Player(store)
    before = await scans(backend)
    definition = await register(store, call("a"), call("b"))
    for number in range(20):
        key = f"key-{number}"
        await store.commit(payments.batch(starts=[start_of(definition, start_key=key)]))
        claimed = (await store.commit(payments.batch(due=10))).claimed
        members = [settle(one, claim_next=True) for one in claimed]
        claimed = (await store.commit(payments.batch(transitions=members))).claimed
        await store.commit(payments.batch(transitions=[settle(one) for one in claimed]))
        keys = [(one.workflow, one.key) for one in claimed]
        await store.commit(payments.batch(keys=keys))
    await store.close()
    await backend.until_nobody_is_connected()
    assert await scans(backend) == before


async def scans(backend: PostgresBackend) -> dict[str, int]:
    """How often each table was read as a whole; building an index counts, too."""
    found = await backend.run(
        "SELECT relname, seq_scan FROM pg_stat_user_tables"
        " WHERE relname IN ('workflows', 'steps', 'events', 'start_keys')"
    )
    return dict(found)


async def test_a_store_that_is_closed_says_so_and_can_be_opened_again(
    store: PostgresStore,
) -> None:
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.ping()
    with pytest.raises(StoreUnavailable):
        await store.commit(Player(store).batch(due=1))
    await store.open()
    await store.ping()


async def test_a_database_without_the_schema_is_a_mismatch(database: str) -> None:
    with pytest.raises(SchemaMismatch, match="goconductor migrate"):
        await PostgresBackend(database).open_store()


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable):
        await PostgresBackend("postgresql://postgres@127.0.0.1:1/none").open_store()


@pytest.mark.parametrize("schema", ["", "Big", 'a"b', "a b", "x; drop", "ü"])
async def test_a_schema_is_a_plain_identifier(schema: str) -> None:
    with pytest.raises(ConfigError, match="schema"):
        await PostgresBackend("postgresql://127.0.0.1/x").open_store(schema=schema)


@pytest.mark.fault(44)
async def test_a_pooler_before_the_server_is_refused(
    backend: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooler invents the number of the server's process that it tells its clients."""
    monkeypatch.setattr(psycopg.ConnectionInfo, "backend_pid", 1)
    with pytest.raises(ConfigError, match="pgbouncer"):
        await backend.open_store()


@pytest.mark.parametrize(
    ("state", "meaning"),
    [
        ("40001", StoreConflict),
        ("40P01", StoreConflict),
        ("55P03", StoreConflict),
        ("08006", StoreUnavailable),
        ("57P01", StoreUnavailable),
        ("57014", StoreUnavailable),
        ("53100", StoreUnavailable),
        ("53300", StoreUnavailable),
        ("25006", StoreUnavailable),
        ("25P03", StoreUnavailable),
        ("22P02", StoreDataError),
        ("23505", StoreDataError),
        ("42P01", SchemaMismatch),
        ("42501", StoreError),
    ],
)
def test_every_kind_of_error_has_one_meaning(state: str, meaning: type[StoreError]) -> None:
    error = psycopg.errors.lookup(state)("what the server said")
    assert type(translate(error)) is meaning


def test_errors_without_a_state_have_a_meaning_too() -> None:
    assert type(translate(psycopg.OperationalError("cut"))) is StoreUnavailable
    assert type(translate(TimeoutError())) is StoreUnavailable
    assert type(translate(psycopg.DataError("NUL"))) is StoreDataError
    assert type(translate(UnicodeEncodeError("utf-8", "x", 0, 1, "why"))) is StoreDataError
