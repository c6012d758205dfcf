"""The rule of rate limits, written once as a loop and once as a statement, comes to the same."""

from __future__ import annotations

import random
import re
import uuid
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from sidecar.ports.rates import RateAsk
from sidecar.saga.pacing import RateLimit
from sidecar.saga.states import Action
from sidecar.saga.workflow import StepKey, WorkflowId
from tests.adapters.stores.twins import NAMESPACE, Twins, timed, twins

pytestmark = pytest.mark.postgres

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"

SEQUENCES = 40
QUESTIONS = 25
CHANGES = 0.1
"""How often a limit becomes another."""


__all__ = ["timed", "twins"]


async def test_both_stores_give_the_same_turns_whatever_is_asked(twins: Twins) -> None:
    granted = sent_away = late = 0
    for seed in range(SEQUENCES):
        draw = random.Random(f"rates {seed}")
        service = f"payments-{seed}"
        paths = {path: _limit(draw) for path in ("/a", "/b")}
        known = [WorkflowId(str(uuid.UUID(int=draw.getrandbits(128)))) for _ in range(6)]
        promised: set[RateAsk] = set()
        for number in range(QUESTIONS):
            path = draw.choice(list(paths))
            if draw.random() < CHANGES:
                paths[path] = _limit(draw)
            asks = [_ask(draw, draw.choice((path, *paths)), paths, known) for _ in range(4)]
            asks = list({(one.workflow, one.key, one.action): one for one in asks}.values())
            store = twins.stores[number % 2]
            found = list(await store.ask_rates(NAMESPACE, service, asks))
            assert found == list(await twins.memory.ask_rates(NAMESPACE, service, asks)), seed
            for ask, answer in zip(asks, found, strict=True):
                granted += answer.granted
                sent_away += not answer.granted
                late += not answer.granted and ask in promised
                (promised.discard if answer.granted else promised.add)(ask)
            for one in known:
                steps = set(await store.promised_steps(one))
                assert steps == set(await twins.memory.promised_steps(one)), seed
            await twins.pass_time(draw.choice((0, 0, 0.001, 0.3, 2, 30, 4000)))
    assert granted > 100
    assert sent_away > 100
    assert late > 10


async def test_a_line_whose_steps_were_cancelled_can_be_set_back_as_the_page_says(
    twins: Twins, timed: str
) -> None:
    """And the limit is kept all the same."""
    (said,) = re.findall(r"`(UPDATE goconductor\.rate_limits .+)`", OPERATIONS.read_text("utf-8"))
    limit = RateLimit(2, timedelta(hours=2))

    def one() -> RateAsk:
        workflow = WorkflowId(str(uuid.uuid4()))
        return RateAsk("/charges", limit, workflow, StepKey("charge"), Action.EXECUTE, 0, 0)

    store = twins.stores[0]
    before = await store.ask_rates("default", "payments", [one() for _ in range(50)])
    assert (before[-1].granted, before[-1].wait) == (False, 48 * limit.interval)
    async with await psycopg.AsyncConnection.connect(timed, autocommit=True) as connection:
        assert (await connection.execute(said.encode())).rowcount == 1
    after = await store.ask_rates("default", "payments", [one(), one()])
    assert [(one.granted, one.wait) for one in after] == [
        (False, limit.interval),
        (False, 2 * limit.interval),
    ]


def _limit(draw: random.Random) -> RateLimit:
    return RateLimit(draw.choice((1, 2, 3, 7)), timedelta(milliseconds=draw.randint(5, 4000)))


def _ask(
    draw: random.Random, path: str, paths: dict[str, RateLimit], known: list[WorkflowId]
) -> RateAsk:
    key = StepKey("charge", draw.choice((-1, 0, 1)))
    action = draw.choice((Action.EXECUTE, Action.COMPENSATE))
    patience = draw.choice((0, 1_000, 500_000, 4_000_000))
    tries = int(draw.random() < 0.1)
    return RateAsk(path, paths[path], draw.choice(known), key, action, patience, tries)
