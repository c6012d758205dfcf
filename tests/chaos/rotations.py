"""A business in which every service does everything: begins, ends, retries, undoes.

Of three definitions that are alike each begins at another service and ends there too, so a
sidecar of any service passes every place that a sidecar can pass. The steps are patient: a run
may kill whoever holds them many times before they have used up their tries.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sidecar.engine.callbacks import Attempt, Tokens
from sidecar.saga.states import Action
from sidecar.saga.workflow import StepKey, WorkflowId
from tests.chaos.asking import ask
from tests.chaos.definitions import (
    DEFINITIONS,
    ERROR,
    MIX,
    RETRY,
    ROLLED_BACK,
    SERVICES,
    Order,
    step,
)
from tests.chaos.world import World

PATIENT = {**RETRY, "max_attempts": 40}
_HELD = {**RETRY, "max_attempts": 5}


def _rotation(number: int) -> dict[str, Any]:
    """Four steps in a row: this service, the two others, and this one again."""
    own, second, third = (SERVICES[(number + one) % len(SERVICES)] for one in range(3))
    return {
        "name": f"rotation{number}",
        "steps": [
            step("open", own, (), retry=PATIENT),
            step("second", second, ("open",), retry=PATIENT),
            step("third", third, ("second",), retry=PATIENT),
            step("close", own, ("third",), retry=PATIENT),
        ],
    }


def _held(number: int) -> dict[str, Any]:
    """Its last step fails for seconds, so there is time to cancel it."""
    own, other = SERVICES[number], SERVICES[(number + 1) % len(SERVICES)]
    return {
        "name": f"held{number}",
        "steps": [
            step("open", other, (), retry=PATIENT),
            step("hold", own, ("open",), retry=_HELD),
        ],
    }


def _patient(definition: Mapping[str, Any]) -> dict[str, Any]:
    steps = [{**one, "retry": PATIENT} for one in definition["steps"]]
    return {**definition, "steps": steps}


HASTY: dict[str, Any] = {
    "name": "hasty",
    "timeout": "500ms",
    "steps": [step("open", "payments", ()), step("hold", "inventory", ("open",), retry=PATIENT)],
}
"""Its second step fails until the time of the whole is over: only a leader can turn it back."""

_NUMBERS = range(len(SERVICES))
ROTATIONS: tuple[dict[str, Any], ...] = (
    *map(_patient, DEFINITIONS),
    *map(_rotation, _NUMBERS),
    *map(_held, _NUMBERS),
    HASTY,
)
ORDERS: tuple[Order, ...] = (
    *(Order(f"rotation{number}") for number in _NUMBERS),
    *(Order(f"rotation{number}", {"close": "refuse"}) for number in _NUMBERS),
    *(Order(f"rotation{number}", {"open": "refuse"}) for number in _NUMBERS),
    Order("hasty", {"hold": "fail"}),
    *MIX,
)
UNKNOWN_PIVOT = {"pivot": ERROR}
"""Also legal where sidecars die: a refusal that was lost is an outcome that nobody knows, and what
comes after it does not make it known; past a pivot that is for a person to look at."""

HELD: tuple[Order, ...] = tuple(Order(f"held{number}", {"hold": "fail"}) for number in _NUMBERS)
assert all(one.ends == ROLLED_BACK for one in HELD)


RESUMING: dict[str, Any] = {
    "verb": "resume",
    "filter": {"status": ["in_progress"]},
    "limit": 5,
    "reason": "nobody had paused them",
}
"""A bulk job that changes nothing."""


class Business:
    """All that clients may ask, at whichever sidecar is there: a portion at a time."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._draw = random.Random(f"business {seed}")
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="chaos-business")
        self._registered = 0

    def portion(self) -> None:
        """Start one workflow of each kind, cancel some, register something; wait for nothing.

        Who is asked may die of it: a start is asked for again until it is accepted, a cancel and
        a registration are left in doubt.
        """
        world, names = self._world, list(self._world.sidecars)
        world.begin_load(len(ORDERS), ORDERS, parallel=4)
        self._registered += 1
        document = {**HASTY, "name": f"extra{self._registered}"}
        for name in names:
            address = world.sidecars[name].api
            self._pool.submit(ask, address, "/v1/definitions", document)
            order = self._draw.choice(HELD)
            self._pool.submit(self._start_and_cancel, order, name)
            self._pool.submit(ask, address, "/v1/workflows/bulk", RESUMING)
            self._pool.submit(self._heartbeat, address)

    def _heartbeat(self, address: str) -> None:
        """Say of some attempt that it is still at it: true or not, that changes nothing."""
        with self._world.connect() as connection:
            key = connection.execute(
                b"SELECT key FROM goconductor.keys WHERE name = 'callbacks'"
            ).fetchone()
            newest = connection.execute(
                b"SELECT workflow_id::text, step, idx, attempt FROM goconductor.steps"
                b" WHERE attempt > 0 ORDER BY claimed_at DESC LIMIT 1"
            ).fetchone()
        if key is not None and newest is not None:
            workflow, name, index, attempt = newest
            one = Attempt(WorkflowId(workflow), StepKey(name, index), Action.EXECUTE, attempt)
            token = Tokens(bytes(key[0]), "").token(one)
            ask(address, f"/v1/tasks/{token}/heartbeat", {})

    def _start_and_cancel(self, order: Order, at: str) -> None:
        workflow = self._world.start(order)
        if workflow is not None:
            self._world.cancel(workflow, at=at)

    def close(self) -> None:
        """Return when nothing is asked any more."""
        self._pool.shutdown()
