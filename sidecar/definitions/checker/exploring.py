"""All that a definition can come to, and the shortest ways to what it must not come to.

Breadth first, so that the first way that is found is a shortest one. A first search lets every
step move before and after every other. Where that becomes too much, a second one lets the first
step that can move go first: what the others do meanwhile they can do afterwards as well, and an
effect that is one too many is so in whichever order the effects came about. See
`docs/checker.md` for why that is enough.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from sidecar.definitions.checker.abstraction import Absent
from sidecar.definitions.checker.keys import Key, Keys
from sidecar.definitions.checker.moves import Move, Node, Space, What
from sidecar.saga.definition import Definition
from sidecar.saga.states import OPEN, StepStatus, WorkflowStatus
from sidecar.saga.workflow import Step, Workflow

_USUAL = 20
"""As many steps cost what one transition is counted for."""


class Flaw(StrEnum):
    """How a way can end that must not."""

    NOT_UNDONE = "not_undone"
    """In `error`: there is no way to undo a step."""
    NOT_RENDERED = "not_rendered"
    """In `error`: what undoes a step cannot be told what to undo."""
    STUCK_AHEAD = "stuck_ahead"
    """In `error`: a step failed past a pivot."""
    LEFT = "left"
    """`completed`, but a step that failed may have had an effect."""
    LIMBO = "limbo"
    """Nothing more can happen."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is explored: so many transitions of the machine, and at most for so long.

    Those of a definition of more than 20 steps count for more, since they take longer. `clock`
    tells seconds; without one only the transitions are counted, and the same definition always
    gives the same report.
    """

    full: int = 6_000
    """Of the first search."""
    ample: int = 40_000
    """Of the second one."""
    seconds: float = 10.0
    clock: Callable[[], float] | None = None


QUICK = Limits(full=2_000, ample=8_000, seconds=2.0)
"""For who waits for the answer, as at a registration: two seconds at most for a usual graph."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to an end: its moves, and the state it leads to."""

    flaw: Flaw
    step: str
    moves: tuple[Move, ...]
    workflow: Workflow


class Method(StrEnum):
    """How all ways were looked at."""

    FULL = "full"
    """Every order of moves."""
    AMPLE = "ample"
    """Orders that cannot make a difference were left out."""
    BOUNDED = "bounded"
    """Not all of them: there were too many."""


@dataclass(slots=True)
class Explored:
    """What came of it."""

    method: Method = Method.FULL
    states: int = 0
    transitions: int = 0
    ways: dict[tuple[Flaw, str], Way] = field(default_factory=dict)
    absent: dict[Absent, tuple[Move, ...]] = field(default_factory=dict)
    opened: set[str] = field(default_factory=set)
    """The steps that were not passed over on some way."""


def explore(definition: Definition, limits: Limits | None = None) -> Explored:
    """Explore an abstract definition."""
    limits = limits or Limits()
    space = Space(definition)
    began = limits.clock() if limits.clock else 0.0
    search = _Search(space, limits, began, coarse=False)
    if not search.run(limits.full, ample=False):
        first = search.found
        search = _Search(space, limits, began, coarse=True)
        complete = search.run(limits.ample, ample=True)
        found = search.found
        found.method = Method.AMPLE if complete else Method.BOUNDED
        # What the first search has found it has found on a shortest way.
        found.ways |= first.ways
        found.absent |= first.absent
        found.opened |= first.opened
        found.states += first.states
        found.transitions += first.transitions
    found = search.found
    found.ways = {which: _shortened(space, way) for which, way in found.ways.items()}
    return found


