"""A way in words, and a picture of where it ends."""

from __future__ import annotations

from sidecar.definitions.checker.exploring import Way
from sidecar.definitions.checker.moves import Move, What
from sidecar.saga.definition import Definition
from sidecar.saga.states import StepStatus
from sidecar.saga.workflow import Step, StepKey, Workflow

_SAID = {
    What.START: "the workflow starts",
    What.DONE: "{} succeeds",
    What.REFUSED: "{} is refused",
    What.UNKNOWN: "what became of {} stays unknown",
    What.UNDONE: "{} is undone",
    What.TIMER: "{} has waited long enough",
    What.SIGNAL: "the signal that {} waits for comes",
    What.CANCEL: "the workflow is cancelled",
}
_MOST_LINES = 60


def events(definition: Definition, moves: tuple[Move, ...]) -> tuple[str, ...]:
    """The events of a way, each a line."""
    return tuple(_event(definition, move) for move in moves)


def _event(definition: Definition, move: Move) -> str:
    text = _SAID[move.what]
    if move.key is not None:
        wait = definition.by_name[move.key.step].wait
        if move.what is What.TIMER and wait is not None and wait.signal is not None:
            text = f"{{}} waits in vain for the signal {wait.signal}"
        text = text.format(move.key)
    return f"{text} ({', '.join(move.told)})" if move.told else text


def drawing(definition: Definition, way: Way) -> str:
    """The steps in their order, each below what it waits for, with how it stands in the end."""
    depth: dict[str, int] = {}
    for name in definition.topological:
        after = definition.by_name[name].after
        depth[name] = max((depth[one] + 1 for one in after), default=0)
    wide = max(len(name) + 3 * depth[name] for name in depth) + 2
    lines = [
        _line(definition, way, name, wide, "   " * (depth[name] - 1) + "└─ " * (depth[name] > 0))
        for name in definition.topological
    ]
    rest = len(lines) - _MOST_LINES
    return "\n".join(lines if rest <= 0 else [*lines[:_MOST_LINES], f"... {rest} more steps"])


def _line(definition: Definition, way: Way, name: str, wide: int, indent: str) -> str:
    after = definition.by_name[name].after
    joined = f"  after {', '.join(after)}" if len(after) > 1 else ""
    mark = "  <- here" if name == way.step else ""
    return f"{indent + name:<{wide}}{_stands(way.workflow, name)}{joined}{mark}"


def _stands(workflow: Workflow, name: str) -> str:
    step = workflow.steps.get(StepKey(name))
    if step is None:
        return StepStatus.PENDING
    return _said(step)


def _said(step: Step) -> str:
    unknown = step.output is None and step.may_have_effect
    match step.status:
        case StepStatus.FAILED if step.may_have_effect:
            return "failed, with an effect that nobody knows of"
        case StepStatus.COMPENSATION_FAILED if unknown and step.fan is None:
            return "compensation_failed, after an outcome that stayed unknown"
        case _:
            return step.status.value
