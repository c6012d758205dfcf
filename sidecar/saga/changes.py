"""What a transition writes: the machine's output."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from sidecar.saga.definition import JsonText
from sidecar.saga.events import Told
from sidecar.saga.states import Action
from sidecar.saga.turns import Stand
from sidecar.saga.workflow import (
    NO_INDEX,
    DefinitionRef,
    Parent,
    Signal,
    Step,
    Workflow,
    WorkflowId,
)


class Verdict(StrEnum):
    """What became of an event."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    """It had been applied before; nothing is written."""
    LATE = "late"
    """It speaks of an attempt that is no longer current; only the history keeps it."""
    IGNORED = "ignored"
    """There was nothing to do, and that is fine; nothing is written."""


class HistoryEvent(Struct, frozen=True):
    """One line of a workflow's history.

    `kind` is `workflow`, `step`, `compensation`, `signal`, `operator`, `child` or `parent` (what
    those tell that changes no status), `late_answer`, `deadline_ignored` or `deadline_deferred`;
    `step` is None for the workflow's own; `before` and `after` are statuses; `cause` says in a word
    why; `actor` who; `details` is an object with what else they said.
    """

    seq: int
    time: datetime
    kind: str
    cause: str
    actor: str
    step: str | None = None
    index: int = NO_INDEX
    action: Action | None = None
    before: str | None = None
    after: str | None = None
    attempt: int | None = None
    details: JsonText | None = None


class NewItems(Struct, frozen=True):
    """The elements of a fan-out that begins: `elements` is a JSON list of `count` values."""

    step: str
    elements: JsonText
    count: int


class ChildStart(Struct, frozen=True):
    """A child that a step begins. `deadline_at` is its parent's; its own may come sooner."""

    id: WorkflowId
    parent: Parent
    definition: DefinitionRef
    input: JsonText
    deadline_at: datetime | None = None
    trace: str | None = None


class Letter(Struct, frozen=True):
    """An event for another workflow: kept with the transition, and brought to it afterwards.

    It may be brought more than once.
    """

    to: WorkflowId
    event: Told


class Changes(Struct, frozen=True):
    """The result of `start` or `advance`.

    `workflow` is the whole new state; `steps` are those of its steps that changed, in the
    order in which they did; `queued` are those among them that can now be claimed (at once or
    at their `due_at`). `takes_away` says that steps other than the one the event speaks of
    were taken out of the reach of a claim, so that their rows must be locked before the
    decision is made. `items` are the elements of fan-outs that have begun. `kept` are signals to
    be kept, `taken` the numbers of those that were kept and are not any more. `children` are to be
    started in the same transaction, and `letters` to be kept in it. `turns` say who waits for a
    place from now on, or has one, or neither any more. `ended` is true when the workflow has just
    reached a status at which waiting for it returns.
    """

    workflow: Workflow
    verdict: Verdict = Verdict.APPLIED
    steps: tuple[Step, ...] = ()
    queued: tuple[Step, ...] = ()
    events: tuple[HistoryEvent, ...] = ()
    items: tuple[NewItems, ...] = ()
    kept: tuple[Signal, ...] = ()
    taken: tuple[int, ...] = ()
    children: tuple[ChildStart, ...] = ()
    letters: tuple[Letter, ...] = ()
    turns: tuple[Stand, ...] = ()
    takes_away: bool = False
    ended: bool = False

    @property
    def writes(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.events or self.steps or self.letters)
