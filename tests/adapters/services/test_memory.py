"""The twin in memory: the port's suite, and what its script and ledger promise."""

from __future__ import annotations

import asyncio
import math

import pytest
from msgspec.structs import replace

from sidecar.adapters.services.memory import (
    ACTS_THEN_CUTS,
    ACTS_THEN_TIMES_OUT,
    DONE,
    HANGS,
    UNREACHABLE,
    Act,
    MemoryService,
    outcome,
)
from sidecar.ports.service import Call
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.states import Action
from tests.conformance.service import Asked, Behaviour, ServiceConformance, a_call
from tests.unit.engine.faces import until

_K = OutcomeKind
_KINDS = {
    Behaviour.REFUSED: _K.REFUSED,
    Behaviour.BROKEN: _K.UNKNOWN,
    Behaviour.BUSY: _K.BUSY,
    Behaviour.NOT_NOW: _K.NOT_NOW,
    Behaviour.NOT_FOUND: _K.MISCONFIGURED,
    Behaviour.AWAY: _K.NOT_SENT,
}


class Scripted:
    """The suite's hand on a service in memory."""

    def __init__(self) -> None:
        self.service = MemoryService(self._act, honours_keys=False, has_barrier=False)
        self.behaviour = Behaviour.DONE
        self._came = asyncio.Event()

    @property
    def asked(self) -> list[Asked]:
        return [
            Asked(
                call.idempotency_key,
                call.attempt,
                call.body,
                int(call.timeout * 1000),
                call.deadline,
                call.callback,
            )
            for call in self.service.calls
        ]

    async def will(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.service.is_ready = behaviour is not Behaviour.AWAY

    async def wait_asked(self) -> None:
        await self._came.wait()

    async def wait_left(self) -> None:
        assert self.service.in_flight == 0

    def _act(self, call: Call) -> Act:
        self._came.set()
        undoing = call.action is Action.COMPENSATE
        if call.action is Action.STATUS:
            return self._tell()
        match self.behaviour:
            case Behaviour.DONE:
                return Act(Outcome(_K.DONE, output=call.body))
            case Behaviour.HANGS:
                return HANGS
            case Behaviour.CUTS:
                return ACTS_THEN_CUTS
            case Behaviour.UNREADABLE | Behaviour.TOO_LARGE:
                return Act(DONE if undoing else outcome(_K.UNUSABLE))
            case Behaviour.PENDING:
                return Act(outcome(_K.PENDING))
            case other:
                return Act(outcome(_KINDS[other]))

    def _tell(self) -> Act:
        match self.behaviour:
            case Behaviour.DONE:
                return Act()
            case Behaviour.HANGS:
                return HANGS
            case Behaviour.CUTS:
                return ACTS_THEN_CUTS
            case Behaviour.PENDING:
                return Act(outcome(_K.BUSY))
            case Behaviour.REFUSED | Behaviour.AWAY:
                return Act(outcome(_KINDS[self.behaviour]))
            case _:
                return Act(outcome(_K.UNKNOWN))


@pytest.fixture
def far() -> Scripted:
    return Scripted()


@pytest.fixture
async def service(far: Scripted) -> MemoryService:
    await far.service.open()
    return far.service


class TestMemoryService(ServiceConformance):
    """The port's suite."""


async def test_a_key_has_its_effect_once_and_gets_the_same_answer() -> None:
    answers = [Act(Outcome(_K.DONE, output=a_call().body)), Act(outcome(_K.REFUSED))]
    service = MemoryService({("charge", Action.EXECUTE): answers})
    first, second = await service.call(a_call()), await service.call(replace(a_call(), attempt=2))
    assert first.kind is _K.DONE
    assert second == first  # a service that honours keys cannot refuse what it has done
    entry = service.ledger[a_call().idempotency_key]
    assert entry.attempts == [1, 2]
    assert entry.effects == 1


async def test_a_service_that_ignores_keys_acts_again() -> None:
    service = MemoryService(honours_keys=False)
    await service.call(a_call())
    await service.call(a_call())
    assert service.ledger[a_call().idempotency_key].effects == 2


@pytest.mark.fault(11)
async def test_it_can_act_and_then_time_out() -> None:
    service = MemoryService({("charge", Action.EXECUTE): [ACTS_THEN_TIMES_OUT, Act()]})
    first = await service.call(a_call(timeout=0.01))
    assert first.kind is _K.UNKNOWN
    assert service.effects_of(a_call().workflow, "charge") == [Action.EXECUTE]
    assert (await service.call(a_call())).kind is _K.DONE
    assert service.ledger[a_call().idempotency_key].effects == 1


async def test_an_effect_may_come_after_the_answer_was_given_up() -> None:
    late = Act(DONE, acts_after=0.02, answers_after=0.03)
    service = MemoryService({("charge", Action.EXECUTE): late})
    await service.call(a_call(timeout=0.01))
    assert service.effects == []
    # Timers fire in the order of their moments, so this one finds the effect in the ledger.
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, passed.set)
    await passed.wait()
    assert service.effects_of(a_call().workflow, "charge") == [Action.EXECUTE]


