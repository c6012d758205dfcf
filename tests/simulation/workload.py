"""What is asked of the world: random definitions, and what its services will say.

Every step is given a fate when its service first hears of it: most are well, some are refused,
some never answer well, some can never be undone. Fates are part of the work, not faults: they
stay when everything heals.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from sidecar.adapters.services.memory import Act, outcome
from sidecar.ports.service import Call
from sidecar.saga.definition import JsonText
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.states import Action
from sidecar.saga.workflow import StepKey, WorkflowId
from tests.simulation.faults import Fault, Faults
from tests.simulation.language import PENDING, varied

SERVICES = ("payments", "inventory", "shipping")
SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    "chain": ((), (0,), (1,)),
    "long chain": ((), (0,), (1,), (2,), (3,)),
    "diamond": ((), (0,), (0,), (1, 2)),
    "roots": ((), (), (), (0, 1)),
    "alone": ((),),
    "wide": ((), (0,), (0,), (0,), (1, 2, 3)),
    "two chains": ((), (), (0,), (1,)),
}
TRIES_UNWELL = 7
VARIED = 0.6
"""Which part of the definitions has more than calls in order."""
PENDING_RATE = 0.08
SEQUENTIAL = ("chain", "long chain")


class Fate(StrEnum):
    """What a service will say to a step, in the end."""

    WELL = "well"
    REFUSED = "refused"
    NEVER_WELL = "never_well"
    """Acts, and answers with an error, more often than any step is tried on its way forward."""
    CURSED = "cursed"
    """Is well, and can never be undone."""


_FATES = {Fate.WELL: 80, Fate.REFUSED: 11, Fate.NEVER_WELL: 5, Fate.CURSED: 4}


def document(draw: random.Random, name: str) -> dict[str, Any]:
    """Return a random definition as plain data."""
    shape = draw.choice(list(SHAPES))
    steps: list[dict[str, Any]] = []
    pivot = draw.randrange(3) if shape in SEQUENTIAL and draw.random() < 0.3 else None
    for number, before in enumerate(SHAPES[shape]):
        earlier = [f"s{one}" for one in before]
        step: dict[str, Any] = {
            "name": f"s{number}",
            "service": draw.choice(SERVICES),
            "execute": f"/do/{number}",
            "compensate": {
                "path": f"/undo/{number}",
                "timeout": f"{draw.choice((1, 2, 4))}s",
                "retry": {"max_interval": "5s"},
            },
            "after": earlier,
            "timeout": f"{draw.choice((1, 2, 4))}s",
            "callback_timeout": f"{draw.choice((3, 8))}s",
            "retry": {"max_attempts": draw.choice((2, 3, 5)), "max_interval": "4s"},
        }
        if draw.random() < 0.12:
            step["compensate"] = "none"
        if number == pivot:
            step["pivot"] = True
        if earlier:
            step["input"] = {one: f"${{steps.{one}.output.mark}}" for one in earlier}
        steps.append(step)
    whole: dict[str, Any] = {"name": name, "steps": steps}
    if draw.random() < VARIED:
        varied(draw, steps, whole=whole)
    if draw.random() < 0.2:
        whole["timeout"] = f"{draw.choice((2, 8, 20))}s"
    return whole


def mark(workflow: WorkflowId, step: StepKey | str) -> str:
    """What a step's output carries, and its successors' inputs must show."""
    return f"{workflow}/{step}"


class Answers:
    """Decides for each call what it comes to: the script of the world's services."""

    def __init__(
        self,
        seed: int,
        faults: Faults,
        may_call: Callable[[Call], None],
        calls_back: Callable[[Call, Act], None],
    ) -> None:
        self._random = random.Random(f"fates {seed}")
        self._faults = faults
        self._may_call = may_call
        self._calls_back = calls_back
        self.fates: dict[tuple[WorkflowId, StepKey], Fate] = {}

    def fate(self, workflow: WorkflowId, key: StepKey) -> Fate:
        """Return a step's fate, drawn when it is first asked for."""
        found = self.fates.get((workflow, key))
        if found is None:
            (found,) = self._random.choices(list(_FATES), list(_FATES.values()))
            self.fates[workflow, key] = found
        return found

    def __call__(self, call: Call) -> Act:
        """Decide one call."""
        self._may_call(call)
        if call.action is Action.STATUS:
            return self._tells(call)
        fault = self._fault(call)
        if fault is not None:
            return fault
        act = self._act(call)
        if not act.lost and self._random.random() < PENDING_RATE:
            self._calls_back(call, act)
            return PENDING
        return act

    def _tells(self, call: Call) -> Act:
        """What a service says of an execute, which is the truth if it says anything."""
        if self._faults.strikes(Fault.HANGS):
            return Act(_done(call), answers_after=math.inf)
        if self._faults.strikes(Fault.BUSY):
            return Act(outcome(OutcomeKind.BUSY))
        return Act(_done(call), answers_after=self._faults.latency(0.05))

    def _act(self, call: Call) -> Act:
        spent = self._faults.latency(0.05)
        fate = self.fate(call.owner, call.key)
        if call.action is Action.COMPENSATE:
            if fate is Fate.CURSED:
                return Act(outcome(OutcomeKind.REFUSED), answers_after=spent)
            return Act(_done(call), answers_after=spent)
        if fate is Fate.REFUSED:
            return Act(outcome(OutcomeKind.REFUSED), answers_after=spent)
        if fate is Fate.NEVER_WELL and call.attempt <= TRIES_UNWELL:
            return Act(_done(call), answers_after=spent, lost=True)
        return Act(_done(call), answers_after=spent)

    def _fault(self, call: Call) -> Act | None:
        faults, draw = self._faults, self._faults.random
        undoing = call.action is Action.COMPENSATE
        never = Fate.CURSED if undoing else Fate.REFUSED
        acts = self.fate(call.owner, call.key) is not never
        if faults.strikes(Fault.ACTS_SILENTLY):
            return Act(_done(call), has_effect=acts, answers_after=math.inf)
        if acts and faults.strikes(Fault.ACTS_LATE):
            after = call.timeout + draw.uniform(0.1, 40.0)
            return Act(_done(call), acts_after=after, answers_after=math.inf)
        if faults.strikes(Fault.HANGS):
            return Act(_done(call), has_effect=False, answers_after=math.inf)
        if faults.strikes(Fault.CUT):
            return Act(_done(call), has_effect=acts and draw.random() < 0.5, lost=True)
        if faults.strikes(Fault.UNAVAILABLE):
            return Act(_may_have(OutcomeKind.NOT_NOW), has_effect=False)
        if faults.strikes(Fault.BUSY):
            return Act(outcome(OutcomeKind.BUSY))
        if faults.strikes(Fault.MISCONFIGURED):
            return Act(outcome(OutcomeKind.MISCONFIGURED))
        if acts and not undoing and faults.strikes(Fault.UNUSABLE):
            return Act(outcome(OutcomeKind.UNUSABLE))
        return None


def _done(call: Call) -> Outcome:
    text = json.dumps({"mark": mark(call.owner, call.key)})
    return Outcome(OutcomeKind.DONE, output=JsonText(text))


def _may_have(kind: OutcomeKind) -> Outcome:
    plain = outcome(kind)
    return Outcome(kind, error=plain.error, may_have_effect=True)
