"""The claims of a batch: last in its transaction, and never waiting for a row.

A claim locks step rows alone. It reads the workflow's flags in the same statement and does not
raise the workflow's revision; the claim's line of history is written with its settlement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sidecar.adapters.postgres import rows
from sidecar.adapters.postgres.sql import Connection, Cursor, load, send
from sidecar.adapters.postgres.written import Key
from sidecar.ports.store import Batch, Claimed, Missing
from sidecar.saga.workflow import StepKey, WorkflowId

SQL = load(__file__)


class Claims:
    """The claims of one batch, from the statement to the answer.

    `repeated` says that an earlier try of the batch may have taken effect: then the claims
    under its ticket are the answer, and only what they leave open is claimed.
    """

    def __init__(self, connection: Connection, batch: Batch, *, repeated: bool) -> None:
        self._connection = connection
        self._batch = batch
        self._repeated = repeated
        self._wanted = frozenset(batch.claim_keys.keys if batch.claim_keys else ())
        self._by_key: Cursor | None = None
        self._due: Cursor | None = None
        self._found: dict[Key, Claimed] = {}

    async def ask(self, also: Sequence[Key]) -> None:
        """Send the claiming statements; `also` names steps that settlements want claimed."""
        batch = self._batch
        owner = {"owner": batch.incarnation, "ticket": batch.ticket}
        if self._repeated:
            await self._hear_claims(await send(self._connection, SQL["under_ticket"], **owner))
        asked = batch.claim_keys.keys if batch.claim_keys else ()
        wanted = [key for key in dict.fromkeys((*asked, *also)) if key not in self._found]
        values = {
            **owner,
            "namespace": batch.namespace,
            "service": batch.service,
            "margin_ms": round(batch.lease_margin.total_seconds() * 1000),
        }
        if wanted:
            keys = rows.packed([_key_record(key) for key in wanted])
            self._by_key = await send(self._connection, SQL["claim_keys"], keys=keys, **values)
        if batch.claim_due and not self._found:
            limit = batch.claim_due.limit
            self._due = await send(self._connection, SQL["claim_due"], limit=limit, **values)

    async def hear(self) -> tuple[Sequence[Claimed], Mapping[Key, Missing]]:
        """Return what was claimed, and for each key of the batch that was not, why not."""
        refused: dict[Key, Missing] = {}
        for row in await self._by_key.fetchall() if self._by_key else ():
            key = (
                WorkflowId(row["wanted_workflow"]),
                StepKey(row["wanted_step"], row["wanted_idx"]),
            )
            if row["workflow_id"] is not None:
                self._found[key] = rows.claimed_of(row)
            elif key in self._wanted:
                refused[key] = _why(row)
        if self._due is not None:
            await self._hear_claims(self._due)
        return tuple(self._found.values()), refused

    async def _hear_claims(self, cursor: Cursor) -> None:
        for row in await cursor.fetchall():
            one = rows.claimed_of(row)
            self._found[one.workflow, one.key] = one


def _why(row: rows.Row) -> Missing:
    if not row["known"]:
        return Missing.UNKNOWN
    if not row["claimable"]:
        return Missing.NOT_CLAIMABLE
    return Missing.LOCKED if row["due"] else Missing.NOT_DUE


def _key_record(key: Key) -> dict[str, str | int]:
    workflow, step = key
    return {"workflow_id": workflow, "step": step.step, "idx": step.index}
