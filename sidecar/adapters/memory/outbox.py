"""What the transitions of a batch send to other workflows, and which workflows they start."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from sidecar.adapters.memory.tables import MemoryTables, Row
from sidecar.errors import StoreDataError
from sidecar.ports.store import LetterId, Missing, Transition, TransitionResult
from sidecar.saga import machine
from sidecar.saga.changes import Changes, Letter
from sidecar.saga.children import MOST_AT_ONCE
from sidecar.saga.definition import Definition, Render
from sidecar.saga.invariants import crowded, misplaced
from sidecar.saga.turns import InLine, Stand, Standing, TurnKey
from sidecar.saga.workflow import DefinitionRef, Workflow, WorkflowId


class Outbox:
    """Of one batch: its letters, those that it has brought, and the children in `rows`."""

    def __init__(
        self,
        definition: Callable[[DefinitionRef], Definition],
        render: Render,
        now: datetime,
        tables: MemoryTables,
        rows: dict[WorkflowId, Row],
    ) -> None:
        self._definition = definition
        self._render = render
        self._now = now
        self._tables = tables
        self._rows = rows
        self._turns: dict[TurnKey, dict[InLine, Stand]] = {}
        self._full: set[TurnKey] = set()
        self._letters: dict[LetterId, Letter] = {}
        self.children: list[Changes] = []
        self._brought: set[LetterId] = set()

    def send(self, changes: Changes) -> None:
        """Keep the letters of a transition, and start its children, and theirs."""
        workflow = changes.workflow
        for stand in changes.turns:
            line = self._line(stand.turn)
            if stand.standing is Standing.NONE:
                line.pop(stand.who, None)
            else:
                line[stand.who] = stand
        for letter in changes.letters:
            self._letters[LetterId(workflow.id, workflow.revision, letter.to)] = letter
        for child in changes.children:
            if len(self.children) >= MOST_AT_ONCE:
                raise StoreDataError(f"more than {MOST_AT_ONCE} children would start at once")
            definition = self._definition(child.definition)
            begun = machine.start(
                definition,
                machine.child_of(child),
                now=self._now,
                render=self._render,
                actor="parent",
            )
            self._rows[child.id] = Row.begun(begun, definition)
            self.children.append(begun)
            self.send(begun)

    def has_place(self, turn: TurnKey, limit: int) -> bool:
        """Whether there is a place for one more; who finds none is overtaken by nobody."""
        placed = (one.standing is Standing.HAS_PLACE for one in self._line(turn).values())
        if turn in self._full or sum(placed) >= limit:
            self._full.add(turn)
            return False
        return True

    def misplaced(self, definition: Definition, workflow: Workflow) -> list[str]:
        """What is wrong with the places of a workflow, as they are to be written."""
        return misplaced(definition, workflow, self._standing)

    def crowded(self) -> list[str]:
        """Where more are to have a place than may."""
        return [text for line in self._turns.values() for text in crowded(line.values())]

    def _standing(self, turn: TurnKey, who: InLine) -> Standing:
        found = self._line(turn).get(who)
        return Standing.NONE if found is None else found.standing

    def _line(self, turn: TurnKey) -> dict[InLine, Stand]:
        """Those who wait for a place or have one, as the batch has it so far."""
        if turn not in self._turns:
            self._turns[turn] = dict(self._tables.turns.get(turn, {}))
        return self._turns[turn]

    def forget(
        self, transitions: Iterable[Transition], results: Iterable[TransitionResult]
    ) -> None:
        """Forget the letters that were brought, whatever came of it."""
        for one, result in zip(transitions, results, strict=True):
            if one.letter is not None and result is not Missing.LOCKED:
                self._brought.add(one.letter)

    def write(self, tables: MemoryTables) -> None:
        """Make it visible."""
        for turn, line in self._turns.items():
            if line:
                tables.turns[turn] = line
            else:
                tables.turns.pop(turn, None)
        for known, letter in self._letters.items():
            tables.letters[known] = (self._now, letter)
        for known in self._brought:
            tables.letters.pop(known, None)
