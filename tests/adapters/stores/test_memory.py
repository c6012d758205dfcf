"""The store in memory, bound to the suite; and what only the twin can do."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from sidecar.adapters.clock import ManualClock
from sidecar.adapters.memory.tables import MemoryTables
from sidecar.adapters.stores.memory import MemoryStore
from sidecar.definitions import compile_stored, render
from sidecar.errors import StoreUnavailable
from sidecar.ports.store import Batch, Missing, Moved, Store, Transition
from sidecar.saga.events import CancelRequested
from sidecar.saga.states import StepStatus, WorkflowStatus
from sidecar.saga.workflow import StepKey, Workflow, WorkflowId
from tests.conformance.store import StoreSuite
from tests.conformance.store_play import Player, call, register, settle


class MemoryBackend:
    """Handles on one set of tables, with a clock that is moved by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.tables = MemoryTables()

    def make(self) -> MemoryStore:
        return MemoryStore(
            compile_document=compile_stored, render=render, clock=self.clock, tables=self.tables
        )

    async def open_store(self) -> Store:
        store = self.make()
        await store.open()
        return store

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def lose_answer(self, store: Store, batch: Batch) -> None:
        await store.commit(batch)

    async def set_paused(self, workflow: WorkflowId, paused: bool) -> None:
        row = self.tables.rows[workflow]
        self.tables.put(replace(row, workflow=replace(row.workflow, paused=paused)))


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend()


class TestMemoryStore(StoreSuite):
    """The twin keeps every promise of the port."""


@pytest.fixture
async def store(backend: MemoryBackend) -> MemoryStore:
    opened = backend.make()
    await opened.open()
    return opened


async def test_a_store_that_is_not_open_is_unavailable(backend: MemoryBackend) -> None:
    store = backend.make()
    with pytest.raises(StoreUnavailable):
        await store.ping()
    with pytest.raises(StoreUnavailable):
        await store.commit(Player(store).batch(due=1))
    with pytest.raises(StoreUnavailable):
        await store.list_sidecars("default")


async def test_a_simulator_can_lock_a_workflow(store: MemoryStore) -> None:
    payments = Player(store)
    workflow = await payments.start(await register(store, call("charge")))
    store.locked = {workflow}.__contains__
    cancel = Transition(workflow, CancelRequested())
    assert await payments.apply(workflow, cancel.event) is Missing.LOCKED
    assert await payments.claim_key(workflow, "charge") is Missing.LOCKED
    assert await payments.claim() == []
    assert await payments.statuses(workflow) == {"charge": StepStatus.QUEUED}
    waiting = replace(cancel, wait=True)
    result = await payments.commit(payments.batch(transitions=[waiting]))
    assert isinstance(result.transitions[0], Moved)


async def test_every_commit_shows_what_it_changed(store: MemoryStore) -> None:
    seen: list[list[tuple[WorkflowId, WorkflowStatus]]] = []

    def look(changed: Sequence[Workflow]) -> None:
        seen.append([(one.id, one.status) for one in changed])

    store.on_commit = look
    payments = Player(store)
    workflow = await payments.start(await register(store, call("charge")))
    claimed = await payments.claim_one()
    await payments.claim()
    await payments.commit(payments.batch(transitions=[settle(claimed)]))
    in_progress, completed = WorkflowStatus.IN_PROGRESS, WorkflowStatus.COMPLETED
    assert seen == [[(workflow, in_progress)]] * 2 + [[(workflow, completed)]]


async def test_a_state_that_breaks_an_invariant_is_never_committed(
    store: MemoryStore, backend: MemoryBackend
) -> None:
    payments = Player(store)
    workflow = await payments.start(await register(store, call("a"), call("b", after=[])))
    row = backend.tables.rows[workflow]
    broken = replace(row.workflow.steps[StepKey("b")], status=StepStatus.RUNNING)
    steps = {**row.workflow.steps, broken.key: broken}
    planted = replace(row, workflow=replace(row.workflow, steps=steps))
    backend.tables.put(planted)
    with pytest.raises(AssertionError, match="b: running without a lease"):
        await store.commit(payments.batch(due=1))
    assert backend.tables.rows[workflow] is planted
