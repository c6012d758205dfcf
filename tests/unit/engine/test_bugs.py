"""What a bug at one exact place costs: never more than what stands there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from structlog.testing import capture_logs

from sidecar.engine import failpoints, supervision
from sidecar.engine.failpoints import Site
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.workflow import WorkflowId
from tests.conformance.store_play import call
from tests.unit.engine.faces import until
from tests.unit.engine.parts import Parts
from tests.unit.engine.whole import Whole


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(supervision, "PAUSE_S", 0.001)
    with capture_logs():
        yield
    failpoints.disarm()


@pytest.fixture
async def parts() -> AsyncIterator[Parts]:
    made = Parts()
    await made.open()
    await made.open_gate()
    yield made
    await made.close()


async def test_a_doorbell_whose_claim_met_a_bug_is_given_up(parts: Parts) -> None:
    workflow = await parts.start(await parts.define(call("charge")))
    failpoints.arm(f"{Site.BEFORE_CLAIM}:raise")
    await parts.receiver.start()
    parts.put(workflow, "charge")
    await until(lambda: parts.queue.acked)
    assert not parts.claimed
    assert not parts.slots.used


async def test_what_is_refused_at_the_ack_of_others_is_claimed_all_the_same(parts: Parts) -> None:
    workflow = await parts.start(await parts.define(call("charge")))
    parts.broker.put("default", "payments", b"no doorbell")
    parts.put(workflow, "charge")
    failpoints.arm(f"{Site.BEFORE_ACK}:raise")
    await parts.receiver.start()
    await until(lambda: parts.claimed)


async def test_a_receiver_goes_on_after_a_bug_of_its_own(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = await parts.start(await parts.define(call("charge")))
    waits = [ValueError("a bug"), ValueError("a bug")]
    wait_free = parts.slots.wait_free

    async def tricky() -> int:
        if waits:
            raise waits.pop()
        return await wait_free()

    monkeypatch.setattr(parts.slots, "wait_free", tricky)
    await parts.receiver.start()
    parts.put(workflow, "charge")
    await until(lambda: parts.claimed)


async def test_a_listener_with_a_bug_takes_no_answer_from_whoever_brings_it(parts: Parts) -> None:
    heard: list[bool] = []

    def deaf(*, is_open: bool, reason: str) -> None:
        raise ValueError("a bug")

    def hears(*, is_open: bool, reason: str) -> None:
        heard.append(is_open)

    parts.gate.listen(deaf)
    parts.gate.listen(hears)
    parts.service.is_ready = False
    for number in range(10):
        parts.gate.record(WorkflowId(f"w{number}"), Outcome(OutcomeKind.NOT_SENT))
    assert not parts.gate.is_open
    parts.service.is_ready = True
    await parts.gate.wait_open()
    assert heard == [False, True]


async def test_a_term_is_given_back_although_something_before_it_fails() -> None:
    whole = Whole()
    await whole.agent.start()
    await until(lambda: whole.agent.leadership.leading)
    failpoints.arm(f"{Site.RESIGN}:raise")
    await whole.agent.leadership.stop()
    assert whole.booth.holder is None
    await whole.agent.stop()
