"""What every adapter of the service port must do, whatever it speaks.

A binding supplies two fixtures: `service`, opened, and `far`, the service behind it, which does
as it is told and remembers what it was asked. `Far.will` is applied to every later call.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Protocol

import orjson
import pytest
from msgspec.structs import replace

from sidecar.ports.service import Call, Service
from sidecar.saga.definition import JsonText
from sidecar.saga.outcomes import OutcomeKind
from sidecar.saga.states import Action
from sidecar.saga.workflow import DefinitionRef, StepKey, WorkflowId

_K = OutcomeKind
ACTIONS = pytest.mark.parametrize("action", [Action.EXECUTE, Action.COMPENSATE])


CALLBACK = "http://127.0.0.1:7400/v1/tasks/token"


class Behaviour(StrEnum):
    """What a service may do with a call; asked for the status of one, it says that it did so."""

    DONE = "done"
    """Do it, and answer with the JSON it was sent."""
    REFUSED = "refused"
    """Not do it, and promise never to."""
    BROKEN = "broken"
    """Answer that something went wrong inside."""
    BUSY = "busy"
    NOT_NOW = "not_now"
    NOT_FOUND = "not_found"
    """Know nothing of what is asked for."""
    PENDING = "pending"
    """Take the work, and mean to finish it later."""
    UNREADABLE = "unreadable"
    """Do it, and answer with something that cannot be kept."""
    TOO_LARGE = "too_large"
    """Do it, and answer with more than the adapter's bound."""
    HANGS = "hangs"
    """Take the call, and never answer."""
    CUTS = "cuts"
    """Take the call, and cut the connection."""
    AWAY = "away"
    """Not be there."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What came in at the service."""

    idempotency_key: str
    attempt: int
    body: str
    timeout_ms: int
    deadline: datetime
    callback: str | None


class Far(Protocol):
    """The service as a test commands it."""

    asked: list[Asked]

    async def will(self, behaviour: Behaviour) -> None:
        """Behave like that from now on."""
        ...

    async def wait_asked(self) -> None:
        """Wait until at least one call has come in."""
        ...

    async def wait_left(self) -> None:
        """Wait until every caller has gone."""
        ...


def a_call(action: Action = Action.EXECUTE, *, timeout: float = 10.0, step: str = "charge") -> Call:
    """Return a call as the engine would make it."""
    return Call(
        workflow=WorkflowId("0190c0de-0000-7000-8000-000000000001"),
        definition=DefinitionRef("default", "order_processing", 3),
        key=StepKey(step),
        action=action,
        attempt=1,
        path="/charges",
        body=JsonText('{"amount":12}'),
        timeout=timeout,
        deadline=datetime.now(UTC) + timedelta(seconds=timeout),
        method="GET" if action is Action.STATUS else "POST",
        callback=None if action is Action.STATUS else CALLBACK,
    )


