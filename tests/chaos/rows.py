"""What PostgreSQL says, as plain rows: all that the checker knows besides the ledger."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tests.chaos.graphs import Graph

ENDS = frozenset({"completed", "rolled_back", "error"})
OPEN = frozenset({"queued", "running", "waiting", "retrying", "in_doubt", "compensating"})
_STALE_S = 2.0
"""A transaction that rests for longer has been forgotten."""


@dataclass(frozen=True, slots=True)
class WorkflowRow:
    """One workflow."""

    id: str
    definition: str
    version: int
    status: str
    reason: str | None
    last_seq: int
    start_key: str | None
    parent: str | None = None
    parent_step: str | None = None
    """The step of the parent that runs it; `STEP[INDEX]` for an item."""
    turn: str | None = None
    turn_limit: int | None = None
    deadline: float | None = None
    """In seconds, like the times of events."""


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step, or an item: then it is called `STEP[INDEX]`. `items` is how many a fan-out has."""

    workflow: str
    step: str
    status: str
    leased: bool
    attempt: int
    comp_attempt: int
    may_have_effect: bool
    output: Any = None
    items: int | None = None
    turn: str | None = None
    tries: int | None = None
    comp_tries: int | None = None
    """What the policies have counted; None where nobody has looked."""


@dataclass(frozen=True, slots=True)
class EventRow:
    """One line of a history; `time` in seconds."""

    workflow: str
    seq: int
    time: float
    kind: str
    cause: str
    step: str | None = None
    action: str | None = None
    before: str | None = None
    after: str | None = None
    attempt: int | None = None
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class LeaderSample:
    """Who led, when somebody looked."""

    epoch: int
    holder: str


@dataclass(frozen=True, slots=True)
class Crowd:
    """How many had a place of one key at a moment: workflows, or with `step` steps of theirs."""

    definition: str
    step: str
    turn: str
    number: int


@dataclass(frozen=True, slots=True)
class Leaks:
    """What a sidecar may have forgotten in the server."""

    advisory_locks: int = 0
    stale_transactions: int = 0
    prepared: int = 0
    letters: int = 0
    """What parents and children have told each other and nobody has brought."""
    places: int = 0
    """Places of workflows and steps that are not under way, and those who wait for one in vain."""


@dataclass(frozen=True)
class Rows:
    """Everything, read in one snapshot."""

    workflows: Sequence[WorkflowRow] = ()
    steps: Sequence[StepRow] = ()
    events: Sequence[EventRow] = ()
    graphs: Mapping[tuple[str, int], Graph] = field(default_factory=dict)
    start_keys: Mapping[str, str] = field(default_factory=dict)
    """The workflow that each start key stands for."""
    leaders: Sequence[LeaderSample] = ()
    leaks: Leaks = Leaks()
    crowds: Sequence[Crowd] = ()
    """The most that were seen of each key at a moment."""