@pytest.mark.fault(12)
async def test_the_barrier_refuses_an_execute_after_its_compensation() -> None:
    service = MemoryService()
    assert (await service.call(a_call(Action.COMPENSATE))).kind is _K.DONE
    assert (await service.call(a_call())).kind is _K.REFUSED
    assert service.effects_of(a_call().workflow, "charge") == [Action.COMPENSATE]


async def test_an_unreachable_service_sees_nothing() -> None:
    service = MemoryService({("charge", Action.EXECUTE): UNREACHABLE})
    assert (await service.call(a_call())).kind is _K.NOT_SENT
    assert service.ledger == {}


STATUS = replace(a_call(Action.STATUS), attempt=2)


async def test_a_question_is_about_the_execute_and_leaves_no_trace() -> None:
    service = MemoryService({("charge", Action.EXECUTE): ACTS_THEN_CUTS})
    assert (await service.call(a_call())).kind is _K.UNKNOWN
    assert (await service.call(STATUS)).kind is _K.DONE
    assert service.ledger[a_call().idempotency_key].attempts == [1]


async def test_what_is_said_to_have_never_come_is_refused_when_it_comes() -> None:
    service = MemoryService()
    assert (await service.call(STATUS)).kind is _K.REFUSED
    assert (await service.call(a_call())).kind is _K.REFUSED
    assert service.effects == []


async def test_what_may_act_yet_is_said_to_be_pending() -> None:
    late = Act(DONE, acts_after=0.01, answers_after=math.inf)
    service = MemoryService({("charge", Action.EXECUTE): late})
    calling = asyncio.create_task(service.call(a_call(timeout=5)))
    await until(lambda: service.in_flight)
    assert (await service.call(STATUS)).kind is _K.BUSY
    await until(lambda: service.effects)
    assert (await service.call(STATUS)).kind is _K.DONE
    calling.cancel()


async def test_what_was_pending_acts_once_when_it_is_told_to() -> None:
    service = MemoryService({("charge", Action.EXECUTE): Act(outcome(_K.PENDING))})
    for attempt in (1, 2):
        assert (await service.call(replace(a_call(), attempt=attempt))).kind is _K.PENDING
    assert (await service.call(STATUS)).kind is _K.BUSY
    assert service.effects == []
    for _ in range(2):
        assert service.act_later(a_call(), Act()) == DONE
    assert (await service.call(STATUS)).kind is _K.DONE
    assert service.ledger[a_call().idempotency_key].effects == 1


async def test_what_was_compensated_meanwhile_is_finished_without_an_effect() -> None:
    service = MemoryService({("charge", Action.EXECUTE): Act(outcome(_K.PENDING))})
    await service.call(a_call())
    await service.call(a_call(Action.COMPENSATE))
    assert service.act_later(a_call(), Act()).kind is _K.REFUSED
    assert [action for _, _, action in service.effects] == [Action.COMPENSATE]