class ServiceConformance:
    """The suite."""

    @ACTIONS
    async def test_what_is_done_is_done(self, service: Service, far: Far, action: Action) -> None:
        outcome = await service.call(a_call(action))
        assert outcome.kind is _K.DONE
        assert outcome.output == '{"amount":12}'
        assert outcome.error is None
        assert not outcome.may_have_effect

    @ACTIONS
    @pytest.mark.parametrize(
        ("behaviour", "kind"),
        [
            (Behaviour.REFUSED, _K.REFUSED),
            (Behaviour.BUSY, _K.BUSY),
            (Behaviour.NOT_FOUND, _K.MISCONFIGURED),
            (Behaviour.AWAY, _K.NOT_SENT),
        ],
    )
    async def test_a_definite_no_has_no_effect(
        self, service: Service, far: Far, action: Action, behaviour: Behaviour, kind: OutcomeKind
    ) -> None:
        await far.will(behaviour)
        outcome = await service.call(a_call(action))
        assert outcome.kind is kind
        assert not outcome.may_have_effect

    @ACTIONS
    @pytest.mark.parametrize("behaviour", [Behaviour.BROKEN, Behaviour.HANGS, Behaviour.CUTS])
    @pytest.mark.fault(11)
    async def test_no_whole_answer_may_have_happened(
        self, service: Service, far: Far, action: Action, behaviour: Behaviour
    ) -> None:
        await far.will(behaviour)
        outcome = await service.call(a_call(action, timeout=0.3))
        assert outcome.kind is _K.UNKNOWN
        assert outcome.may_have_effect

    @pytest.mark.parametrize("behaviour", [Behaviour.UNREADABLE, Behaviour.TOO_LARGE])
    @pytest.mark.fault(17)
    async def test_an_execute_whose_answer_cannot_be_used_is_not_asked_again(
        self, service: Service, far: Far, behaviour: Behaviour
    ) -> None:
        await far.will(behaviour)
        outcome = await service.call(a_call())
        assert outcome.kind is _K.UNUSABLE
        assert outcome.may_have_effect
        assert outcome.output is None

    @pytest.mark.parametrize("behaviour", [Behaviour.UNREADABLE, Behaviour.TOO_LARGE])
    async def test_a_compensation_is_done_whatever_it_answers_with(
        self, service: Service, far: Far, behaviour: Behaviour
    ) -> None:
        await far.will(behaviour)
        outcome = await service.call(a_call(Action.COMPENSATE))
        assert outcome.kind is _K.DONE
        assert outcome.output is None

    @ACTIONS
    async def test_what_is_taken_on_is_pending(
        self, service: Service, far: Far, action: Action
    ) -> None:
        await far.will(Behaviour.PENDING)
        outcome = await service.call(a_call(action))
        assert outcome.kind is _K.PENDING
        assert outcome.output is None
        (asked,) = far.asked
        assert asked.callback == CALLBACK

    async def test_the_status_of_what_was_done_has_its_output(
        self, service: Service, far: Far
    ) -> None:
        await service.call(a_call())
        outcome = await service.call(a_call(Action.STATUS))
        assert outcome.kind is _K.DONE
        assert outcome.output == '{"amount":12}'

    @pytest.mark.parametrize(
        ("behaviour", "kind"),
        [
            (Behaviour.REFUSED, _K.REFUSED),
            (Behaviour.PENDING, _K.BUSY),
            (Behaviour.AWAY, _K.NOT_SENT),
        ],
    )
    async def test_a_status_that_is_clear_is_believed(
        self, service: Service, far: Far, behaviour: Behaviour, kind: OutcomeKind
    ) -> None:
        await far.will(behaviour)
        outcome = await service.call(a_call(Action.STATUS))
        assert outcome.kind is kind
        assert outcome.error is not None

    @pytest.mark.parametrize(
        "behaviour",
        [
            Behaviour.BROKEN,
            Behaviour.BUSY,
            Behaviour.NOT_NOW,
            Behaviour.NOT_FOUND,
            Behaviour.UNREADABLE,
            Behaviour.TOO_LARGE,
            Behaviour.HANGS,
            Behaviour.CUTS,
        ],
    )
    @pytest.mark.fault(11)
    async def test_any_other_answer_to_a_question_proves_nothing(
        self, service: Service, far: Far, behaviour: Behaviour
    ) -> None:
        await far.will(behaviour)
        outcome = await service.call(a_call(Action.STATUS, timeout=0.3))
        assert outcome.kind is _K.UNKNOWN
        assert outcome.error is not None

    async def test_not_now_says_so(self, service: Service, far: Far) -> None:
        await far.will(Behaviour.NOT_NOW)
        assert (await service.call(a_call())).kind is _K.NOT_NOW

    @pytest.mark.parametrize(
        "behaviour",
        [each for each in Behaviour if each not in (Behaviour.DONE, Behaviour.PENDING)],
    )
    async def test_whatever_is_not_done_says_why(
        self, service: Service, far: Far, behaviour: Behaviour
    ) -> None:
        await far.will(behaviour)
        outcome = await service.call(a_call(timeout=0.3))
        assert outcome.error is not None
        error = orjson.loads(outcome.error)
        assert isinstance(error["code"], str)
        assert isinstance(error["message"], str)
        assert error["code"]
        assert error["message"]

    async def test_key_attempt_body_and_deadline_are_sent(self, service: Service, far: Far) -> None:
        call = replace(a_call(), key=StepKey("charge", 3), attempt=7)
        await service.call(call)
        (asked,) = far.asked
        assert asked.idempotency_key == f"{call.workflow}/charge[3]/execute"
        assert asked.attempt == 7
        assert asked.body == call.body
        assert asked.timeout_ms == 10_000
        assert abs(asked.deadline - call.deadline) < timedelta(milliseconds=1)

    @pytest.mark.fault(1)
    async def test_every_attempt_carries_the_same_key(self, service: Service, far: Far) -> None:
        for attempt in (1, 2, 3):
            await service.call(replace(a_call(), attempt=attempt))
        assert len({asked.idempotency_key for asked in far.asked}) == 1
        await service.call(a_call(Action.COMPENSATE))
        assert len({asked.idempotency_key for asked in far.asked}) == 2

    async def test_an_item_has_a_key_of_its_own(self, service: Service, far: Far) -> None:
        for key in (StepKey("charge", 0), StepKey("charge", 1), StepKey("charge")):
            await service.call(replace(a_call(), key=key))
        keys = [asked.idempotency_key.split("/")[1] for asked in far.asked]
        assert keys == ["charge[0]", "charge[1]", "charge"]

    async def test_one_call_is_at_most_one_request(self, service: Service, far: Far) -> None:
        await far.will(Behaviour.CUTS)
        await service.call(a_call(timeout=5))
        assert len(far.asked) == 1

    async def test_calls_do_not_wait_for_each_other(self, service: Service, far: Far) -> None:
        await far.will(Behaviour.HANGS)
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            calls = [tasks.create_task(service.call(a_call(timeout=0.5))) for _ in range(64)]
        assert {task.result().kind for task in calls} == {_K.UNKNOWN}
        assert len(far.asked) == 64

    async def test_a_cancelled_call_raises_and_leaves(self, service: Service, far: Far) -> None:
        await far.will(Behaviour.HANGS)
        task = asyncio.create_task(service.call(a_call(timeout=60)))
        await far.wait_asked()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await far.wait_left()

    @pytest.mark.fault(14)
    async def test_after_trouble_it_goes_on(self, service: Service, far: Far) -> None:
        for behaviour in Behaviour:
            await far.will(behaviour)
            await service.call(a_call(timeout=0.3))
        await far.will(Behaviour.DONE)
        assert (await service.call(replace(a_call(), key=StepKey("other")))).kind is _K.DONE

    async def test_ready_says_whether_it_is_there(self, service: Service, far: Far) -> None:
        assert await service.ready()
        await far.will(Behaviour.AWAY)
        assert not await service.ready()
        await far.will(Behaviour.DONE)
        assert await service.ready()

    async def test_close_twice_is_fine(self, service: Service, far: Far) -> None:
        await service.call(a_call())
        await service.close()
        await service.close()