def read_rows(
    connection: psycopg.Connection[Any],
    leaders: Sequence[LeaderSample],
    crowds: Sequence[Crowd] = (),
    schema: str = "goconductor",
) -> Rows:
    """Read the tables; `leaders` and `crowds` are the samples that were taken meanwhile."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute(f"SET LOCAL search_path = {schema}".encode())
        fetch = connection.execute
        workflows = fetch(
            "SELECT id::text, definition, version, status, reason, last_seq, start_key,"  # noqa: S608
            f" parent_id::text, {_named('parent_step', 'parent_idx')}, turn, turn_limit,"
            " extract(epoch FROM deadline_at)::float8 FROM workflows ORDER BY id".encode()
        ).fetchall()
        steps = fetch(
            f"SELECT workflow_id::text, {_named('step', 'idx')}, status,"  # noqa: S608
            " lease_until IS NOT NULL, attempt, comp_attempt, may_have_effect, output,"
            " (fan->>'total')::int, turn, tries, comp_tries FROM steps"
            " ORDER BY workflow_id, step, idx".encode()
        ).fetchall()
        events = fetch(
            "SELECT workflow_id::text, seq, extract(epoch FROM time)::float8, kind, cause,"  # noqa: S608
            f" {_named('step', 'idx')}, action, before, after, attempt, actor FROM events"
            " ORDER BY workflow_id, seq".encode()
        ).fetchall()
        documents = fetch("SELECT name, version, document FROM definitions").fetchall()
        keys = fetch("SELECT start_key, workflow_id::text FROM start_keys").fetchall()
        leaks = _leaks(connection)
    return Rows(
        [WorkflowRow(*row) for row in workflows],
        [StepRow(*row) for row in steps],
        [EventRow(*row) for row in events],
        {(name, version): Graph.read(_plain(text)) for name, version, text in documents},
        dict(keys),
        leaders,
        leaks,
        crowds,
    )


def _named(step: str, index: str) -> str:
    """The SQL of how a step or an item is called."""
    return f"CASE WHEN {index} >= 0 THEN format('%s[%s]', {step}, {index}) ELSE {step} END"


def unfinished(connection: psycopg.Connection[Any], schema: str = "goconductor") -> int:
    """How many workflows have not ended, steps are open, letters on their way: none at rest."""
    row = connection.execute(
        f"SELECT (SELECT count(*) FROM {schema}.workflows"  # noqa: S608
        " WHERE status NOT IN ('completed', 'rolled_back', 'error'))"
        f" + (SELECT count(*) FROM {schema}.steps WHERE lease_until IS NOT NULL OR status IN"
        " ('queued', 'running', 'waiting', 'retrying', 'in_doubt', 'compensating'))"
        f" + (SELECT count(*) FROM {schema}.letters)".encode()
    ).fetchone()
    return int(row[0]) if row else 0


def ended(connection: psycopg.Connection[Any], schema: str = "goconductor") -> int:
    """How many workflows have ended, or stand in error."""
    row = connection.execute(
        f"SELECT count(*) FROM {schema}.workflows"  # noqa: S608
        " WHERE status IN ('completed', 'rolled_back', 'error')".encode()
    ).fetchone()
    return int(row[0]) if row else 0


def read_leader(
    connection: psycopg.Connection[Any], schema: str = "goconductor"
) -> LeaderSample | None:
    """Who leads now, if anybody ever did."""
    row = connection.execute(f"SELECT epoch, holder FROM {schema}.leaders".encode()).fetchone()  # noqa: S608
    return LeaderSample(*row) if row else None


def read_crowds(
    connection: psycopg.Connection[Any], schema: str = "goconductor"
) -> Sequence[Crowd]:
    """Who is under way now of those that take turns, by their statuses and not by their places.

    A child that is turned back by its parent goes on without a place.
    """
    rows = connection.execute(
        f"SELECT definition, '', turn, count(*)::int FROM {schema}.workflows"  # noqa: S608
        " WHERE turn IS NOT NULL AND (status = 'in_progress'"
        " OR (status = 'rolling_back' AND parent_id IS NULL)) GROUP BY definition, turn"
        f" UNION ALL SELECT w.definition, s.step, s.turn, count(*)::int FROM {schema}.steps s"
        f" JOIN {schema}.workflows w ON w.id = s.workflow_id WHERE s.turn IS NOT NULL"
        " AND (s.status IN ('queued', 'running', 'retrying', 'in_doubt')"
        " OR (s.status = 'waiting' AND s.awaiting)) GROUP BY w.definition, s.step, s.turn".encode()
    ).fetchall()
    return [Crowd(*row) for row in rows]


def _leaks(connection: psycopg.Connection[Any]) -> Leaks:
    row = connection.execute(
        "SELECT (SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
        " WHERE d.datname = current_database() AND locktype = 'advisory'"
        " AND classid::bigint NOT BETWEEN 24768 AND 24771),"  # those end with their transactions
        " (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%%'"
        " AND state_change < clock_timestamp() - make_interval(secs => %s)),"
        " (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()),"
        " (SELECT count(*) FROM letters),"
        " (SELECT count(*) FROM turns t LEFT JOIN workflows w ON w.id = t.workflow_id"
        " LEFT JOIN steps s ON (s.workflow_id, s.step, s.idx) = (t.workflow_id, t.step, t.idx)"
        " WHERE w.status IS NULL OR w.status IN ('queued', 'completed', 'rolled_back',"
        " 'terminated') OR (t.step <> '' AND (s.status IS NULL OR s.status NOT IN ('queued',"
        " 'running', 'waiting', 'retrying', 'in_doubt'))))",
        (_STALE_S,),
    ).fetchone()
    return Leaks(*row) if row else Leaks()


def _plain(document: Any) -> Any:
    return json.loads(document) if isinstance(document, str) else document


def leases(connection: psycopg.Connection[Any], owner: str, schema: str = "goconductor") -> int:
    """How many steps an incarnation holds."""
    row = connection.execute(
        f"SELECT count(*) FROM {schema}.steps WHERE lease_until IS NOT NULL"  # noqa: S608
        " AND owner = %s".encode(),
        (owner,),
    ).fetchone()
    return int(row[0]) if row else 0
