"""Findings from the definition as it stands, without looking at what it comes to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sidecar.definitions.checker.proof import can_fail
from sidecar.definitions.checker.report import Finding, finding
from sidecar.definitions.checker.times import Times, beside_moments
from sidecar.definitions.durations import duration_text
from sidecar.definitions.findings import Path
from sidecar.saga.definition import Definition, Join, StepDefinition
from sidecar.saga.policy import COMPENSATION_DEFAULT, FORWARD_DEFAULT, RetryPolicy


def findings(
    definition: Definition, times: Times, children: Mapping[str, Definition]
) -> Iterator[Finding]:
    """All of them."""
    yield from _of_times(definition, times, children)
    yield from _of_refusals(definition)
    for number, step in enumerate(definition.steps):
        path: Path = ("steps", number)
        yield from _of_wait(definition, step, path)
        yield from _of_join(definition, step, path)
        yield from _of_child(definition, step, path, children)
        yield from _of_action(step, path)
        yield from _of_policies(definition, step, path)
        if step.pivot:
            yield from _of_pivot(step, path)


def can_be_undone(definition: Definition, children: Mapping[str, Definition]) -> bool:
    """Whether a workflow that has completed can still be turned back, as a child is.

    That takes its own children, and theirs, as far as they are known.
    """
    seen = {definition.name: definition}
    waiting = [definition]
    while waiting:
        one = waiting.pop()
        if one.pivots or not all(map(_leaves_a_way_back, one.steps)):
            return False
        below = {step.child.definition for step in one.steps if step.child} - seen.keys()
        found = {name: children[name] for name in sorted(below) if name in children}
        seen |= found
        waiting += found.values()
    return True


def _leaves_a_way_back(step: StepDefinition) -> bool:
    calls = step.wait is None and step.child is None
    return step.compensation is not None or step.no_effect or not calls


def no_way_back(definition: Definition, step: StepDefinition) -> bool:
    """Whether a step is tried as stubbornly as a compensation."""
    return step.pivot or definition.past_pivot(step.name)


def _of_times(
    definition: Definition, times: Times, children: Mapping[str, Definition]
) -> Iterator[Finding]:
    timeout = definition.timeout
    if timeout is None:
        return
    given = duration_text(timeout)
    if times.best is not None and times.best > timeout:
        text = f"the pauses alone take {duration_text(times.best)}, but `timeout` is {given}"
        yield finding("GC131", ("timeout",), text)
        return
    known = beside_moments(definition, children)
    if known is None or known > timeout:
        worst = "without end" if known is None else duration_text(known)
        text = f"the worst case is {worst}, but `timeout` is {given}: then it turns back"
        yield finding("GC132", ("timeout",), text)


def _of_refusals(definition: Definition) -> Iterator[Finding]:
    late = [
        number
        for number, step in enumerate(definition.steps)
        if definition.past_pivot(step.name) and step.wait is None and not step.optional
    ]
    if late:
        names = ", ".join(repr(definition.steps[number].name) for number in late)
        text = f"{names} past the pivot must not be refused: that ends in `error`, for a person"
        step = definition.steps[late[0]].name
        yield finding("GC110", ("steps", late[0]), text, step=step)


def _of_action(step: StepDefinition, path: Path) -> Iterator[Finding]:
    if step.action and step.catalogue is None:
        undone = "can" if step.compensation or step.no_effect else "cannot"
        text = (
            f"nothing is known of the action {step.action!r} of {step.service}: it is taken for "
            f"one that {undone} be undone, with the usual time-outs and tries"
        )
        yield finding("GC151", (*path, "action"), text, step=step.name)


def _of_wait(definition: Definition, step: StepDefinition, path: Path) -> Iterator[Finding]:
    if step.wait is None or step.wait.signal is None or step.wait.timeout is not None:
        return
    if definition.timeout is None or definition.past_pivot(step.name):
        text = f"{step.name!r} waits for the signal {step.wait.signal} without end"
        yield finding("GC134", (*path, "wait"), text, step=step.name)


def _of_join(definition: Definition, step: StepDefinition, path: Path) -> Iterator[Finding]:
    if step.join is not Join.ANY:
        return
    late = [name for name in step.after if can_fail(definition, definition.by_name[name])]
    if len(step.after) > 1 and late:
        names = ", ".join(repr(name) for name in late)
        text = f"{step.name!r} goes on before {names} need be over: each of them can still fail"
        yield finding("GC122", (*path, "join"), text, step=step.name)


def _of_child(
    definition: Definition, step: StepDefinition, path: Path, children: Mapping[str, Definition]
) -> Iterator[Finding]:
    child = children.get(step.child.definition) if step.child else None
    if child is None or definition.timeout is None:
        return
    if child.timeout is None or child.timeout > definition.timeout:
        has = "none" if child.timeout is None else duration_text(child.timeout)
        text = f"the `timeout` of {child.name!r} is {has}, that of its parent shorter"
        yield finding("GC133", (*path, "workflow"), text, step=step.name)


def _of_policies(definition: Definition, step: StepDefinition, path: Path) -> Iterator[Finding]:
    if step.wait is not None or step.child is not None:
        return
    undo = step.compensation.retry if step.compensation else COMPENSATION_DEFAULT
    stubborn = no_way_back(definition, step)
    if _ends(undo) and stubborn:
        text = f"{step.name!r} has no way back, and is tried by the policy of `compensate`: it ends"
        yield finding("GC144", (*path, "compensate"), text, step=step.name)
    elif _ends(undo):
        text = f"what undoes {step.name!r} gives up {_when(undo)}: that ends in `error`"
        yield finding("GC141", (*path, "compensate"), text, step=step.name)
    elif stubborn and step.compensation is not None and undo == COMPENSATION_DEFAULT:
        text = f"{step.name!r} is never undone: the workflow cannot turn back past its pivot"
        yield finding("GC145", (*path, "compensate"), text, step=step.name)
    retry = step.retry
    if definition.past_pivot(step.name):
        if retry != FORWARD_DEFAULT:
            text = f"`retry` of {step.name!r} is not used: past a pivot that of `compensate` is"
            yield finding("GC147", (*path, "retry"), text, step=step.name)
        return
    if retry.max_attempts == 1 and not stubborn and not step.optional and not step.status_check:
        text = f"{step.name!r} is tried once: one lost answer turns the workflow back"
        yield finding("GC142", (*path, "retry"), text, step=step.name)
    elif retry.total_budget is not None and retry.total_budget < step.timeout:
        text = (
            f"`total_budget` of {step.name!r} is {duration_text(retry.total_budget)}, one call may "
            f"take {duration_text(step.timeout)}: it may be tried only once"
        )
        yield finding("GC143", (*path, "retry"), text, step=step.name)


def _ends(policy: RetryPolicy) -> bool:
    return policy.max_attempts is not None or policy.total_budget is not None


def _when(policy: RetryPolicy) -> str:
    said = []
    if policy.max_attempts is not None:
        said.append(f"after {policy.max_attempts} tries")
    if policy.total_budget is not None:
        said.append(f"after {duration_text(policy.total_budget)}")
    return " or ".join(said)


def _of_pivot(step: StepDefinition, path: Path) -> Iterator[Finding]:
    if step.when is not None and not (step.when.constant and step.when.source == "true"):
        text = f"{step.name!r} is the pivot, but may be skipped by its `when`"
        yield finding("GC109", (*path, "when"), text, step=step.name)
    if step.no_effect:
        text = f"{step.name!r} is a pivot, but says that there is nothing to undo"
        yield finding("GC146", (*path, "pivot"), text, step=step.name)
