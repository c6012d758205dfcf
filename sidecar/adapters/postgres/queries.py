"""The queries of the PostgreSQL store, apart from its commits.

What keeps a sidecar alive and a leader leading (the heartbeat, the proof that the store answers,
the duties) is asked on connections of its own: however slow the questions of clients are, and
however many, no sidecar falls silent by them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import orjson

from sidecar.adapters.postgres import records, rows
from sidecar.adapters.postgres.bulk import PostgresBulk
from sidecar.adapters.postgres.catalogues import PostgresCatalogues
from sidecar.adapters.postgres.debts import PostgresDebts
from sidecar.adapters.postgres.gathering import Gathering
from sidecar.adapters.postgres.rates import PostgresRates
from sidecar.adapters.postgres.reading import Reading
from sidecar.adapters.postgres.sql import ask, load, send
from sidecar.adapters.postgres.versions import PostgresVersions, stored_definition
from sidecar.errors import StaleEpoch
from sidecar.ports.queue import Doorbell
from sidecar.ports.records import (
    Holder,
    LeaderWork,
    Lease,
    Ringable,
    SidecarBeat,
    SidecarRecord,
    StoredLetter,
    WorkflowFilter,
)
from sidecar.ports.store import Epoch
from sidecar.ports.versions import StoredDefinition
from sidecar.saga.changes import HistoryEvent
from sidecar.saga.definition import JsonText
from sidecar.saga.states import Action, StepStatus, WorkflowStatus
from sidecar.saga.turns import InLine, TurnKey
from sidecar.saga.workflow import Step, StepKey, Workflow, WorkflowId

SQL = load(__file__)


class PostgresQueries(
    PostgresVersions, PostgresCatalogues, PostgresDebts, PostgresBulk, PostgresRates
):
    """Everything but `commit`. `readers` answer clients, `vital` what must not wait for them."""

    def __init__(self, readers: Reading, vital: Reading) -> None:
        self.readers = readers
        self.vital = vital
        self._reads = Gathering(self._whole)

    async def _rows(self, statement: str, /, **values: Any) -> list[dict[str, Any]]:
        return await self.readers.rows(SQL[statement], **values)

    async def _vital_rows(self, statement: str, /, **values: Any) -> list[dict[str, Any]]:
        return await self.vital.rows(SQL[statement], **values)

    async def ping(self) -> None:
        """Raise `StoreUnavailable` unless the store answers."""
        await self._vital_rows("ping")

    # -- definitions --------------------------------------------------------------------------

    async def put_definition(
        self, namespace: str, name: str, document: JsonText, digest: str
    ) -> tuple[StoredDefinition, bool]:
        """Keep a definition, which is current from now on; True if it is new."""
        names = {"namespace": namespace, "name": name, "hash": digest}
        async with self.readers.transaction() as connection:
            await send(connection, SQL["lock_definition"], **names)
            new = await send(connection, SQL["put_definition"], **names, document=document)
            (row,) = await new.fetchall()
        created = row.pop("created")
        return stored_definition(row), created

    async def get_definition(
        self, namespace: str, name: str, version: int | None = None
    ) -> StoredDefinition | None:
        """Return a version, or the current one."""
        names = {"namespace": namespace, "name": name, "version": version}
        found = await self._rows("definition_by_version", **names)
        return stored_definition(found[0]) if found else None

    async def list_definitions(
        self, namespace: str, after: str | None, limit: int
    ) -> Sequence[StoredDefinition]:
        """Return the current version of each name, by name."""
        names = {"namespace": namespace, "after": after, "limit": limit}
        return [stored_definition(row) for row in await self._rows("list_definitions", **names)]

    async def get_key(self, namespace: str, name: str, suggested: bytes) -> bytes:
        """Return a key that all sidecars of a namespace share; the first suggestion is kept."""
        names = {"namespace": namespace, "name": name}
        await self._rows("suggest_key", **names, key=suggested)
        return bytes((await self._rows("get_key", **names))[0]["key"])

    # -- workflows ------------------------------------------------------------------------------

    async def get_workflow(self, namespace: str, workflow: WorkflowId) -> Workflow | None:
        """Return one workflow, without the items of fan-outs."""
        found = await self._reads.get(workflow)
        return found if found is not None and found.definition.namespace == namespace else None

    async def _whole(self, workflows: Sequence[WorkflowId]) -> Mapping[WorkflowId, Workflow]:
        """Return those that exist."""
        values = {"ids": orjson.dumps(workflows).decode()}
        found = await self.readers.on_a_live_connection(
            lambda connection: ask(connection, SQL["get_workflows"], values)
        )
        return rows.whole_workflows(found)

    async def list_items(
        self, workflow: WorkflowId, step: str, after_index: int, limit: int
    ) -> Sequence[Step]:
        """Return the items of a fan-out with their bodies, by their index."""
        found = await self._rows(
            "list_items", id=workflow, step=step, after=after_index, limit=limit
        )
        return [rows.item_of(row) for row in found]

    async def is_current(
        self, workflow: WorkflowId, step: StepKey, action: Action, attempt: int
    ) -> bool:
        """Whether this is the newest attempt of its step and action, and has not ended."""
        found = await self._rows(
            "is_current",
            id=workflow,
            step=step.step,
            idx=step.index,
            action=action.value,
            attempt=attempt,
        )
        return bool(found[0]["current"])

    async def list_workflows(self, namespace: str, wanted: WorkflowFilter) -> Sequence[Workflow]:
        """Return workflows without their steps and bodies, newest first."""
        found = await self._rows(
            "list_workflows",
            namespace=namespace,
            after=wanted.after,
            statuses=sorted(wanted.status) or None,
            definition=wanted.definition,
            labels=orjson.dumps(dict(wanted.labels)).decode(),
            limit=wanted.limit,
        )
        return [rows.workflow_of(row) for row in found]

    async def list_events(
        self, workflow: WorkflowId, after_seq: int, limit: int
    ) -> Sequence[HistoryEvent]:
        """Return a workflow's history in its order."""
        found = await self._rows("list_events", id=workflow, after=after_seq, limit=limit)
        return [rows.event_of(row) for row in found]

    async def statuses(
        self, workflows: Sequence[WorkflowId]
    ) -> Mapping[WorkflowId, WorkflowStatus]:
        """Return the statuses of those that exist."""
        found = await self._rows("statuses", ids=list(workflows))
        return {WorkflowId(row["id"]): WorkflowStatus(row["status"]) for row in found}

    # -- sidecars -------------------------------------------------------------------------------

    async def beat(self, beat: SidecarBeat) -> None:
        """Write that a sidecar is alive."""
        await self._vital_rows("beat", **asdict(beat))

    async def leave(self, incarnation: str) -> None:
        """Write that a sidecar has gone for good."""
        await self._vital_rows("leave", incarnation=incarnation)

    async def list_sidecars(
        self, namespace: str, seen_within: timedelta | None = None
    ) -> Sequence[SidecarRecord]:
        """Return the sidecars known, or those seen within so long, by service."""
        found = await self._rows("list_sidecars", namespace=namespace, within=seen_within)
        return [
            SidecarRecord(
                started_at=row.pop("started_at"),
                seen_at=row.pop("seen_at"),
                beat=SidecarBeat(**row),
            )
            for row in found
        ]

    # -- the leader -------------------------------------------------------------------------------

    async def mint_epoch(self, namespace: str, holder: str) -> Epoch:
        """Begin a term."""
        found = await self._vital_rows("mint_epoch", namespace=namespace, holder=holder)
        return Epoch(found[0]["epoch"])

    async def leader_work(
        self, namespace: str, unseen_for: timedelta, due_for: timedelta | None
    ) -> LeaderWork:
        """Tell which of the leader's questions would find anything."""
        values = {"namespace": namespace, "unseen": unseen_for, "due_for": due_for}
        return LeaderWork(**(await self._vital_rows("leader_work", **values))[0])

    async def ended_leases(
        self, namespace: str, unseen_for: timedelta, limit: int
    ) -> Sequence[Lease]:
        """Return leases that are over, and those of sidecars that are."""
        values = {"namespace": namespace, "unseen": unseen_for, "limit": limit}
        leases = []
        for row in await self._vital_rows("ended_leases", **values):
            undoing = row["status"] == StepStatus.COMPENSATING
            asking = row["status"] == StepStatus.IN_DOUBT
            forward = Action.STATUS if asking else Action.EXECUTE
            leases.append(
                Lease(
                    WorkflowId(row["workflow_id"]),
                    StepKey(row["step"], row["idx"]),
                    Action.COMPENSATE if undoing else forward,
                    row["comp_attempt"] if undoing else row["attempt"],
                    row["lease_until"],
                )
            )
        return leases

    async def due_timers(self, namespace: str, limit: int) -> Sequence[tuple[WorkflowId, StepKey]]:
        """Return steps that have waited long enough."""
        found = await self._vital_rows("due_timers", namespace=namespace, limit=limit)
        return [(WorkflowId(row["workflow_id"]), StepKey(row["step"], row["idx"])) for row in found]

    async def waiting_letters(
        self, namespace: str, older_than: timedelta, limit: int
    ) -> Sequence[StoredLetter]:
        """Return letters that nobody has brought for so long, the oldest first."""
        values = {"namespace": namespace, "older_than": older_than, "limit": limit}
        return [rows.letter_of(row) for row in await self._vital_rows("waiting_letters", **values)]

    async def next_turns(
        self, turns: Sequence[TurnKey], limit: int, *, without: Collection[WorkflowId] = ()
    ) -> Sequence[tuple[TurnKey, InLine]]:
        """Return those that can be admitted now, key by key: all keys by one statement."""
        found = await self._rows(
            "next_turns",
            turns=records.packed([records.turn_record(one) for one in turns]),
            limit=limit,
            without=list(without),
        )
        return [(turns[row["n"] - 1], rows.in_line_of(row)) for row in found]

    async def free_turns(
        self, namespace: str, limit: int, after: TurnKey | None = None
    ) -> Sequence[TurnKey]:
        """Return keys for which somebody waits although there is a place, a page at a time."""
        last = after or TurnKey(namespace, "", "")
        found = await self._vital_rows(
            "free_turns",
            namespace=namespace,
            limit=limit,
            after_definition=last.definition,
            after_step=last.step,
            after_turn=last.key,
        )
        return [rows.turn_key_of(row) for row in found]

    async def turn_holders(self, turn: TurnKey) -> Sequence[Holder]:
        """Return some of those that have the places, those first that have had one for longest."""
        found = await self._rows("turn_holders", **records.turn_record(turn))
        return [
            Holder(rows.in_line_of(row), WorkflowStatus(row["status"]), row["paused"])
            for row in found
        ]

    async def overdue_workflows(self, namespace: str, limit: int) -> Sequence[WorkflowId]:
        """Return workflows whose deadline has passed."""
        found = await self._vital_rows("overdue_workflows", namespace=namespace, limit=limit)
        return [WorkflowId(row["id"]) for row in found]

    async def ringable_steps(
        self,
        namespace: str,
        unseen_for: timedelta,
        due_for: timedelta,
        limit: int,
        after: Mapping[str, Ringable] | None = None,
    ) -> Sequence[Ringable]:
        """Return steps that nobody has claimed for so long, of each service a page."""
        ended = dict(after or {})
        values = {
            "namespace": namespace,
            "unseen": unseen_for,
            "services": list(ended),
            "after_rank": [one.rank.replace(tzinfo=None) for one in ended.values()],
            "after_workflow": [one.doorbell.workflow for one in ended.values()],
            "after_step": [one.doorbell.key.step for one in ended.values()],
            "after_idx": [one.doorbell.key.index for one in ended.values()],
            "due_for": due_for,
            "limit": limit,
        }
        return [
            Ringable(
                Doorbell(
                    WorkflowId(row["workflow_id"]),
                    StepKey(row["step"], row["idx"]),
                    row["service"],
                    row["trace"],
                ),
                row["due_at"],
                row["rank"],
            )
            for row in await self._vital_rows("ringable_steps", **values)
        ]

    async def forget_sidecars(self, namespace: str, unseen_for: timedelta, epoch: Epoch) -> int:
        """Delete what is known of sidecars unseen for so long. Raises `StaleEpoch`."""
        values = {"namespace": namespace, "unseen": unseen_for, "epoch": epoch.number}
        row = (await self._vital_rows("forget_sidecars", **values))[0]
        if not row["fences"]:
            raise StaleEpoch(f"epoch {epoch.number} is no longer in force")
        return int(row["forgotten"])