class _Search:
    """One search."""

    def __init__(self, space: Space, limits: Limits, began: float, *, coarse: bool) -> None:
        self.found = Explored()
        self._space = space
        self._limits = limits
        self._began = began
        self._weight = max(1.0, len(space.definition.steps) / _USUAL)
        self._keys = Keys(space.definition, space.roles, coarse=coarse)
        self._before: dict[Key, tuple[Key | None, Move]] = {}
        self._queue: deque[tuple[Key, Node]] = deque()

    def run(self, most: int, *, ample: bool) -> bool:
        """Look at everything; return whether there was enough room and time for that."""
        for move, node in self._space.starts():
            self._reached(None, move, node)
            if self._enough(most):
                return False
        while self._queue:
            key, node = self._queue.popleft()
            moves = self._space.moves(node, ample=ample)
            if all(what is What.CANCEL for what, _ in moves):
                self._ended(key, node.workflow)
            for what, step in moves:
                # One transition alone may ask for very many choices.
                for move, after in self._space.after(node, what, step):
                    self._reached(key, move, after)
                    if self._enough(most):
                        return False
        return True

    def _enough(self, most: int) -> bool:
        """Whether there was as much as there is room or time for."""
        self.found.transitions += 1
        return self.found.transitions * self._weight > most or self._late()

    def _late(self) -> bool:
        clock = self._limits.clock
        return clock is not None and clock() - self._began > self._limits.seconds

    def _reached(self, before: Key | None, move: Move, node: Node) -> None:
        found = self.found
        key = self._keys.of(node.workflow, node.choices)
        new = key not in self._before
        if new:
            self._before[key] = (before, move)
            found.states += 1
            self._queue.append((key, node))
        if len(found.opened) < len(self._space.definition.steps):
            found.opened.update(
                step.key.step
                for step in node.workflow.steps.values()
                if step.status not in (StepStatus.SKIPPED, StepStatus.CANCELLED)
            )
        for absent in node.absent:
            if absent not in found.absent:
                found.absent[absent] = self._way(key) if new else (*self._way(before), move)
        if new:
            for flaw, step in flaws(self._space.definition, node.workflow):
                self._flawed(flaw, step, key, node.workflow)

    def _ended(self, key: Key, workflow: Workflow) -> None:
        open_ends = (WorkflowStatus.COMPLETED, WorkflowStatus.ROLLED_BACK, WorkflowStatus.ERROR)
        if workflow.status not in open_ends:
            self._flawed(Flaw.LIMBO, "", key, workflow)

    def _flawed(self, flaw: Flaw, step: str, key: Key, workflow: Workflow) -> None:
        if (flaw, step) not in self.found.ways:
            self.found.ways[flaw, step] = Way(flaw, step, self._way(key), workflow)

    def _way(self, key: Key | None) -> tuple[Move, ...]:
        moves: list[Move] = []
        while key is not None:
            key, move = self._before[key]
            moves.append(move)
        return tuple(reversed(moves))


def flaws(definition: Definition, workflow: Workflow) -> Iterator[tuple[Flaw, str]]:
    """What is wrong with a state, and with which step."""
    for step in workflow.steps.values():
        if (flaw := _flaw(definition, workflow, step)) is not None:
            yield flaw, step.key.step


def _flaw(definition: Definition, workflow: Workflow, step: Step) -> Flaw | None:
    defined = definition.by_name[step.key.step]
    owes = step.may_have_effect and not defined.no_effect
    match workflow.status:
        case WorkflowStatus.COMPLETED if step.status is StepStatus.FAILED and owes:
            return Flaw.LEFT
        case WorkflowStatus.ROLLED_BACK if owes and step.status is not StepStatus.COMPENSATED:
            return Flaw.NOT_UNDONE
        case WorkflowStatus.ERROR if step.status is StepStatus.COMPENSATION_FAILED:
            return Flaw.NOT_RENDERED if defined.compensation else Flaw.NOT_UNDONE
        case WorkflowStatus.ERROR if not workflow.turning_back and _failed(definition, step):
            return Flaw.STUCK_AHEAD
        case _:
            return None


def _failed(definition: Definition, step: Step) -> bool:
    too_many = step.fan is not None and step.status in OPEN
    optional = definition.by_name[step.key.step].optional
    return (step.status is StepStatus.FAILED or too_many) and not step.is_item and not optional


def _shortened(space: Space, way: Way) -> Way:
    """The way without the moves that it does not need; later ones are tried first."""
    moves = way.moves
    for place in range(len(moves) - 1, 0, -1):
        without = (*moves[:place], *moves[place + 1 :])
        found = _replayed(space, without, way)
        if found is not None:
            moves, way = found.moves, found
    return way


def _replayed(space: Space, moves: tuple[Move, ...], way: Way) -> Way | None:
    """Go along `moves` as far as they are possible, until the same flaw is there."""
    made: list[Move] = []
    node: Node | None = None
    for move in moves:
        if node is None:
            options = space.starts(move.picks)
        else:
            options = space.after(node, move.what, move.key, move.picks)
        step = next(options, None)
        if step is None:
            continue
        made.append(step[0])
        node = step[1]
        if (way.flaw, way.step) in flaws(space.definition, node.workflow):
            return Way(way.flaw, way.step, tuple(made), node.workflow)
    return None
