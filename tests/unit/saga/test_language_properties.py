"""Random graphs of everything that the language has, random events: all done or all undone.

Every transition is decided twice: on the whole workflow, and on the part that a store reads. What
comes of both must be the same, or the machine must ask for the whole.
"""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta

import pytest
from msgspec.structs import replace

from sidecar.errors import IllegalTransition, IncompleteState
from sidecar.saga.changes import Changes
from sidecar.saga.definition import (
    Concurrency,
    Definition,
    FanOut,
    Join,
    JsonText,
    Order,
    StatusCheck,
    StepDefinition,
    Template,
    Wait,
)
from sidecar.saga.events import (
    Admitted,
    Answered,
    CancelRequested,
    Event,
    Heartbeat,
    LeaseEnded,
    PauseRequested,
    Resolution,
    ResolveRequested,
    ResumeRequested,
    RetryRequested,
    SignalSent,
    SkipRequested,
    TerminateRequested,
    TimerFired,
)
from sidecar.saga.machine import advance
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.partial import part
from sidecar.saga.queueing import NOT_CALLED
from sidecar.saga.states import (
    CLAIMABLE,
    OPEN,
    WORKFLOW_ENDS,
    Action,
    StepStatus,
    WorkflowStatus,
)
from sidecar.saga.turns import waits_for_turn
from sidecar.saga.workflow import Step, StepKey, Workflow
from tests.unit.saga.worlds import EPOCH, Run, definition, render, step

SEEDS = 1_500


ALL_ALIKE = Template(JsonText('"all"'), constant=True)
"""The key of those that share places with all others."""


def _template(source: str) -> Template:
    return Template(JsonText(source), constant=False)


def graph(draw: random.Random) -> Definition:
    """Up to seven steps of all kinds."""
    names = [f"s{number}" for number in range(draw.randint(1, 7))]
    steps: list[StepDefinition] = []
    chain = draw.random() < 0.3
    pivot = draw.choice(names) if chain and draw.random() < 0.5 else None
    for number, name in enumerate(names):
        some = draw.sample(names[:number], draw.randint(0, min(number, 3)))
        after = names[max(0, number - 1) : number] if chain else sorted(some)
        steps.append(_any_step(draw, name, after, pivot=name == pivot))
    order = draw.choice((Order.REVERSE, Order.REVERSE, Order.SEQUENTIAL, Order.PARALLEL))
    output = _template("steps") if draw.random() < 0.3 else None
    timeout = timedelta(seconds=draw.choice((20, 200))) if draw.random() < 0.2 else None
    return definition(*steps, order=order, output=output, timeout=timeout)


def _any_step(draw: random.Random, name: str, after: list[str], *, pivot: bool) -> StepDefinition:
    join = Join.ANY if len(after) > 1 and draw.random() < 0.4 else Join.ALL
    when = None
    if draw.random() < 0.2:
        when = Template(JsonText(draw.choice(("true", "false", "!"))), constant=False)
    if pivot:
        return step(name, *after, pivot=True, join=join, when=when)
    kind = draw.random()
    if kind < 0.2:
        wait = draw.choice(
            (
                Wait(duration=timedelta(seconds=30)),
                Wait(signal="go"),
                Wait(signal="go", timeout=timedelta(seconds=60)),
                Wait(until=_template("moment")),
            )
        )
        return StepDefinition(name, after=tuple(after), join=join, when=when, wait=wait)
    more: dict[str, object] = {"join": join, "when": when, "optional": draw.random() < 0.15}
    if draw.random() < 0.15:
        more["compensation"] = None
        more["no_effect"] = draw.random() < 0.5
    if draw.random() < 0.3:
        more["status_check"] = StatusCheck("/status", timedelta(seconds=5))
    if kind < 0.45:
        more["fan_out"] = FanOut(
            _template("list"), draw.choice((1, 2, 10)), draw.choice((0, 0, 1, 3))
        )
        more["input"] = _template(draw.choice(("each", "each", "odd")))
    if draw.random() < 0.25:
        key = draw.choice((ALL_ALIKE, ALL_ALIKE, _template("each"), _template("odd")))
        limit = draw.choice((1, 2, 100))
        more["concurrency"] = Concurrency(key if "fan_out" in more else ALL_ALIKE, limit)
    return step(name, *after, **more)


class _World(Run):
    """A run in which everything is decided on the part, and on the whole."""

    def apply(self, event: Event) -> Changes:
        """Advance by one event."""
        whole = self._advance(event, self.workflow)
        keys = [event.step] if hasattr(event, "step") and event.step is not None else []
        partial = part(self.definition, self.workflow, keys)
        try:
            found: Changes | str = self._advance(event, partial)
        except IncompleteState:
            pass
        else:
            assert _shown(found) == _shown(whole)
        if isinstance(whole, str):
            raise IllegalTransition("workflow", whole, type(event).__name__)
        self.workflow = whole.workflow
        self.check()
        return whole

    def _advance(self, event: Event, workflow: Workflow) -> Changes | str:
        try:
            return advance(self.definition, workflow, event, now=self.now, render=render)
        except IllegalTransition as error:
            return error.message


def _shown(found: Changes | str) -> object:
    if isinstance(found, str):
        return found
    return replace(found, workflow=replace(found.workflow, steps={}, elements={}, partial=False))


