"""What the store's suite plays with: definitions, sidecars that commit batches, and a judge.

A binding supplies one fixture, `backend`, with a fresh and empty store behind it. Everything
else is built here, from the port and the definitions package alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import count
from typing import Any, Protocol

import pytest

from sidecar.adapters.entropy import SystemEntropy
from sidecar.definitions import compile_stored, parse_definition
from sidecar.errors import IllegalTransition
from sidecar.ports.records import SidecarBeat
from sidecar.ports.store import (
    Batch,
    BatchResult,
    ClaimDue,
    Claimed,
    ClaimKeys,
    Epoch,
    Missing,
    Moved,
    Outdated,
    Retired,
    Start,
    Started,
    Store,
    Transition,
    TransitionResult,
)
from sidecar.saga.changes import HistoryEvent, Verdict
from sidecar.saga.definition import Definition, JsonText
from sidecar.saga.events import Answered, CancelRequested, Event, LeaseEnded
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.states import StepStatus, WorkflowStatus
from sidecar.saga.turns import InLine, TurnKey
from sidecar.saga.workflow import Step, StepKey, Workflow, WorkflowId
from tests.conformance.store_judge import ALL, assert_sound, assert_utc
from tests.unit.saga.worlds import key_of

MARGIN = timedelta(seconds=5)
_NOTHING = Outdated | Retired | IllegalTransition
"""Answers to starts that name no workflow."""
NAMESPACE = "default"

_ids = SystemEntropy()


class Backend(Protocol):
    """What a binding of the suite supplies: handles to one fresh, empty set of data."""

    async def open_store(self) -> Store:
        """Return one more opened handle on the same data; the binding closes it."""
        ...

    async def pass_time(self, seconds: float) -> None:
        """Make it so that everything stored happened, or is due, `seconds` earlier."""
        ...

    async def lose_answer(self, store: Store, batch: Batch) -> None:
        """Commit `batch` so that it takes effect, but `store` cannot know that it did.

        It is as if `store.commit(batch)` had raised `StoreUnavailable` after the commit.
        """
        ...

    async def set_paused(self, workflow: WorkflowId, paused: bool) -> None:
        """Set the flag of a workflow."""
        ...


def new_id() -> WorkflowId:
    """Return an id greater than all before it."""
    return _ids.workflow_id()


# -- outcomes ---------------------------------------------------------------------------------


def done(output: str | None = '{"ok":true}') -> Outcome:
    return Outcome(OutcomeKind.DONE, output=None if output is None else JsonText(output))


def refused() -> Outcome:
    return Outcome(OutcomeKind.REFUSED, error=JsonText('{"code":"no","message":"no stock"}'))


def unknown() -> Outcome:
    error = JsonText('{"code":"timeout","message":"no answer"}')
    return Outcome(OutcomeKind.UNKNOWN, error=error, may_have_effect=True)


def released() -> Outcome:
    return Outcome(OutcomeKind.RELEASED)


def not_sent() -> Outcome:
    error = JsonText('{"code":"refused","message":"connection refused"}')
    return Outcome(OutcomeKind.NOT_SENT, error=error)


# -- definitions ------------------------------------------------------------------------------


def call(name: str, service: str = "payments", **more: Any) -> dict[str, Any]:
    """A step of a document, undone at `/undo/<name>`."""
    return {
        "name": name,
        "service": service,
        "execute": f"/do/{name}",
        "compensate": f"/undo/{name}",
        **more,
    }


RETRY_ONCE = {"max_attempts": 2, "initial_interval": "1s", "jitter": 0}


async def register(
    store: Store,
    *steps: Mapping[str, Any],
    name: str = "order",
    namespace: str = NAMESPACE,
    **more: Any,
) -> Definition:
    """Store a definition and return it compiled."""
    text = json.dumps({"name": name, "steps": steps, **more})
    parsed = parse_definition(text, "json")
    stored, _ = await store.put_definition(namespace, name, parsed.document, parsed.digest)
    return compile_stored(stored.document, stored.namespace, stored.name, stored.version)


def start_of(
    definition: Definition,
    *,
    workflow: WorkflowId | None = None,
    body: str = '{"amount":5}',
    start_key: str | None = None,
    labels: Mapping[str, str] | None = None,
    trace: str | None = None,
) -> Start:
    """A start with the hash that belongs to its input."""
    return Start(
        id=workflow or new_id(),
        definition=definition,
        input=JsonText(body),
        input_hash=hashlib.sha256(body.encode()).hexdigest(),
        start_key=start_key,
        labels=labels or {},
        trace=trace,
    )


# -- sidecars ---------------------------------------------------------------------------------


class Player:
    """A sidecar of one service: commits batches, and checks all that they wrote."""

    def __init__(
        self,
        store: Store,
        service: str = "payments",
        *,
        incarnation: str | None = None,
        namespace: str = NAMESPACE,
    ) -> None:
        self.store = store
        self.service = service
        self.namespace = namespace
        self.incarnation = incarnation or f"{service}-{new_id()}"
        self._tickets = count(1)

    def batch(
        self,
        *,
        starts: Iterable[Start] = (),
        transitions: Iterable[Transition] = (),
        keys: Iterable[tuple[WorkflowId, StepKey]] | None = None,
        due: int | None = None,
        epoch: Epoch | None = None,
    ) -> Batch:
        """A batch of this sidecar with a new ticket."""
        return Batch(
            namespace=self.namespace,
            service=self.service,
            incarnation=self.incarnation,
            ticket=next(self._tickets),
            lease_margin=MARGIN,
            starts=tuple(starts),
            transitions=tuple(transitions),
            claim_keys=None if keys is None else ClaimKeys(tuple(keys)),
            claim_due=None if due is None else ClaimDue(due),
            epoch=epoch,
        )

    async def commit(self, batch: Batch) -> BatchResult:
        """Commit, and let the judge look at every workflow that the batch named."""
        result = await self.store.commit(batch)
        assert_utc(result.now)
        named = {one.workflow: None for one in result.starts if not isinstance(one, _NOTHING)}
        named |= {one.workflow: None for one in batch.transitions}
        named |= {one.workflow: None for one in result.claimed}
        for workflow in named:
            await assert_sound(self.store, self.namespace, workflow)
        return result

    async def beat(self, *, ready: bool = True, draining: bool = False) -> None:
        """Say that this sidecar lives."""
        await self.store.beat(
            SidecarBeat(
                incarnation=self.incarnation,
                namespace=self.namespace,
                service=self.service,
                version="1.0",
                host="here",
                ready=ready,
                draining=draining,
            )
        )

    async def start(self, definition: Definition, **more: Any) -> WorkflowId:
        """Start one workflow."""
        result = await self.commit(self.batch(starts=[start_of(definition, **more)]))
        (started,) = result.starts
        assert isinstance(started, Started)
        return started.workflow

    async def claim(self, limit: int = 100) -> list[Claimed]:
        """Claim what is due."""
        return list((await self.commit(self.batch(due=limit))).claimed)

    async def claim_one(self) -> Claimed:
        """Claim what is due, which must be exactly one step."""
        (claimed,) = await self.claim()
        return claimed

    async def claim_key(self, workflow: WorkflowId, step: str) -> Claimed | Missing:
        """Claim one step by name, or learn why not."""
        key = (workflow, key_of(step))
        result = await self.commit(self.batch(keys=[key]))
        if result.claimed:
            (claimed,) = result.claimed
            assert key not in result.refused_keys
            return claimed
        return result.refused_keys[key]

    async def apply(self, workflow: WorkflowId, event: Event) -> TransitionResult:
        """Commit one transition; once more if its workflow had moved unseen."""
        for _ in range(2):
            result = await self.commit(self.batch(transitions=[Transition(workflow, event)]))
            (answer,) = result.transitions
            if answer is not Missing.LOCKED:
                break
        return answer

    async def answer(self, claimed: Claimed, outcome: Outcome | None = None) -> Verdict:
        """Settle a claim and return the verdict."""
        moved = await self.apply(claimed.workflow, answer_to(claimed, outcome))
        assert isinstance(moved, Moved)
        return moved.changes.verdict

    async def end_lease(self, claimed: Claimed) -> Verdict:
        """Do what the leader does with a lease that ended."""
        event = LeaseEnded(claimed.key, claimed.action, claimed.attempt)
        moved = await self.apply(claimed.workflow, event)
        assert isinstance(moved, Moved)
        return moved.changes.verdict

    async def cancel(self, workflow: WorkflowId) -> TransitionResult:
        """Ask for a workflow to be undone."""
        return await self.apply(workflow, CancelRequested())

    async def see(self, workflow: WorkflowId) -> Workflow:
        """Return a workflow, which must exist."""
        found = await self.store.get_workflow(self.namespace, workflow)
        assert found is not None
        return found

    async def see_step(self, workflow: WorkflowId, step: str) -> Step:
        """Return a step, which must have a row."""
        return (await self.see(workflow)).steps[StepKey(step)]

    async def status(self, workflow: WorkflowId) -> WorkflowStatus:
        """Return a workflow's status."""
        return (await self.see(workflow)).status

    async def statuses(self, workflow: WorkflowId) -> dict[str, StepStatus]:
        """Return the statuses of the steps that have rows."""
        steps = (await self.see(workflow)).steps
        return {str(key): step.status for key, step in steps.items()}

    async def events(self, workflow: WorkflowId) -> Sequence[HistoryEvent]:
        """Return the whole history."""
        return await self.store.list_events(workflow, 0, ALL)


def answer_to(claimed: Claimed, outcome: Outcome | None = None) -> Answered:
    """The event that settles a claim."""
    return Answered(claimed.key, claimed.action, claimed.attempt, outcome or done())


def settle(
    claimed: Claimed, outcome: Outcome | None = None, *, claim_next: bool = False
) -> Transition:
    """The transition that settles a claim."""
    return Transition(claimed.workflow, answer_to(claimed, outcome), claim_next=claim_next)


async def next_in(store: Store, turn: TurnKey) -> list[InLine]:
    """Who can be admitted now to the places of one key, in order."""
    return [one for _, one in await store.next_turns([turn], 100)]


# -- fixtures that all parts of the suite share -----------------------------------------------


class StoreFixtures:
    """Fixtures made from the binding's `backend`."""

    @pytest.fixture
    async def store(self, backend: Backend) -> Store:
        """An opened store without any data."""
        return await backend.open_store()

    @pytest.fixture
    def payments(self, store: Store) -> Player:
        """A sidecar of `payments`."""
        return Player(store, "payments")

    @pytest.fixture
    def inventory(self, store: Store) -> Player:
        """A sidecar of `inventory`."""
        return Player(store, "inventory")
