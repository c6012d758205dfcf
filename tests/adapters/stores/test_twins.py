"""Random graphs, random batches: PostgreSQL and the twin in memory come to the same.

TWINS says how many sequences are played, TWINS_FROM with which seed they begin. With
TWINS_COMPARED_AFTER=1 the first batch after which the two differ is found.
"""

from __future__ import annotations

import dataclasses
import os
import random
import uuid
from collections import Counter

import pytest
from msgspec.structs import replace

from sidecar.ports.store import Batch, ClaimDue, ClaimKeys, Rerun, Start, Transition
from sidecar.saga.definition import Concurrency, Definition, JsonText, StepDefinition, Template
from sidecar.saga.events import (
    Admitted,
    DeadlinePassed,
    Event,
    LeaseEnded,
    Resolution,
    ResolveRequested,
    SignalSent,
    TerminateRequested,
    TimerFired,
)
from sidecar.saga.states import CLAIMABLE, WORKFLOW_ENDS, StepStatus, WorkflowStatus
from sidecar.saga.turns import TurnKey, turn_of, waits_for_turn
from sidecar.saga.workflow import StepKey, Workflow, WorkflowId
from tests.adapters.stores.twins import NAMESPACE, Twins, timed, twins
from tests.conformance.store_play import MARGIN
from tests.unit.saga.test_language_properties import answers, graph, verbs

SEQUENCES = int(os.environ.get("TWINS", "200"))
FROM = int(os.environ.get("TWINS_FROM", "0"))
BATCHES = 60
STOPPED_AFTER = 10
COMPARED_AFTER = int(os.environ.get("TWINS_COMPARED_AFTER", "5"))

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(60 + SEQUENCES * 2)]


__all__ = ["timed", "twins"]


