"""What can go wrong with a step, and how it is written: `charge=unknown`, `notify[0]=refused`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from sidecar.definitions.findings import unknown_name
from sidecar.errors import InvalidRequest
from sidecar.saga.definition import Definition, StepDefinition
from sidecar.saga.workflow import NO_INDEX, StepKey


class FaultKind(StrEnum):
    """One kind of trouble."""

    REFUSED = "refused"
    """The service says no."""
    UNKNOWN = "unknown"
    """Every call has its effect, and is answered with an error that proves nothing. A step that
    is tried without end gets its answer at the fourth try."""
    TIMEOUT = "timeout"
    """The first call has its effect, but is not answered in time."""
    CRASH = "crash"
    """The sidecar dies after the first call, which has its effect: the lease ends."""
    LATE = "late"
    """The first call is answered only when its lease has ended and the next call was made."""
    DUPLICATE = "duplicate"
    """The answer is given twice."""
    UNAVAILABLE = "unavailable"
    """The service says "not now" three times, without effect."""
    PENDING = "pending"
    """The service answers 202, and calls back after ten seconds."""
    CANCELLED = "cancelled"
    """Somebody cancels the workflow while the step is being called."""
    COMPENSATION_FAILED = "compensation_failed"
    """The same, and the service definitely cannot undo the step."""
    COMPENSATION_UNKNOWN = "compensation_unknown"
    """The same, and it takes three calls to undo the step."""
    SKIPPED = "skipped"
    """The condition of the step is false."""
    SIGNAL_LOST = "signal_lost"
    """Nobody sends the signal that the step waits for."""


_K = FaultKind
CANCELS = frozenset({_K.CANCELLED, _K.COMPENSATION_FAILED, _K.COMPENSATION_UNKNOWN})
"""The faults with which somebody cancels."""
_OF_CALLS = (_K.REFUSED, _K.UNKNOWN, _K.TIMEOUT, _K.CRASH, _K.LATE, _K.DUPLICATE, _K.UNAVAILABLE,
             _K.PENDING, _K.CANCELLED)  # fmt: skip
_OF_COMPENSATIONS = (_K.COMPENSATION_FAILED, _K.COMPENSATION_UNKNOWN)
_WRITTEN = re.compile(r"([a-z][a-z0-9_]*)(?:\[(\d{1,5})\])?=([a-z_]+)")


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of one step; `index` names one item of a fan-out, None all of them."""

    step: str
    kind: FaultKind
    index: int | None = None

    def concerns(self, key: StepKey) -> bool:
        """Whether it is about this step, or item."""
        items = self.index is None or key.index in (self.index, NO_INDEX)
        return key.step == self.step and items

    def __str__(self) -> str:
        where = "" if self.index is None else f"[{self.index}]"
        return f"{self.step}{where}={self.kind}"


def parse_fault(text: str, definition: Definition) -> Fault:
    """Read a fault as it is written. Raises `InvalidRequest` with a sentence for people."""
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise InvalidRequest(f"{text!r} is not STEP=FAULT, like charge=unknown")
    name, index, word = found.groups()
    step = definition.by_name.get(name)
    if step is None:
        raise InvalidRequest(unknown_name("there is no step", name, definition.by_name))
    if word not in {kind.value for kind in FaultKind}:
        raise InvalidRequest(unknown_name("there is no fault", word, [one.value for one in _K]))
    kind = FaultKind(word)
    if kind not in kinds(step):
        can = ", ".join(kinds(step)) or "nothing"
        raise InvalidRequest(f"{word} cannot happen to {name!r}, but {can} can")
    return Fault(name, kind, int(index) if index else None)


def kinds(step: StepDefinition) -> tuple[FaultKind, ...]:
    """What can happen to a step."""
    skipped = (_K.SKIPPED,) if step.when is not None else ()
    if step.wait is not None:
        return (*skipped, *((_K.SIGNAL_LOST,) if step.wait.signal else ()))
    undoing = _OF_COMPENSATIONS if step.compensation or step.child else ()
    return (*_OF_CALLS, *undoing, *skipped)


def every_fault(definition: Definition) -> Iterator[Fault]:
    """Every single fault; of the items of a fan-out it is the first that has it."""
    for step in definition.steps:
        for kind in kinds(step):
            whole = step.fan_out is None or kind is _K.SKIPPED
            yield Fault(step.name, kind, None if whole else 0)
