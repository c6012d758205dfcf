"""What PostgreSQL says, as plain rows: all that the checker knows besides the ledger."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

ENDS = frozenset({"completed", "rolled_back", "error"})
OPEN = frozenset({"queued", "running", "retrying", "compensating"})
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


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step."""

    workflow: str
    step: str
    status: str
    leased: bool
    attempt: int
    comp_attempt: int
    may_have_effect: bool
    output: Any = None


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


@dataclass(frozen=True, slots=True)
class Graph:
    """What a definition demands: each step's predecessors, and which steps can be undone."""

    after: Mapping[str, tuple[str, ...]]
    undoable: frozenset[str]
    pivots: frozenset[str] = frozenset()

    def descendants(self, step: str) -> frozenset[str]:
        """All steps that come after this one."""
        found = {one for one, before in self.after.items() if step in before}
        return frozenset(found.union(*(self.descendants(one) for one in found)))

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Graph:
        """Read a registered definition; without `after` a step comes after the one above."""
        after: dict[str, tuple[str, ...]] = {}
        above: tuple[str, ...] = ()
        for step in document["steps"]:
            after[step["name"]] = tuple(step.get("after") or ()) if "after" in step else above
            above = (step["name"],)
        steps = document["steps"]
        return cls(
            after,
            frozenset(one["name"] for one in steps if one.get("compensate") != "none"),
            frozenset(one["name"] for one in steps if one.get("pivot")),
        )


@dataclass(frozen=True, slots=True)
class LeaderSample:
    """Who led, when somebody looked."""

    epoch: int
    holder: str


@dataclass(frozen=True, slots=True)
class Leaks:
    """What a sidecar may have forgotten in the server."""

    advisory_locks: int = 0
    stale_transactions: int = 0
    prepared: int = 0


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


def read_rows(
    connection: psycopg.Connection[Any],
    leaders: Sequence[LeaderSample],
    schema: str = "goconductor",
) -> Rows:
    """Read the tables; `leaders` are the samples that were taken meanwhile."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute(f"SET LOCAL search_path = {schema}".encode())
        fetch = connection.execute
        workflows = fetch(
            "SELECT id::text, definition, version, status, reason, last_seq, start_key"
            " FROM workflows ORDER BY id"
        ).fetchall()
        steps = fetch(
            "SELECT workflow_id::text, step, status, lease_until IS NOT NULL, attempt,"
            " comp_attempt, may_have_effect, output FROM steps ORDER BY workflow_id, step"
        ).fetchall()
        events = fetch(
            "SELECT workflow_id::text, seq, extract(epoch FROM time)::float8, kind, cause, step,"
            " action, before, after, attempt FROM events ORDER BY workflow_id, seq"
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
    )


def unfinished(connection: psycopg.Connection[Any], schema: str = "goconductor") -> int:
    """How many workflows have not ended, and steps are still open: none when all is at rest."""
    row = connection.execute(
        f"SELECT (SELECT count(*) FROM {schema}.workflows"  # noqa: S608
        " WHERE status NOT IN ('completed', 'rolled_back', 'error'))"
        f" + (SELECT count(*) FROM {schema}.steps WHERE lease_until IS NOT NULL OR status IN"
        " ('queued', 'running', 'retrying', 'compensating'))".encode()
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


def _leaks(connection: psycopg.Connection[Any]) -> Leaks:
    row = connection.execute(
        "SELECT (SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
        " WHERE d.datname = current_database() AND locktype = 'advisory'),"
        " (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%%'"
        " AND state_change < clock_timestamp() - make_interval(secs => %s)),"
        " (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database())",
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