def _events(draw: random.Random, run: _World) -> list[Event]:
    """What may happen now: mostly what is due."""
    found: list[Event] = []
    for key, one in run.workflow.steps.items():
        if one.leased:
            found += answers(draw, one)
        elif one.status is StepStatus.WAITING and one.due_at is not None:
            found.append(TimerFired(key))
        elif waits_for_turn(one) or draw.random() < 0.02:
            found.append(Admitted(key))
    found.append(SignalSent("go", JsonText("1"), "because"))
    if draw.random() < 0.05:
        key = draw.choice(list(run.workflow.steps) or [StepKey("s0")])
        found += verbs(draw, key)
    return found


def answers(draw: random.Random, one: Step) -> list[Event]:
    """An answer to a step that was claimed: mostly to its newest attempt, mostly a good one."""
    kinds = list(OutcomeKind)
    weights = [8 if kind is OutcomeKind.DONE else 1 for kind in kinds]
    (kind,) = draw.choices(kinds, weights)
    if kind is OutcomeKind.REFUSED and draw.random() < 0.5:
        kind = OutcomeKind.DONE
    output = JsonText(f'"{one.key}"') if kind is OutcomeKind.DONE else None
    attempt = max(1, one.run.attempt - (draw.random() < 0.1))
    good = kind in (OutcomeKind.DONE, OutcomeKind.PENDING, *NOT_CALLED)
    error = None if good else JsonText(f'{{"code":"{kind}","message":"of {one.key}"}}')
    later = timedelta(seconds=draw.choice((0, 2, 90))) if kind is OutcomeKind.HELD else None
    outcome = Outcome(kind, output, error, retry_after=later)
    answer = Answered(one.key, one.action, attempt, outcome)
    if draw.random() < 0.1:
        return [LeaseEnded(one.key, one.action, one.run.attempt)]
    if one.awaiting and draw.random() < 0.2:
        return [Heartbeat(one.key, one.action, one.run.attempt)]
    return [answer]


def verbs(draw: random.Random, key: StepKey) -> list[Event]:
    """What a person may want of a workflow, or of this step of it."""
    return [
        draw.choice(
            (
                CancelRequested(),
                PauseRequested(),
                ResumeRequested(),
                TerminateRequested("enough") if draw.random() < 0.1 else CancelRequested(),
                RetryRequested(draw.choice((None, key))),
                SkipRequested(key, "not needed", JsonText("{}")),
                SkipRequested(key, "not needed", action=Action.COMPENSATE),
                ResolveRequested(key, draw.choice(list(Resolution)), "seen", "the ledger"),
            )
        )
    ]


def _play(seed: int, seen: Counter[str]) -> _World:
    draw = random.Random(seed)
    run = _World(graph(draw))
    for _ in range(600):
        if run.workflow.status in WORKFLOW_ENDS:
            break
        seen.update(one.status for one in run.workflow.steps.values())
        ready = [
            str(key)
            for key, one in run.workflow.steps.items()
            if one.status in CLAIMABLE and not one.leased and one.due_at and not run.workflow.paused
        ]
        if ready and draw.random() < 0.6:
            run.claim(draw.choice(ready))
            continue
        events = _events(draw, run)
        event = draw.choice(events) if events else ResumeRequested()
        if isinstance(event, TimerFired):
            run.now = max(run.now, run.workflow.steps[event.step].due_at or run.now)
        try:
            run.apply(event)
        except IllegalTransition:
            seen["illegal"] += 1
        if run.workflow.paused and run.workflow.status not in WORKFLOW_ENDS and draw.random() < 0.3:
            run.apply(ResumeRequested())
        if run.workflow.status is WorkflowStatus.ERROR and draw.random() < 0.3:
            _mend(draw, run)
    seen.update(one.status for one in run.workflow.steps.values())
    return run


def _mend(draw: random.Random, run: _World) -> None:
    stuck = [
        one.key
        for one in run.workflow.steps.values()
        if one.status in (StepStatus.COMPENSATION_FAILED, StepStatus.FAILED) and one.fan is None
    ]
    key = draw.choice(stuck)
    event = draw.choice(
        (
            RetryRequested(key),
            SkipRequested(key, "left", JsonText("{}")),
            SkipRequested(key, "left", action=Action.COMPENSATE),
            ResolveRequested(key, draw.choice(list(Resolution)), "seen", "the ledger"),
        )
    )
    try:
        run.apply(event)
    except IllegalTransition:
        return


@pytest.mark.fault(23)
def test_whatever_happens_all_is_done_or_all_undone() -> None:
    ends: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for seed in range(SEEDS):
        try:
            run = _play(seed, seen)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error
        ends[run.workflow.status] += 1
        if run.workflow.status is WorkflowStatus.ROLLED_BACK:
            _all_undone(run)
        open_steps = [one for one in run.workflow.steps.values() if one.status in OPEN]
        assert run.workflow.status not in WORKFLOW_ENDS or not open_steps
    assert {"completed", "rolled_back", "terminated"} <= set(ends), ends
    assert sum(ends[one] for one in WORKFLOW_ENDS) > 0.95 * SEEDS, ends
    missing = {status for status in StepStatus if not seen[status]} - {StepStatus.PENDING}
    assert not missing


def _all_undone(run: _World) -> None:
    for one in run.workflow.steps.values():
        defined = run.definition.by_name[one.key.step]
        undone = one.status is StepStatus.COMPENSATED or defined.no_effect
        assert undone or not one.may_have_effect, one


def test_the_worlds_begin_at_their_epoch() -> None:
    assert Run(definition(step("a"))).began.workflow.created_at == EPOCH
