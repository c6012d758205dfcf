"""What a run was asked to do, what it may come to, and what it must have shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Rule(StrEnum):
    """The invariants that the checker claims; each has a planted violation in its unit test."""

    TERMINALITY = "terminality"
    COMPLETED = "completed"
    ROLLED_BACK = "rolled_back"
    ERROR = "error"
    ONE_END = "one_end"
    UNDO_ORDER = "undo_order"
    ORDER = "order"
    EFFECTS = "effects"
    SAME_BODY = "same_body"
    ONE_REQUEST = "one_request"
    DATA_FLOW = "data_flow"
    ITEMS = "items"
    """A fan-out had other items than its elements, or let too many be under way or fail."""
    CHILD = "child"
    """A child was started twice, or for nothing, or ended otherwise than its parent's step."""
    TREE = "tree"
    """A whole tree was not all done or all undone, or not in order."""
    ORPHAN = "orphan"
    """A child went on after its root had ended."""
    TURNS = "turns"
    """More workflows of one key were under way than may be."""
    RATE = "rate"
    """A path was called more often than its rate limit lets it."""
    NO_LOSS = "no_loss"
    AT_REST = "at_rest"
    HISTORY = "history"
    TRANSITION = "transition"
    ATTEMPTS = "attempts"
    CLAIMS = "claims"
    TRIES = "tries"
    """Something was tried more often than its policy allows, or the tries were miscounted."""
    BACK_OFF = "back_off"
    """Something was tried again sooner than its policy allows."""
    DUE = "due"
    """A deadline passed, a wait ended or a callback was given up before its time."""
    CONFORMANCE = "conformance"
    """A history is not one that the reference model can have, or led the rows elsewhere."""
    EPOCHS = "epochs"
    CANCEL = "cancel"
    LEAK = "leak"
    EXIT = "exit"
    """A sidecar ended by itself, and not in a way that the run allows."""
    VACUOUS = "vacuous"
    """Too little happened: the run proves nothing. Not a defect found, and not a pass."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong."""

    rule: Rule
    text: str
    workflow: str | None = None

    def __str__(self) -> str:
        where = f" {self.workflow}" if self.workflow else ""
        return f"[{self.rule}]{where} {self.text}"


@dataclass(frozen=True, slots=True)
class Start:
    """One start that was asked for; `workflow` is None as long as nobody knows whether it took.

    `ends` are the ends to which it may come when nothing disturbs it.
    """

    key: str
    definition: str
    input: Any
    ends: frozenset[str]
    workflow: str | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """One cancel that was asked for, and the status of its answer; None: nobody answered."""

    workflow: str
    status: int | None


@dataclass(frozen=True, slots=True)
class Exit:
    """A sidecar ended while it should have been running."""

    sidecar: str
    status: int


@dataclass(frozen=True, slots=True)
class Rate:
    """How often a path may be called: so often in so many seconds, over all sidecars."""

    limit: int
    per_s: float


@dataclass(frozen=True, slots=True)
class Expectations:
    """What is legal in this run, and what must have happened.

    `at_least` counts by name. From the tables: `completed`, `rolled_back`, `error`, `started`,
    `late_answer`, `children`, `items`, `skipped`, `tolerated`, `epochs`, `crowds`, and
    `cause:WORD` for the causes of events (`cause:claimed`, `cause:unknown`, which is also that of a
    lease that ended).
    From the ledger: `repeated`, `barred`, `too_late`, `refused`, `taken_on`, `called_back`, and
    `fault:KIND`. From the world: `kills`, `stops`, `restarts`, `cancels:202`, `cancels:409`,
    `doubtful`, `exits`, `proxy:COUNT` of all proxies and `proxy:SIDECAR:LEG:COUNT` of one.

    In a world that tests share, all of that counts since the test's beginning (`count_anew`).

    `also_legal` are ends that this run's faults allow besides each start's own, and
    `also_legal_for` those that they allow to workflows of one definition, `also_legal_to` to
    single ones by their ids. `exits` are the statuses with which a sidecar may end unasked.
    `clock_slack_s` is how much two moments of a history may be apart in the wrong way, since
    sidecars know the database's clock only roughly.
    """

    at_least: Mapping[str, int] = field(default_factory=dict)
    also_legal: frozenset[str] = frozenset()
    also_legal_for: Mapping[str, frozenset[str]] = field(default_factory=dict)
    also_legal_to: Mapping[str, frozenset[str]] = field(default_factory=dict)
    keys_honoured: bool = True
    exits: frozenset[int] = frozenset({-9})
    clock_slack_s: float = 0.25
    advisory_locks: int = 1
    """The leader's; one, since a run has one namespace."""
    open_files: int = 80
    """Of each sidecar: some 25, and a connection to its service for each of 32 slots."""
    rates: Mapping[str, Rate] = field(default_factory=dict)
    """The limits that the sidecars of this run have, by path."""
