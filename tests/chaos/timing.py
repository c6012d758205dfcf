"""When things happened: nothing before it was due, no try too soon after another, none too many.

Every bound here is a lower one, and is exact. The moment when something is due is reckoned from the
very time that stands in the history (one transition writes both), and whoever claims, fires or
gives up compares it with the database's clock: so neither a clock that is known roughly, nor a
pause, a lost lease or a death can make it come sooner. There is no upper bound, since in a run that
does harm nobody need be there when a moment comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.chaos.effects import COMPENSATE, EXECUTE, Case
from tests.chaos.expectations import Rule, Violation
from tests.chaos.families import Forest
from tests.chaos.graphs import plain
from tests.chaos.patience import BUSY_S, CALLBACK_S, QUESTIONS, Retry
from tests.chaos.patience import COMPENSATE as DEFAULT_COMPENSATE
from tests.chaos.patience import EXECUTE as DEFAULT_EXECUTE
from tests.chaos.rows import EventRow

_ROUNDED_S = 0.001
"""What the numbers may have lost on their way here."""
_ENDS_A_TRY = frozenset({"done", "refused", "unknown", "misconfigured", "unusable"})
_OF_DEADLINES = frozenset({"deadline_passed", "pivot_claimed", "past_pivot"})


def of_timing(forest: Forest) -> Iterator[Violation]:
    """Everything about times and tries."""
    for case in forest.cases.values():
        yield from _deadline(forest, case)
        yield from _rests(case)
        yield from _tries(case)


def _deadline(forest: Forest, case: Case) -> Iterator[Violation]:
    """A deadline is the time-out of a workflow from its beginning, or that of one above it.

    It may be put off, and a child past a pivot is given none: so the soonest of all is a lower
    bound. The one that stands in the row at the end is the one that passed.
    """
    for event in case.events:
        if event.step is not None or event.cause not in _OF_DEADLINES:
            continue
        due = _soonest(forest, case)
        if event.cause == "deadline_passed" and case.row.deadline is not None:
            due = max(due, case.row.deadline)
        if event.time < due - _ROUNDED_S:
            text = f"event {event.seq}: {event.cause} came {due - event.time:.3f} s before its time"
            yield case.wrong(Rule.DUE, text)


def _soonest(forest: Forest, case: Case | None) -> float:
    found = float("inf")
    while case is not None:
        timeout_s = case.graph.patience.timeout_s
        if timeout_s is not None and case.events:
            found = min(found, case.events[0].time + timeout_s)
        case = forest.cases.get(case.row.parent or "")
    return found


def _rests(case: Case) -> Iterator[Violation]:
    """A wait takes as long as it says, and a signal is waited for as long: both from its begin.

    Waits until a moment have no span, and are not judged. An operator cannot shorten a wait, and
    one that begins anew says so.
    """
    begun: dict[str, float] = {}
    for event in case.events:
        if event.kind != "step" or event.step is None:
            continue
        if event.cause == "waits":
            begun[event.step] = event.time
        elif event.cause in ("time_has_come", "signal_timeout"):
            least = case.graph.patience.rests_s.get(event.step)
            waited = event.time - begun.get(event.step, event.time)
            if least is not None and waited < least - _ROUNDED_S:
                text = f"{event.step}: {event.cause} after {waited:.3f} s, and not {least:.3f}"
                yield case.wrong(Rule.DUE, text)


@dataclass(slots=True)
class _Run:
    """The attempts at one action of one step, as the history tells of them.

    `open` is whether the newest has not ended, `asks` whether it only asked how an earlier one went
    (which costs no try), `last` what happened last, an operator's word included.
    """

    attempt: int = 0
    tries: int = 0
    open: bool = False
    asks: bool = False
    last: EventRow | None = None


def _tries(case: Case) -> Iterator[Violation]:
    """The pauses between tries, how long callbacks are waited for, and how many tries there are."""
    runs: dict[tuple[str, str], _Run] = {}
    for event in case.events:
        if event.step is None:
            continue
        if event.kind == "operator" and event.cause == "retry":
            action = COMPENSATE if event.action == COMPENSATE else EXECUTE
            runs.setdefault((event.step, action), _Run()).last = event
        if event.kind not in ("step", "compensation"):
            continue
        action = COMPENSATE if event.kind == "compensation" else EXECUTE
        run = runs.setdefault((event.step, action), _Run())
        if event.cause == "claimed":
            yield from _too_soon(case, event, run)
            yield from _too_many(case, event, run)
            run.attempt, run.open, run.asks = run.attempt + 1, True, event.before == "in_doubt"
        else:
            yield from _given_up_too_soon(case, event, run)
            _ended(run, event)
        run.last = event
    yield from _miscounted(case, runs)


def _ended(run: _Run, event: EventRow) -> None:
    """Count as the policies do: a try is spent by its first end, if it was one.

    What is taken on after its lease had ended is open again, and gets back the try that this end
    had cost. Whoever has it tried anew after it failed gives it all its tries again.
    """
    match event.cause:
        case "pending":
            if not run.open and not run.asks:
                run.tries = max(0, run.tries - 1)
            run.open = event.after != "failed"
        case "retry" | "same_key_again":
            run.tries, run.open = 0, False
        case cause:
            if run.open and not run.asks and cause in _ENDS_A_TRY:
                run.tries += 1
            run.open = False


def _too_soon(case: Case, event: EventRow, run: _Run) -> Iterator[Violation]:
    """A claim comes after the pause that the end before it asked for.

    The end that counts is the last before the claim: a late answer to an attempt whose lease had
    ended sets the next try anew. A `Retry-After` and a rate limit only make the pause longer.
    Nothing is waited for after a claim that was given back, when a turn has come, when a person
    wants it tried, when a step is queued; that no claim comes before an end is another rule.
    """
    last = run.last
    if last is None:
        return
    least = _least_pause_s(case, event, run, last)
    paused = event.time - last.time
    if least > 0 and paused < least - _ROUNDED_S:
        text = (
            f"{event.step}: attempt {event.attempt} to {event.action} came {paused:.3f} s after"
            f" {last.cause}, and {least:.3f} s is the least"
        )
        yield case.wrong(Rule.BACK_OFF, text)


def _least_pause_s(case: Case, event: EventRow, run: _Run, last: EventRow) -> float:
    if last.kind == "operator" or last.after not in ("retrying", "compensating", "in_doubt"):
        return 0.0
    if last.after == "in_doubt":
        # Asked for the first time at once; what came late to an execute in doubt is not judged.
        asked = run.asks and last.before == "in_doubt" and last.cause not in ("released", "held")
        return QUESTIONS.least_pause_s(run.attempt - run.tries) if asked else 0.0
    policies = _policies(case, event)
    if last.cause in ("not_now", "not_sent"):
        return min(one.least_pause_s(run.attempt) for one in policies)
    if last.cause in _ENDS_A_TRY:
        return min(one.least_pause_s(run.tries) for one in policies)
    return BUSY_S if last.cause == "busy" else 0.0


def _too_many(case: Case, event: EventRow, run: _Run) -> Iterator[Violation]:
    """No claim after the last try that the policy allows, but of who asks how it went."""
    if event.before == "in_doubt":
        return
    limits = [one.most for one in _policies(case, event)]
    most = None if None in limits else max(one for one in limits if one is not None)
    if most is not None and run.tries >= most:
        text = (
            f"{event.step}: attempt {event.attempt} to {event.action} came after {run.tries} tries,"
            f" and {most} is the most"
        )
        yield case.wrong(Rule.TRIES, text)


def _policies(case: Case, event: EventRow) -> list[Retry]:
    """The policies that may hold: where the way back is closed, a step is tried like an undoing.

    Whether it is closed depends on a pivot that may have been skipped, so both are allowed there.
    """
    step, graph = plain(str(event.step)), case.graph
    undo = graph.patience.compensate.get(step, DEFAULT_COMPENSATE)
    if event.kind == "compensation":
        return [undo]
    own = graph.patience.execute.get(step, DEFAULT_EXECUTE)
    past = step in graph.pivots or any(step in graph.descendants(one) for one in graph.pivots)
    return [own, undo] if past else [own]


def _given_up_too_soon(case: Case, event: EventRow, run: _Run) -> Iterator[Violation]:
    """Who has promised a callback is given its time, which a heartbeat only makes longer.

    Only a leader gives it up; a callback that says itself that it does not know comes from a
    service. Nobody is the owner of such a step, so nobody's silence ends it either.
    """
    last = run.last
    given_up = (event.cause, event.actor) == ("unknown", "leader")
    if not given_up or last is None or last.cause != "pending":
        return
    least = case.graph.patience.callback_s.get(plain(str(event.step)), CALLBACK_S)
    waited = event.time - last.time
    if waited < least - _ROUNDED_S:
        text = f"{event.step}: its callback was waited for {waited:.3f} s, and not {least:.3f}"
        yield case.wrong(Rule.DUE, text)


def _miscounted(case: Case, runs: dict[tuple[str, str], _Run]) -> Iterator[Violation]:
    """The rows count as many tries as the history; of what was taken over it tells only a part."""
    taken_over = {event.step for event in case.events if event.cause == "taken_over"}
    for name, row in case.steps.items():
        if name in taken_over:
            continue
        for action, kept in ((EXECUTE, row.tries), (COMPENSATE, row.comp_tries)):
            counted = runs[name, action].tries if (name, action) in runs else 0
            if kept is not None and kept != counted:
                text = f"{name} {action}: {kept} tries, and {counted} in the history"
                yield case.wrong(Rule.TRIES, text)