class _Sequence:
    """One random sequence of batches."""

    def __init__(self, seed: int, twins: Twins) -> None:
        self.draw = random.Random(seed)
        self.seed = seed
        self.twins = twins
        self.seen = Counter[str]()
        self._ticket = 0
        self._workflows: list[WorkflowId] = []

    async def play(self) -> None:
        """Play it to its end; compare what comes of every batch, and now and then all."""
        definition = await self._define()
        await self.twins.commit(0, self._batch("a", starts=self._starts(definition)))
        for number in range(BATCHES):
            if number % COMPARED_AFTER == 0:
                await self.twins.compare(self._workflows)
            if number == STOPPED_AFTER and self.seed % 5 == 0:
                await self._stop_all()
            if all(one.status in WORKFLOW_ENDS for one in self._wholes()):
                ended = [one for one in self._wholes() if one.status is WorkflowStatus.TERMINATED]
                if not ended:
                    break
                await self._run_again(definition, self.draw.choice(ended))
            else:
                await self._move()
        await self.twins.compare(self._workflows)
        for one in self._wholes():
            self.seen[one.status] += 1

    async def _define(self) -> Definition:
        made = graph(self.draw)
        # All sequences share one database, so each has places of its own.
        own = Template(JsonText(f'"{self.seed}"'), constant=True)
        urgency = random.Random(f"urgency {self.seed}")
        steps = tuple(
            # Two services, so that a settlement's own service has some of what comes next.
            step
            if step.wait
            else _called(step, self.draw.choice("ab"), own, urgency.choice((0, 0, 9)))
            for step in made.steps
        )
        turns = Concurrency(own, 1, self.draw.random() < 0.5) if self.draw.random() < 0.1 else None
        return await self.twins.define(dataclasses.replace(made, steps=steps, concurrency=turns))

    def _starts(self, definition: Definition) -> list[Start]:
        self._workflows = [self._new_id() for _ in range(self.draw.randint(1, 2))]
        return [
            Start(one, definition, JsonText("{}"), "hash", claim_next=self.draw.random() < 0.5)
            for one in self._workflows
        ]

    async def _stop_all(self) -> None:
        """Terminate them on their way, so that there is something to take over."""
        stop = TerminateRequested("enough")
        going = [one.id for one in self._wholes() if one.status not in WORKFLOW_ENDS]
        if going:
            members = [Transition(one, stop) for one in going]
            await self.twins.commit(0, self._batch("a", transitions=members))

    async def _run_again(self, definition: Definition, old: Workflow) -> None:
        """Run again what was terminated; what cannot be taken over is settled, a step at a time."""
        known = self._new_id()
        start = Start(known, definition, JsonText("{}"), "hash", rerun=Rerun(old.id, "go on"))
        start = replace(start, claim_next=self.draw.random() < 0.5)
        await self.twins.commit(0, self._batch("a", starts=[start]), lost=self.draw.random() < 0.2)
        if known in self.twins.tables.rows:
            self._workflows.append(known)
            self._workflows.remove(old.id)
            self.seen["taken over" if self.twins.whole(old.id).taken_over_by else "run again"] += 1
            return
        self.seen["not taken over"] += 1
        events: list[Event] = [
            ResolveRequested(key, Resolution.COMPENSATED, "by hand", "the ledger")
            for key in old.steps
        ]
        members = [Transition(old.id, one) for one in events]
        await self.twins.commit(0, self._batch("a", transitions=members))

    def _new_id(self) -> WorkflowId:
        return WorkflowId(str(uuid.UUID(int=self.draw.getrandbits(128), version=4)))

    def _wholes(self) -> list[Workflow]:
        return [self.twins.whole(one) for one in self._workflows]

    def _batch(self, service: str, **members: object) -> Batch:
        self._ticket += 1
        made: dict[str, object] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in members.items()
        }
        return Batch(
            namespace=NAMESPACE,
            service=service,
            incarnation=f"{self.seed}-{service}",
            ticket=self._ticket,
            lease_margin=MARGIN,
            **made,  # type: ignore[arg-type]
        )

    # -- what happens -------------------------------------------------------------------------

    async def _move(self) -> None:
        draw = self.draw
        if draw.random() < 0.25:
            await self.twins.pass_time(draw.choice((0.25, 0.6, 3, 40, 200)))
        if draw.random() < 0.1:
            await self.twins.beat(f"{self.seed}-{draw.choice('ab')}", "a")
        if draw.random() < 0.02:
            await self.twins.leave(f"{self.seed}-a")
        lost = draw.random() < 0.15
        service = draw.choice("ab")
        kind = draw.random()
        if kind < 0.3:
            batch = self._batch(service, claim_due=ClaimDue(100))
        elif kind < 0.45 and (keys := self._keys()):
            batch = self._batch(service, claim_keys=ClaimKeys(tuple(keys)))
        else:
            batch = self._batch(service, transitions=self._transitions())
        await self.twins.commit(draw.randint(0, 1), batch, lost=lost)

    def _keys(self) -> list[tuple[WorkflowId, StepKey]]:
        found = [
            (one.id, key)
            for one in self._wholes()
            for key, step in one.steps.items()
            if step.status in CLAIMABLE or self.draw.random() < 0.1
        ]
        return self.draw.sample(found, min(len(found), self.draw.randint(1, 3)))

    def _transitions(self) -> list[Transition]:
        """One to four events, some of them of one workflow, some of them of several items."""
        found = [
            Transition(workflow.id, event, turn=_turn_of(workflow, event))
            for workflow in self._wholes()
            for event in self._events(workflow)
        ]
        many = self.draw.randint(1, 4) if self.draw.random() < 0.5 else 1
        chosen = self.draw.sample(found, min(many, len(found)))
        # Whether a place can be taken by the batch that gives it back is up to a store. It can if
        # it is a step's, but members of other workflows may be decided before all others are.
        begin = [one.workflow for one in chosen if one.event == Admitted()]
        if begin:
            chosen = [one for one in chosen if one.workflow == begin[0]]
        asking = {one.workflow for one in chosen if isinstance(one.event, Admitted)}
        chosen.sort(key=lambda one: one.workflow in asking)
        if len(chosen) == 1:
            next_ = self.draw.random() < 0.5
            wait = self.draw.random() < 0.2
            chosen = [replace(chosen[0], claim_next=next_, wait=wait)]
        return chosen

    def _events(self, workflow: Workflow) -> list[Event]:
        draw = self.draw
        found: list[Event] = []
        for key, one in workflow.steps.items():
            if one.leased:
                found += answers(draw, one)
                if draw.random() < 0.1:
                    found.append(LeaseEnded(key, one.action, one.run.attempt))
            elif one.status is StepStatus.WAITING and one.due_at is not None:
                found.append(TimerFired(key))
            elif one.run.attempt and draw.random() < 0.1:
                found += answers(draw, one)
        found += _admissions(draw, workflow)
        stuck = workflow.paused or workflow.status is WorkflowStatus.ERROR
        for _ in range(3 if stuck or not found else draw.random() < 0.15):
            key = draw.choice(list(workflow.steps) or [StepKey("s0")])
            found += verbs(draw, key)
        if draw.random() < (0.5 if len(found) < 2 else 0.1):
            found.append(
                SignalSent("go", JsonText(str(draw.randint(1, 99))), "because", "somebody")
            )
        if workflow.deadline_at is not None and draw.random() < 0.2:
            found.append(DeadlinePassed())
        return found


def _called(step: StepDefinition, service: str, own: Template, priority: int) -> StepDefinition:
    turns = step.concurrency
    if turns is not None and turns.key.constant:
        turns = dataclasses.replace(turns, key=own)
    return dataclasses.replace(step, service=service, concurrency=turns, priority=priority)


def _admissions(draw: random.Random, workflow: Workflow) -> list[Event]:
    """Those who wait for their turn; now and then the workflow, though its turn has been."""
    found: list[Event] = [
        Admitted(key) for key, one in workflow.steps.items() if waits_for_turn(one)
    ]
    if workflow.turn is not None and (not workflow.steps or draw.random() < 0.05):
        found.append(Admitted())
    return found


def _turn_of(workflow: Workflow, event: Event) -> TurnKey | None:
    if not isinstance(event, Admitted):
        return None
    return turn_of(workflow, workflow.steps[event.step] if event.step else None)


async def test_the_same_batches_come_to_the_same(twins: Twins) -> None:
    seen = Counter[str]()
    for seed in range(FROM, FROM + SEQUENCES):
        sequence = _Sequence(seed, twins)
        try:
            await sequence.play()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        seen += sequence.seen
    assert {"completed", "rolled_back"} <= set(seen), seen
    if SEQUENCES >= 200:
        assert {"taken over", "run again", "not taken over"} <= set(seen), seen
