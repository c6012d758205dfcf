"""What the answers around a compensation are worth; see `judging`."""

from __future__ import annotations

from sidecar.adapters.probe.judging import BY_ANSWERS, effects_of, first_not_done, not_done, told
from sidecar.adapters.probe.record import Record, Verdict, breaks, holds
from sidecar.saga.outcomes import OutcomeKind
from sidecar.saga.states import Action


def undone(seen: Record) -> Verdict:
    """What was executed is undone."""
    return first_not_done(seen) or effects_of(seen, 0)


def undone_twice(seen: Record) -> Verdict:
    """The second compensation is done too, and undoes nothing more."""
    if (wrong := first_not_done(seen)) is not None:
        return wrong
    effects = seen.effects(since=1)
    if effects is None:
        return holds(f"{told(seen)}; {BY_ANSWERS}")
    came = f"{told(seen)}; effects before and after the second: {seen.counts[1:]}"
    return holds(came) if effects == 0 else breaks(came)


def late_execute(seen: Record) -> Verdict:
    """An execute that comes after its compensation is refused."""
    undo, late = seen.answers
    if not undo.done:
        return not_done(undo)
    if late.kind is not OutcomeKind.REFUSED:
        return not_done(late) if late.redirected else breaks(_late(seen))
    return effects_of(seen, 0)


def repeated_execute(seen: Record) -> Verdict:
    """The key of an execute that was undone acts no more: refused, or answered as before."""
    first, undo, late = seen.answers
    if not (first.done and undo.done):
        return not_done(undo if first.done else first)
    effects = seen.effects()
    if effects is not None and effects != 0:
        return effects_of(seen, 0)
    if late.kind is OutcomeKind.REFUSED or late.same_answer(first):
        return effects_of(seen, 0)
    if effects is not None and late.done:
        return effects_of(seen, 0)
    return breaks(_late(seen))


def undone_at_once(seen: Record) -> Verdict:
    """However an execute and its compensation meet, nothing is left."""
    for answer in seen.answers:
        late = answer.action is Action.EXECUTE and answer.kind is OutcomeKind.REFUSED
        if not (answer.done or late):
            return not_done(answer, f"{answer.action}: ")
    return effects_of(seen, 0)


def _late(seen: Record) -> str:
    late = seen.answers[-1]
    return f"{told(seen)}; the contract takes the last as: {late.kind}"
