"""What the transitions of a batch send to other workflows, and which workflows they start."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from sidecar.adapters.memory.tables import MemoryTables, Row
from sidecar.ports.store import LetterId, Missing, Transition, TransitionResult
from sidecar.saga import machine
from sidecar.saga.changes import Changes, Letter
from sidecar.saga.definition import Definition, Render
from sidecar.saga.workflow import DefinitionRef, WorkflowId


class Outbox:
    """Of one batch: its letters, those that it has brought, and the children in `rows`."""

    def __init__(
        self,
        definition: Callable[[DefinitionRef], Definition],
        render: Render,
        now: datetime,
        rows: dict[WorkflowId, Row],
    ) -> None:
        self._definition = definition
        self._render = render
        self._now = now
        self._rows = rows
        self._letters: dict[LetterId, Letter] = {}
        self.children: list[Changes] = []
        self._brought: set[LetterId] = set()

    def send(self, changes: Changes) -> None:
        """Keep the letters of a transition, and start its children, and theirs."""
        workflow = changes.workflow
        for letter in changes.letters:
            self._letters[LetterId(workflow.id, workflow.revision, letter.to)] = letter
        for child in changes.children:
            begun = machine.start(
                self._definition(child.definition),
                machine.child_of(child),
                now=self._now,
                render=self._render,
                actor="parent",
            )
            self._rows[child.id] = Row.begun(begun)
            self.children.append(begun)
            self.send(begun)

    def forget(
        self, transitions: Iterable[Transition], results: Iterable[TransitionResult]
    ) -> None:
        """Forget the letters that were brought, whatever came of it."""
        for one, result in zip(transitions, results, strict=True):
            if one.letter is not None and result is not Missing.LOCKED:
                self._brought.add(one.letter)

    def write(self, tables: MemoryTables) -> None:
        """Make it visible."""
        for known, letter in self._letters.items():
            tables.letters[known] = (self._now, letter)
        for known in self._brought:
            tables.letters.pop(known, None)
