"""Every failpoint is passed by a whole sidecar, and a bug at any of them loses no workflow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from structlog.testing import capture_logs

from sidecar.adapters.services.memory import DONE, Act, outcome
from sidecar.engine import agent as agents
from sidecar.engine import bulk, failpoints, group_commit, leadership, receiving, supervision
from sidecar.engine.agent import Settings
from sidecar.engine.bulk import BulkRequest
from sidecar.engine.duties import DutyTimes
from sidecar.engine.failpoints import InjectedBug, Site
from sidecar.errors import StoreUnavailable
from sidecar.ports.bulk import BulkFilter, BulkStatus
from sidecar.ports.service import Call
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.pacing import RateLimit
from sidecar.saga.states import Action, WorkflowStatus
from sidecar.saga.workflow import StepKey, WorkflowId
from tests.conformance.store_play import RETRY_ONCE, call
from tests.unit.engine.faces import until
from tests.unit.engine.finishing import Finishing, token_of
from tests.unit.engine.parts import ME, SOON
from tests.unit.engine.whole import Whole

ORDER = b"""
name: order
steps:
  - { name: charge, service: payments, execute: /do/charge, compensate: /undo/charge }
  - { name: ship, service: payments, execute: /do/ship, compensate: none }
"""
PARKED = b"""
name: parked
steps: [{ name: park, service: elsewhere, execute: /do/park, compensate: none }]
"""
PATIENT = b"""
name: patient
steps:
  - { name: rest, wait: { duration: 10ms } }
  - { name: later, service: payments, execute: /do/later, compensate: none }
"""
TICK_S = 0.005
OFTEN_AGAIN = {**RETRY_ONCE, "max_attempts": 10, "initial_interval": "10ms"}
WITHIN_S = 30.0
"""A hang is not over by then; whatever else is, on a machine with much to do."""
MORE_THAN_ARE_ASKED = 10_000
GOING = {Site.RESIGN, Site.GOODBYE, *(site for site in Site if "drain" in site)}
"""These are passed by a sidecar that goes."""
SHORT = timedelta(milliseconds=1)

OFTEN = Settings(
    look=SOON,
    heartbeat_s=0.001,
    drain_s=5.0,
    duties=DutyTimes(
        every=SHORT,
        idle_every=SHORT,
        ring_every=SHORT,
        review_every=SHORT,
        debt_every=SHORT,
        bulk_every=SHORT,
        forget_every=SHORT,
    ),
    rate_limits={"/do/charge": RateLimit(1_000_000, timedelta(seconds=1))},
)

T = TypeVar("T")
Logs = list[MutableMapping[str, Any]]


@pytest.fixture(autouse=True)
def logs() -> Iterator[Logs]:
    """What was logged."""
    with capture_logs() as lines:
        yield lines


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.disarm()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (supervision, "PAUSE_S"),
        (agents, "QUEUE_PAUSE_S"),
        (receiving, "QUEUE_PAUSE_S"),
        (receiving, "ASK_AGAIN_S"),
        (group_commit, "REFUSED_PAUSE_S"),
        (leadership, "PAUSE_AFTER_FAULT_S"),
        (bulk, "PAUSE_S"),
    ):
        monkeypatch.setattr(module, name, 0.001)


class Business(Whole):
    """A whole sidecar with a bit of everything to do, in a time that runs fast."""

    def __init__(self) -> None:
        super().__init__(settings=OFTEN)
        self.service.script = {
            ("ship", Action.EXECUTE): Act(outcome(OutcomeKind.REFUSED)),
            ("flaky", Action.EXECUTE): (
                Act(outcome(OutcomeKind.UNKNOWN), has_effect=False),
                Act(DONE),
            ),
            ("later", Action.EXECUTE): Act(outcome(OutcomeKind.PENDING)),
        }
        self.finishing = Finishing(self.service, self.call_back)

    def _was_let_go(self, flaky: WorkflowId) -> bool:
        """Whether the first claim is over: it was given back, or its lease has ended."""
        run = self.store.tables.rows[flaky].workflow.steps[StepKey("flaky")]
        return run.execute.attempt > 1 or (run.execute.attempt == 1 and not run.leased)

    async def call_back(self, made: Call, _answer: Outcome) -> None:
        """Say that the service has finished what it took on."""
        await insisting(lambda: self.agent.tasks.complete(token_of(made)))

    async def do_all(self) -> None:
        """Fails by a time-out unless every workflow ends as it should."""
        commands, namespace = self.agent.commands, ME.namespace
        await self.store.open()
        # What a sidecar has left behind that is gone; a step whose definition is hard to read.
        stranded = await self.start(await self.define(call("charge"), name="stranded"))
        await self.player.claim_one()
        flaky = await self.start(
            await self.define(call("flaky", retry=OFTEN_AGAIN), name="flaky"), body="{}"
        )
        away = self.store.faults.next["get_definition"]
        away += [StoreUnavailable("the store is away")] * MORE_THAN_ARE_ASKED
        self.put(flaky, "flaky")
        await self.agent.start()
        await until(lambda: self._was_let_go(flaky))
        away.clear()
        for document in (ORDER, PARKED, PATIENT):
            await insisting(
                lambda it=document: commands.register_definition(namespace, it, "application/yaml")
            )
        orders = [
            await insisting(
                lambda key=f"key-{one}": commands.start(namespace, "order", start_key=key)
            )
            for one in range(3)
        ]
        parked = await insisting(lambda: commands.start(namespace, "parked", start_key="parked"))
        await insisting(lambda: self.agent.verbs.cancel(namespace, parked.id))
        many = await insisting(lambda: commands.start(namespace, "parked", start_key="many"))
        all_parked = BulkRequest("cancel", BulkFilter(definition="parked"))
        job = await insisting(lambda: self.agent.oversight.bulk.begin(namespace, all_parked))
        patient = await insisting(lambda: commands.start(namespace, "patient", start_key="it"))
        for workflow in (stranded, flaky, patient.id):
            await self.until_completed(workflow)
        for order in orders:
            await self.until_status(order.id, WorkflowStatus.ROLLED_BACK)
        for workflow in (parked.id, many.id):
            await self.until_status(workflow, WorkflowStatus.ROLLED_BACK)
        jobs = self.store.tables.bulk.jobs
        await until(lambda: jobs[job.id].status is BulkStatus.DONE)
        await until(lambda: self.agent.leadership.leading)


async def insisting(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask as a client does that was answered with an error: again."""
    while True:
        try:
            return await ask()
        except InjectedBug:
            continue


