"""Bugs planted on purpose: a simulation that does not find them proves nothing.

A mutant replaces a few words in the source of a function and puts the result in its place. It
swaps the function's code object, so whoever imported the function runs the mutant, too. Words
that are not there any more are an error: the mutant must then be planted anew.
"""

from __future__ import annotations

import importlib
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import cast

from tests.simulation.world import simulate


@dataclass(frozen=True, slots=True)
class Edit:
    """Replaces `old` by `new` in a function, named like `sidecar.saga.answers:answered`."""

    where: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug; `within` seeds must find it."""

    name: str
    edits: tuple[Edit, ...]
    within: int = 60


def _mutant(name: str, where: str, old: str, new: str, within: int = 60) -> Mutant:
    return Mutant(name, (Edit(where, old, new),), within)


MUTANTS = (
    _mutant(
        "an answer to an old attempt is taken for one to the newest",
        "sidecar.saga.answers:answered",
        "if event.attempt < run.attempt or (run.answered < event.attempt"
        " and not _awaits(step, event)):",
        "if False:",
        within=200,
    ),
    _mutant(
        "the same answer is counted twice",
        "sidecar.saga.answers:answered",
        "if run.answered >= event.attempt:",
        "if False:",
    ),
    _mutant(
        "leases never end",
        "sidecar.engine.duties:Duties._end_leases",
        "return await self._apply(epoch, events)",
        "return len(events)",
    ),
    _mutant(
        "a lease ends while its holder is well",
        "sidecar.adapters.memory.queries:MemoryQueries.ended_leases",
        "step.lease_until < now or",
        "True or",
    ),
    _mutant(
        "an unknown outcome is not tried again",
        "sidecar.saga.answers:_next_try",
        "if outcome.kind is OutcomeKind.REFUSED:",
        "if outcome.kind in (OutcomeKind.REFUSED, OutcomeKind.UNKNOWN):",
    ),
    _mutant(
        "what may have happened is not undone",
        "sidecar.saga.rollback:owes_compensation",
        "step.status in (StepStatus.SUCCEEDED, StepStatus.FAILED)",
        "step.status is StepStatus.SUCCEEDED",
    ),
    _mutant(
        "a later answer clears what may have happened",
        "sidecar.saga.answers:_apply",
        "step.may_have_effect\n            or end.outcome.may_have_effect",
        "end.outcome.may_have_effect",
    ),
    Mutant(
        "undone in the order in which it was done",
        (
            Edit(
                "sidecar.saga.rollback:unwind",
                "reversed(definition.topological)",
                "definition.topological",
            ),
            Edit(
                "sidecar.saga.rollback:unwind",
                "definition.descendants[name]",
                "definition.ancestors[name]",
            ),
        ),
    ),
    Mutant(
        "a lost doorbell is lost for good",
        (
            Edit(
                "sidecar.engine.receiving:Receiver._look_into_store", "if limit <= 0:", "if True:"
            ),
            Edit("sidecar.engine.duties:Duties._ring_again", "if due:", "if False:"),
        ),
    ),
    _mutant(
        "turning back leaves queued steps to be called",
        "sidecar.saga.rollback:turn_back",
        "if step.status in (StepStatus.QUEUED, StepStatus.RETRYING):",
        "if step.status is StepStatus.RETRYING:",
    ),
    _mutant(
        "a join waits for any of its predecessors, not for all",
        "sidecar.saga.forward:queue_ready",
        "if any(",
        "if defined.after and all(",
    ),
    _mutant(
        "a claim that is given back is never due again",
        "sidecar.saga.answers:_released",
        "due_at=draft.now",
        "due_at=None",
    ),
    _mutant(
        "a leader whose epoch is void may write",
        "sidecar.adapters.memory.queries:MemoryQueries.check_epoch",
        "!= epoch.number",
        "is None",
        within=300,
    ),
    _mutant(
        "a start whose commit was in doubt is tried again under a new id",
        "sidecar.engine.group_commit:Committer._until_durable",
        "pause = min(pause * 2, UNAVAILABLE_PAUSE_MAX_S)",
        "batch = replace(batch, ticket=batch.ticket + 1_000_000, starts=tuple("
        "replace(one, id=self._entropy.workflow_id()) for one in batch.starts))",
    ),
    _mutant(
        "a call is sent although it cannot end before its lease",
        "sidecar.engine.calling:Caller._outcome",
        "self._clock.monotonic() - began > self._margin_s",
        "False",
        within=200,
    ),
    _mutant(
        "a workflow past its pivot can be cancelled",
        "sidecar.saga.machine:_cancel",
        "if _pivot_claimed(draft):",
        "if False:",
        within=400,
    ),
    _mutant(
        "a gate that has closed stays closed",
        "sidecar.engine.gate:GateRules.asked",
        "if not ready:",
        "if not ready or self.reason is GateReason.NOT_READY:",
    ),
)


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Run with the bug in place."""
    with ExitStack() as stack:
        for edit in mutant.edits:
            stack.enter_context(_edited(edit))
        yield


@contextmanager
def _edited(edit: Edit) -> Iterator[None]:
    module_name, _, path = edit.where.partition(":")
    module = importlib.import_module(module_name)
    found: object = module
    for name in path.split("."):
        found = getattr(found, name)
    function = cast("FunctionType", found)
    # The linecache of a function that is already a mutant shows its original, so edits of one
    # function are made on what the last edit left behind.
    source = _SOURCES.get(edit.where) or textwrap.dedent(inspect.getsource(function))
    if edit.old not in source:
        raise LookupError(f"{edit.where} does not say {edit.old!r} any more: plant the bug anew")
    mutated = source.replace(edit.old, edit.new)
    scope: dict[str, FunctionType] = {}
    exec(compile(mutated, f"<mutant of {edit.where}>", "exec"), module.__dict__, scope)  # noqa: S102
    original, before = function.__code__, _SOURCES.get(edit.where)
    function.__code__ = scope[function.__name__].__code__
    _SOURCES[edit.where] = mutated
    try:
        yield
    finally:
        function.__code__ = original
        if before is None:
            del _SOURCES[edit.where]
        else:
            _SOURCES[edit.where] = before


_SOURCES: dict[str, str] = {}


def hunt(mutant: Mutant, first: int = 0) -> tuple[int, str] | None:
    """Return the first seed that finds the bug and what it says, or None if none does."""
    with planted(mutant):
        for seed in range(first, first + mutant.within):
            report = simulate(seed)
            if report.wrong:
                return seed, report.wrong[0]
    return None
