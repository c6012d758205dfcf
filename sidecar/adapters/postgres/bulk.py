"""Bulk jobs on PostgreSQL: the job, and a row for each workflow that it chose."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import orjson

from sidecar.adapters.postgres.reading import Reading
from sidecar.adapters.postgres.sql import load, send
from sidecar.errors import StaleEpoch
from sidecar.ports.bulk import (
    BulkFilter,
    BulkJob,
    BulkMember,
    BulkResult,
    BulkStatus,
    NewBulkJob,
    Selection,
)
from sidecar.ports.store import Epoch
from sidecar.saga.workflow import WorkflowId

SQL = load(__file__)


class PostgresBulk:
    """See `sidecar.ports.bulk.BulkJobs`."""

    readers: Reading
    vital: Reading

    async def select_bulk(
        self, namespace: str, wanted: BulkFilter, limit: int, show: int
    ) -> Selection:
        """Tell what a filter would find; nothing is kept."""
        values = _values(namespace, wanted, limit)
        (row,) = await self.readers.rows(SQL["select_bulk"], **values, show=min(show, limit))
        first = tuple(WorkflowId(one) for one in row["first"])
        return Selection(min(row["count"], limit), row["count"] > limit, first)

    async def begin_bulk(self, job: NewBulkJob) -> BulkJob:
        """Choose the workflows and keep the job."""
        values = _values(job.namespace, job.filter, job.limit)
        async with self.readers.transaction() as connection:
            chosen = await send(connection, SQL["choose"], **values, id=job.id)
            found = (await chosen.fetchall())[0]["count"]
            await send(
                connection,
                SQL["begin_bulk"],
                id=job.id,
                namespace=job.namespace,
                verb=job.verb,
                arguments=job.arguments,
                written=job.written,
                actor=job.actor,
                selected=min(found, job.limit),
                more=found > job.limit,
                holder=job.holder,
            )
            kept = await send(connection, SQL["get_bulk"], namespace=job.namespace, id=job.id)
            (row,) = await kept.fetchall()
        return _job(row)

    async def get_bulk(self, namespace: str, job: str) -> BulkJob | None:
        """Return a job."""
        found = await self.readers.rows(SQL["get_bulk"], namespace=namespace, id=job)
        return _job(found[0]) if found else None

    async def list_bulk(self, namespace: str, before: str | None, limit: int) -> Sequence[BulkJob]:
        """Return jobs, the newest first."""
        names = {"namespace": namespace, "before": before, "limit": limit}
        return [_job(row) for row in await self.readers.rows(SQL["list_bulk"], **names)]

    async def bulk_members(
        self, job: str, after: int, limit: int, result: BulkResult | None = None
    ) -> Sequence[BulkMember]:
        """Return the workflows of a job in their order, all or those with this result."""
        found = await self.readers.rows(
            SQL["members"], id=job, after=after, limit=limit, result=result and result.value
        )
        return [_member(row) for row in found]

    async def stop_bulk(self, namespace: str, job: str) -> BulkJob | None:
        """Stop a job that is running; return it as it is then."""
        await self.readers.rows(SQL["stop_bulk"], namespace=namespace, id=job)
        return await self.get_bulk(namespace, job)

    async def take_bulk(self, job: str, holder: str, quiet_for: timedelta) -> BulkJob | None:
        """Take over a running job that is one's own or has not got on for so long; else None."""
        found = await self.readers.rows(
            SQL["take_bulk"], id=job, holder=holder, quiet_for=quiet_for
        )
        return _job(found[0]) if found else None

    async def next_bulk(self, job: str, holder: str, limit: int) -> Sequence[BulkMember] | None:
        """Return those whose turn is next; None unless the job is running and `holder`'s."""
        found = await self.readers.rows(SQL["next_bulk"], id=job, holder=holder, limit=limit)
        if not found:
            return None
        return [
            BulkMember(row["number"], WorkflowId(row["workflow"]))
            for row in found
            if row["number"] is not None
        ]

    async def record_bulk(
        self, job: str, holder: str, results: Sequence[BulkMember]
    ) -> BulkStatus | None:
        """Keep what became of some; None unless the job is `holder`'s."""
        told = [
            {"number": one.number, "result": one.result, "detail": one.detail} for one in results
        ]
        found = await self.readers.rows(
            SQL["record_bulk"], id=job, holder=holder, results=orjson.dumps(told).decode()
        )
        return BulkStatus(found[0]["status"]) if found else None

    async def quiet_bulk(self, namespace: str, quiet_for: timedelta, limit: int) -> Sequence[str]:
        """Return running jobs that have not got on for so long."""
        values = {"namespace": namespace, "quiet_for": quiet_for, "limit": limit}
        return [row["id"] for row in await self.vital.rows(SQL["quiet_bulk"], **values)]

    async def forget_bulk(
        self, namespace: str, ended_for: timedelta, epoch: Epoch, limit: int
    ) -> int:
        """Delete jobs that ended so long ago. Raises `StaleEpoch`."""
        values = {"namespace": namespace, "epoch": epoch.number, "limit": limit}
        (row,) = await self.vital.rows(SQL["forget_bulk"], **values, ended_for=ended_for)
        if not row["fences"]:
            raise StaleEpoch(f"epoch {epoch.number} is no longer in force")
        return int(row["forgotten"])


def _values(namespace: str, wanted: BulkFilter, limit: int) -> dict[str, Any]:
    return {
        "namespace": namespace,
        "statuses": sorted(wanted.status) or None,
        "definition": wanted.definition,
        "version": wanted.version,
        "labels": orjson.dumps(dict(wanted.labels)).decode(),
        "before": wanted.created_before,
        "since": wanted.created_after,
        "limit": limit,
    }


def _job(row: dict[str, Any]) -> BulkJob:
    return BulkJob(**{**row, "status": BulkStatus(row["status"])})


def _member(row: dict[str, Any]) -> BulkMember:
    result = row["result"]
    return BulkMember(
        row["number"],
        WorkflowId(row["workflow"]),
        BulkResult(result) if result else None,
        row["detail"],
    )
