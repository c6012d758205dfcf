"""The service port's twin in memory: a service that follows a script and keeps a ledger.

What a service does and what its caller learns are two things, and every fault of interest lies
between them. So each call gets an `Act` that says both: whether and when the effect happens,
and whether and when the answer comes. The ledger keeps what really happened, by idempotency
key, for a test or a checker to hold against what the sidecars believe.

Waiting is `asyncio.sleep` and `call_later`, so a loop in virtual time owns all of it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from sidecar.ports.service import Call
from sidecar.saga.definition import JsonText
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.states import Action
from sidecar.saga.workflow import StepKey, WorkflowId

_K = OutcomeKind
_SENT = frozenset({_K.DONE, _K.UNUSABLE, _K.UNKNOWN})


def outcome(kind: OutcomeKind, message: str = "scripted", *, code: str | None = None) -> Outcome:
    """Return an outcome of `kind` as an adapter would report it, with an error if it has one."""
    if kind in (_K.DONE, _K.PENDING):
        return Outcome(kind)
    text = orjson.dumps({"code": code or str(kind), "message": message}).decode()
    return Outcome(kind, error=JsonText(text), may_have_effect=kind in _SENT)


DONE = outcome(_K.DONE)


@dataclass(frozen=True, slots=True)
class Act:
    """What one call comes to.

    `answer` is sent after `answers_after` seconds; later than the call's time-out, the caller
    learns nothing but that. `has_effect` None means: as `answer` says, that is, with `done`,
    `unusable` and `unknown`. The effect happens `acts_after` seconds after the call came in,
    whether or not anybody still waits. `lost` loses the answer: the connection is cut instead.
    What was answered with `pending` has its effect when `act_later` says so.
    """

    answer: Outcome = DONE
    has_effect: bool | None = None
    acts_after: float = 0.0
    answers_after: float = 0.0
    lost: bool = False

    @property
    def acts(self) -> bool:
        """Whether there is an effect."""
        return self.answer.kind in _SENT if self.has_effect is None else self.has_effect


ACTS_THEN_TIMES_OUT = Act(DONE, answers_after=math.inf)
HANGS = Act(DONE, has_effect=False, answers_after=math.inf)
ACTS_THEN_CUTS = Act(DONE, lost=True)
UNREACHABLE = Act(outcome(_K.NOT_SENT, code="not_connected"))

Script = Mapping[tuple[str, Action], Act | Sequence[Act]]
"""What each action of each step comes to; of several acts each call takes one, the last stays."""

Player = Callable[[Call], Act]
"""Decides for each call what it comes to."""


@dataclass(slots=True)
class Entry:
    """What happened under one idempotency key.

    `attempts` and `bodies` are those of the calls that came in, in their order; `effects` how
    often the key had its effect; `answer` what the effect was answered with, and is again.
    `to_come` counts what may have the effect yet.
    """

    workflow: WorkflowId
    key: StepKey
    action: Action
    attempts: list[int] = field(default_factory=list)
    bodies: list[JsonText] = field(default_factory=list)
    effects: int = 0
    answer: Outcome | None = None
    to_come: int = 0


class MemoryService:
    """A service in this process.

    It honours idempotency keys unless `honours_keys` is false: a key that had its effect has it
    no second time, and gets the same answer. `has_barrier` adds that an execute which arrives
    after its compensation is refused. `is_ready` is what `ready` answers.
    """

    def __init__(
        self,
        script: Script | Player | None = None,
        *,
        honours_keys: bool = True,
        has_barrier: bool = True,
        is_ready: bool = True,
    ) -> None:
        self.script: Script | Player = {} if script is None else script
        self.honours_keys = honours_keys
        self.has_barrier = has_barrier
        self.is_ready = is_ready
        self.ledger: dict[str, Entry] = {}
        self.calls: list[Call] = []
        self.effects: list[tuple[WorkflowId, StepKey, Action]] = []
        self.in_flight = 0
        self._turns: dict[tuple[str, Action], int] = {}

    async def open(self) -> None:
        """There is nothing to open: several sidecars may share one service."""

    async def close(self) -> None:
        """There is nothing to close."""

    async def ready(self) -> bool:
        """Whether the service says that it can take calls."""
        return self.is_ready

    async def call(self, call: Call) -> Outcome:
        """Play the act that the script has for this call."""
        act = self._next_act(call)
        if call.action is Action.STATUS:
            return await self._tell(call, act)
        if act.answer.kind is _K.NOT_SENT:
            return act.answer
        self.calls.append(call)
        entry = self._entry(call)
        entry.attempts.append(call.attempt)
        entry.bodies.append(call.body)
        self.in_flight += 1
        entry.to_come += 1
        try:
            return await self._play(call, act)
        finally:
            self.in_flight -= 1
            entry.to_come -= 1

    async def _tell(self, call: Call, act: Act) -> Outcome:
        """Say how an execute went, as the ledger has it, unless the act says something else."""
        if act.answers_after > 0:
            await asyncio.sleep(min(act.answers_after, call.timeout))
        if act.answer.kind is not _K.DONE:
            return act.answer
        if act.lost or act.answers_after >= call.timeout:
            return outcome(_K.UNKNOWN)
        entry = self._entry(call)
        if entry.answer is None and entry.to_come:
            return outcome(_K.BUSY)
        if entry.answer is None:  # and if it comes late, it is refused
            entry.answer = outcome(_K.REFUSED, "it never came")
        return entry.answer

    def effects_of(self, workflow: WorkflowId, step: str) -> list[Action]:
        """Return the actions that had their effect for a step, in the order they had it."""
        return [done for of, key, done in self.effects if of == workflow and key.step == step]

    def _next_act(self, call: Call) -> Act:
        if not isinstance(self.script, Mapping):
            return self.script(call)
        at = (call.key.step, call.action)
        acts = self.script.get(at, Act())
        if isinstance(acts, Act):
            return acts
        turn = self._turns.get(at, 0)
        self._turns[at] = turn + 1
        return acts[min(turn, len(acts) - 1)]

    async def _play(self, call: Call, act: Act) -> Outcome:
        answer = act.answer
        if answer.kind is _K.PENDING:
            self._entry(call).to_come += 1
        elif act.acts and act.acts_after > 0:
            self._entry(call).to_come += 1
            asyncio.get_running_loop().call_later(act.acts_after, self._take_effect, call, act)
        elif act.acts or answer.kind is _K.REFUSED:
            answer = self._take_effect(call, act)
        if act.answers_after >= call.timeout:
            await asyncio.sleep(call.timeout)
            return outcome(_K.UNKNOWN, "no answer in time", code="timeout")
        if act.answers_after > 0:
            await asyncio.sleep(act.answers_after)
        if act.lost:
            return outcome(_K.UNKNOWN, "the connection was cut", code="connection_lost")
        return answer

    def _take_effect(self, call: Call, act: Act) -> Outcome:
        """Have the effect, unless the key had it or the barrier forbids it; return the answer.

        A service that honours keys cannot refuse what it has done.
        """
        entry = self._entry(call)
        if self.honours_keys and entry.answer is not None:
            return entry.answer
        if not act.acts:
            return act.answer
        if call.action is Action.EXECUTE and self._was_compensated(call):
            return outcome(_K.REFUSED, "compensated before it was executed", code="barrier")
        entry.effects += 1
        entry.answer = act.answer
        self.effects.append((call.owner, call.key, call.action))
        return act.answer

    def act_later(self, call: Call, act: Act) -> Outcome:
        """Do now what a call was answered 202 for; return what the callback says."""
        self._entry(call).to_come -= 1
        return self._take_effect(call, act)

    def _was_compensated(self, call: Call) -> bool:
        undo = self.ledger.get(f"{call.owner}/{call.key}/{Action.COMPENSATE}")
        return self.has_barrier and undo is not None and undo.effects > 0

    def _entry(self, call: Call) -> Entry:
        fresh = Entry(call.owner, call.key, call.action)
        return self.ledger.setdefault(call.idempotency_key, fresh)