@pytest.fixture
async def business() -> AsyncIterator[Business]:
    made = Business()

    async def tick() -> None:
        while True:
            made.clock.advance(TICK_S)
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    yield made
    await made.agent.stop()
    ticking.cancel()
    await asyncio.gather(ticking, return_exceptions=True)


async def test_every_site_is_passed(business: Business, logs: Logs) -> None:
    """None of them needs a real server; those of the list need that the sidecar goes."""
    failpoints.arm(",".join(f"{site}:sleep=0s" for site in Site))

    def missing() -> set[Site]:
        fired = (line for line in logs if line["event"] == "failpoint_fires")
        return set(Site) - {Site(line["failpoint"].partition(":")[0]) for line in fired}

    async with asyncio.timeout(WITHIN_S):
        await business.do_all()
        await until(lambda: missing() <= GOING)
    assert missing() == GOING
    await business.agent.stop()
    assert missing() == set()


@pytest.mark.parametrize("site", Site)
async def test_a_bug_at_any_site_loses_no_workflow(
    business: Business, logs: Logs, site: Site
) -> None:
    def fired() -> bool:
        return any(line["event"] == "failpoint_fires" for line in logs)

    failpoints.arm(f"{site}:raise@1,{site}:raise@3")
    async with asyncio.timeout(WITHIN_S):
        await business.do_all()
        # A timer may be overtaken by a look, and everything be done before it fires.
        await until(lambda: fired() or site in GOING)
    async with asyncio.timeout(WITHIN_S):
        await business.agent.stop()
    assert business.booth.holder is None
    assert not business.agent.slots.used
    assert ME.incarnation in business.store.tables.gone or site is Site.GOODBYE
    assert fired()
