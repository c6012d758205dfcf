"""Two sidecars over one PostgreSQL: however they share the work, the limit of an action holds.

The service keeps the moment at which each call came in, and is the only witness.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from sidecar.adapters.postgres.migrate import migrate
from sidecar.engine.limiting import GOOD_FOR_S
from tests.e2e.scripted import Call, Services
from tests.e2e.test_sidecar import Sidecar, folder, started
from tests.servers.processes import ServerProcess

__all__ = ["folder", "started"]

pytestmark = [pytest.mark.e2e, pytest.mark.postgres, pytest.mark.timeout(180)]

ORDER = b"""
name: order
steps:
  - { name: charge, service: payments, action: charge }
  - { name: tell, service: payments, execute: /messages, compensate: none }
"""
OUTPUTS: dict[str, dict[str, Any]] = {"order": {"charge": {}, "tell": {}}}
LIMIT = 20
"""So many calls at once, then so many per second."""
MANY = 100
WITHIN_S = 60.0
START_TOGETHER = 30


@pytest.fixture
def service() -> Iterator[Services]:
    with Services(["payments"], OUTPUTS) as services:
        yield services


@pytest.fixture
def both(database: str, folder: Path, service: Services) -> list[Sidecar]:
    """Two sidecars of one service, neither started."""
    asyncio.run(migrate(database))
    more = {
        "service_url": service.url("payments"),
        "actions": {
            "charge": {
                "execute": "/charges",
                "compensate": "/refunds",
                "rate_limit": {"limit": LIMIT, "per": "1s"},
            }
        },
        "look": {"min": "100ms", "max": "200ms"},
        "heartbeat": "200ms",
        "silent_after": "1s",
    }
    return [Sidecar(folder, {"dsn": database}, name, more) for name in ("first", "second")]


def begin(sidecars: list[Sidecar]) -> list[tuple[Sidecar, str]]:
    """Start workflows, by the one sidecar and by the other."""
    sidecars[0].ask("/v1/definitions", ORDER, "application/yaml")
    begun = []
    for number in range(MANY):
        one = sidecars[number % len(sidecars)]
        begun.append((one, one.ask("/v1/workflows", b'{"definition": "order"}')["id"]))
    return begun


def charges(service: Services) -> list[Call]:
    """The calls of the limited action, in the order in which they came."""
    return sorted((one for one in service.calls if one.path == "/charges"), key=_moment)


def _moment(call: Call) -> float:
    return call.began


def never_more_than_the_limit(calls: list[Call]) -> None:
    """Fail if in any span more calls came in than the limit and its stated bound allow."""
    for (first, one), (last, other) in combinations(enumerate(calls), 2):
        span = other.began - one.began
        assert last - first + 1 <= LIMIT + (span + GOOD_FOR_S) * LIMIT, (first, last, span)


@pytest.fixture
def processes(
    both: list[Sidecar], started: Callable[[Sidecar], ServerProcess]
) -> list[ServerProcess]:
    """Both sidecars, at work."""
    running = [started(one) for one in both]
    for one, process in zip(both, running, strict=True):
        process.wait_until(one.ready, within_s=WITHIN_S)
    return running


@pytest.mark.usefixtures("processes")
def test_two_sidecars_together_keep_the_limit_and_every_step_is_called_once(
    both: list[Sidecar], service: Services
) -> None:
    begun = begin(both)
    for one, workflow in begun:
        view = one.ask(f"/v1/workflows/{workflow}?wait=30s")
        assert view["status"] == "completed"
        charge, tell = view["steps"]
        # Claimed, perhaps sent away until its turn, and then it had it.
        assert charge["attempt"] <= 3
        assert (charge["tries"], tell["attempt"]) == (1, 1)
    calls = charges(service)
    assert sorted(call.workflow for call in calls) == sorted(workflow for _, workflow in begun)
    never_more_than_the_limit(calls)
    # Calls that share the time since the first one must have been waited for.
    assert calls[-1].began - calls[0].began >= (MANY - LIMIT) / LIMIT - GOOD_FOR_S


def test_a_sidecar_that_is_killed_loses_no_step_and_lends_nobody_its_turns(
    both: list[Sidecar],
    processes: list[ServerProcess],
    service: Services,
) -> None:
    begun = begin(both)
    assert service.wait(lambda: len(charges(service)) >= START_TOGETHER)
    view = both[1].ask(f"/v1/workflows/{_one_that_waits(both[1], begun)}")
    assert any("rate limit" in line for line in view["waiting_on"])
    assert view["next_attempt_at"] is not None
    os.kill(processes[0].pid, signal.SIGKILL)
    processes[0].wait()
    for _, workflow in begun:
        view = both[1].ask(f"/v1/workflows/{workflow}?wait=30s")
        assert view["status"] == "completed"
    never_more_than_the_limit(charges(service))


def _one_that_waits(sidecar: Sidecar, begun: list[tuple[Sidecar, str]]) -> str:
    """The newest workflow: its turn comes last."""
    for _, workflow in reversed(begun):
        view = sidecar.ask(f"/v1/workflows/{workflow}")
        if any("rate limit" in line for line in view["waiting_on"]):
            return workflow
    raise AssertionError("nobody waits for the rate limit")
