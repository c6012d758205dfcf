"""A claim whose definition cannot be read: asked for again, then given back, never in a rush."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from sidecar.engine import calling
from sidecar.errors import StoreUnavailable
from sidecar.ports.store import Batch, Claimed
from sidecar.saga.events import Answered
from sidecar.saga.states import StepStatus
from sidecar.saga.workflow import StepKey
from tests.conformance.store_play import call
from tests.unit.engine.faces import until
from tests.unit.engine.parts import Parts

AWAY = StoreUnavailable("no connection is free")
BUG = SystemError("a bug in the compiler")


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """What was logged; a terminal would show each of the traces at length."""
    with capture_logs() as lines:
        yield lines


@pytest.fixture
async def parts(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Parts]:
    """A sidecar that makes calls, and asks again soon."""
    monkeypatch.setattr(calling, "READ_AGAIN_S", 0.001)
    made = Parts()
    await made.open()
    yield made
    await made.close()


async def claim(parts: Parts) -> Claimed:
    """Claim the step of a new workflow."""
    workflow = await parts.start(await parts.define(call("charge")))
    (claimed,) = await parts.committer.claim([(workflow, StepKey("charge"))])
    assert isinstance(claimed, Claimed)
    parts.settle_all()
    return claimed


def releases(batches: list[Batch]) -> list[str]:
    """What was settled, in its order."""
    events = [one.event for batch in batches for one in batch.transitions]
    return [one.outcome.kind for one in events if isinstance(one, Answered)]


@pytest.mark.parametrize("fault", [AWAY, BUG], ids=repr)
async def test_it_is_asked_for_again_and_the_call_is_made(parts: Parts, fault: Exception) -> None:
    claimed = await claim(parts)
    parts.store.faults.next["get_definition"] = [fault] * 5
    parts.caller.take(claimed, parts.clock.monotonic())
    await until(lambda: parts.slots.used == 0)
    assert len(parts.service.calls) == 1
    assert releases(parts.store.batches) == ["done"]


async def test_it_is_given_back_once_the_call_cannot_be_sent_any_more(parts: Parts) -> None:
    claimed = await claim(parts)
    parts.store.faults.next["get_definition"] = [AWAY] * 100_000
    parts.caller.take(claimed, parts.clock.monotonic())
    await parts.store.faults.until_asked("get_definition", 4)
    assert releases(parts.store.batches) == []
    parts.clock.advance(5)
    await until(lambda: parts.slots.used == 0)
    assert releases(parts.store.batches) == ["released"]
    assert (await parts.step(claimed.workflow, "charge")).status is StepStatus.RETRYING


async def test_a_sidecar_that_takes_no_more_gives_back_at_once(parts: Parts) -> None:
    claimed = await claim(parts)
    parts.may_take_more = False
    parts.store.faults.next["get_definition"] = [AWAY] * 100_000
    parts.caller.take(claimed, parts.clock.monotonic())
    await until(lambda: parts.slots.used == 0)
    assert parts.store.faults.asked.count("get_definition") == 1
    assert releases(parts.store.batches) == ["released"]


async def test_a_release_that_the_store_refuses_is_left_to_the_lease(parts: Parts) -> None:
    claimed = await claim(parts)
    parts.may_take_more = False
    parts.store.faults.next["get_definition"] = [AWAY]
    parts.store.faults.next["commit"] = [BUG] * 100_000
    parts.caller.take(claimed, parts.clock.monotonic())
    await until(lambda: parts.slots.used == 0)
    parts.store.faults.next["commit"] = []
    assert (await parts.step(claimed.workflow, "charge")).status is StepStatus.RUNNING
