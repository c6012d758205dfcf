"""Scripted services: what each call does, what it answers, and when.

They honour the key as the contract wants it: a second call with the same key has no second effect,
and one that comes after its compensation is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from sidecar.definitions.simulator.faults import Fault, FaultKind
from sidecar.saga.bodies import error_body
from sidecar.saga.definition import Definition, JsonText
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.policy import COMPENSATION_DEFAULT
from sidecar.saga.states import Action
from sidecar.saga.workflow import Step, StepKey

LATENCY = timedelta(milliseconds=100)
CALLS_BACK = timedelta(seconds=10)
AFTER_LEASE = timedelta(seconds=2)
AGAIN = timedelta(seconds=1)
TROUBLED = 3
"""How many calls an error lasts that does not last for ever."""

_K = FaultKind


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that comes so long after the call."""

    after: timedelta
    outcome: Outcome


@dataclass(slots=True)
class Services:
    """All services of a definition; `effects` is what they have done, `undone` what they undid."""

    definition: Definition
    outputs: Mapping[str, JsonText]
    faults: Sequence[Fault] = ()
    effects: dict[StepKey, None] = field(default_factory=dict)
    undone: dict[StepKey, None] = field(default_factory=dict)
    _tried: dict[StepKey, int] = field(default_factory=dict)

    def call(self, step: Step) -> list[Reply]:
        """Call a service as the step, which is claimed, wants it; [] is no answer at all."""
        match step.action:
            case Action.EXECUTE:
                return self._execute(step)
            case Action.COMPENSATE:
                return self._compensate(step)
            case Action.STATUS:
                known = step.key in self.effects
                outcome = self._done(step.key) if known else _failed(OutcomeKind.PENDING)
                return [Reply(LATENCY, outcome)]

    def has(self, key: StepKey, *kinds: FaultKind) -> bool:
        """Whether one of these faults concerns a step."""
        return any(one.kind in kinds and one.concerns(key) for one in self.faults)

    def _execute(self, step: Step) -> list[Reply]:
        key = step.key
        tried = self._tried[key] = self._tried.get(key, 0) + 1
        if key in self.undone or self.has(key, _K.REFUSED):
            return [Reply(LATENCY, _failed(OutcomeKind.REFUSED))]
        if self.has(key, _K.UNAVAILABLE) and tried <= TROUBLED:
            return [Reply(LATENCY, _failed(OutcomeKind.NOT_NOW))]
        self.effects[key] = None
        done = Reply(LATENCY, self._done(key))
        if self.has(key, _K.UNKNOWN) and (tried <= TROUBLED or not self._without_end(key)):
            return [Reply(LATENCY, _failed(OutcomeKind.UNKNOWN))]
        if self.has(key, _K.DUPLICATE):
            return [done, Reply(LATENCY + AGAIN, done.outcome)]
        if tried > 1:
            return [done]
        lease = (step.lease_until or step.run.claimed_at, step.run.claimed_at)
        if self.has(key, _K.CRASH):
            return []
        if self.has(key, _K.LATE) and lease[0] and lease[1]:
            return [Reply(lease[0] - lease[1] + AFTER_LEASE, done.outcome)]
        if self.has(key, _K.TIMEOUT):
            after = timedelta(milliseconds=step.call_ms)
            return [Reply(after, _failed(OutcomeKind.UNKNOWN))]
        if self.has(key, _K.PENDING):
            taken_on = Reply(LATENCY, Outcome(OutcomeKind.PENDING))
            return [taken_on, Reply(LATENCY + CALLS_BACK, done.outcome)]
        return [done]

    def _compensate(self, step: Step) -> list[Reply]:
        key = step.key
        if self.has(key, _K.COMPENSATION_FAILED):
            return [Reply(LATENCY, _failed(OutcomeKind.REFUSED))]
        if self.has(key, _K.COMPENSATION_UNKNOWN) and step.run.attempt < TROUBLED:
            return [Reply(LATENCY, _failed(OutcomeKind.UNKNOWN))]
        self.undone[key] = None
        return [Reply(LATENCY, Outcome(OutcomeKind.DONE))]

    def _without_end(self, key: StepKey) -> bool:
        step = self.definition.by_name[key.step]
        policy = step.retry
        if step.pivot or self.definition.past_pivot(step.name):
            policy = step.compensation.retry if step.compensation else COMPENSATION_DEFAULT
        return policy.max_attempts is None and policy.total_budget is None

    def _done(self, key: StepKey) -> Outcome:
        return Outcome(OutcomeKind.DONE, output=self.outputs.get(key.step, JsonText("{}")))


def _failed(kind: OutcomeKind) -> Outcome:
    unsure = kind is OutcomeKind.UNKNOWN
    error = error_body(f"simulated_{kind}", "so the simulation wants it")
    return Outcome(kind, error=error, may_have_effect=unsure)
