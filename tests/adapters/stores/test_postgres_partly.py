"""A batch that takes effect in part before one of its members is refused."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.adapters.clock import SystemClock
from sidecar.adapters.entropy import SystemEntropy
from sidecar.adapters.telemetry.memory import MemoryTelemetry
from sidecar.engine.group_commit import CommitLimits, Committer
from sidecar.engine.identity import Identity
from sidecar.errors import StoreDataError
from sidecar.ports.store import Claimed, Started, Transition
from sidecar.saga.definition import JsonText
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.workflow import StepKey
from tests.adapters.stores.postgres_backend import PostgresBackend, backend, migrated
from tests.conformance.store_play import MARGIN, Player, answer_to, call, register, start_of

__all__ = ["backend", "migrated"]

pytestmark = pytest.mark.postgres

ME = Identity("default", "payments", "me", "here", "1.0")
CANNOT_BE_STORED = JsonText(r'{"code": "x", "message": "half a pair: \ud83d"}')


async def test_its_other_members_pay_nothing_for_it(backend: PostgresBackend) -> None:
    """One that is decided under locks fails; a start and a claim beside it were done before."""
    store = await backend.open_store()
    claimed: list[Claimed] = []
    committer = Committer(
        store,
        ME,
        CommitLimits(lease_margin=MARGIN),
        clock=SystemClock(),
        entropy=SystemEntropy(),
        telemetry=MemoryTelemetry(),
        after=lambda _batch, result, _began: claimed.extend(result.claimed),
    )
    await committer.start()
    another = Player(store, incarnation="another")
    definition = await register(store, call("charge"))
    poisoned = await another.start(definition)
    await committer.claim([(poisoned, StepKey("charge"))])
    refusal = Outcome(OutcomeKind.REFUSED, error=CANNOT_BE_STORED)
    poison = Transition(poisoned, answer_to(claimed.pop(), refusal), wait=True)
    waiting, start = await another.start(definition), start_of(definition)

    started, _, refused = await asyncio.gather(
        committer.submit(start, within=20),
        committer.claim_due(5),
        committer.submit(poison, within=20),
        return_exceptions=True,
    )
    await committer.stop()
    assert isinstance(started, Started)
    assert not started.existed
    assert isinstance(refused, StoreDataError)
    held = {one.workflow for one in claimed}
    assert waiting in held
    assert len(held) == len(claimed)
