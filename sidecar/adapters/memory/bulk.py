"""Bulk jobs in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from sidecar.adapters.memory.handle import MemoryHandle
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
from sidecar.saga.workflow import Workflow, WorkflowId

OLD_AFTER = timedelta(days=7)
"""A job that has ended is a leader's to forget after so long."""


class MemoryBulk(MemoryHandle):
    """See `sidecar.ports.bulk.BulkJobs`."""

    async def select_bulk(
        self, namespace: str, wanted: BulkFilter, limit: int, show: int
    ) -> Selection:
        """Tell what a filter would find; nothing is kept."""
        self.check_open()
        found = self._found(namespace, wanted)
        return Selection(min(len(found), limit), len(found) > limit, tuple(found[:limit][:show]))

    async def begin_bulk(self, job: NewBulkJob) -> BulkJob:
        """Choose the workflows and keep the job."""
        self.check_open()
        found = self._found(job.namespace, job.filter)
        now = self.clock.now()
        chosen = found[: job.limit]
        kept = BulkJob(
            id=job.id,
            namespace=job.namespace,
            verb=job.verb,
            arguments=job.arguments,
            filter=job.written,
            actor=job.actor,
            status=BulkStatus.RUNNING if chosen else BulkStatus.DONE,
            selected=len(chosen),
            more=len(found) > job.limit,
            done=0,
            refused=0,
            failed=0,
            holder=job.holder,
            moved_at=now,
            created_at=now,
            ended_at=None if chosen else now,
        )
        self.tables.bulk.jobs[job.id] = kept
        members = [BulkMember(number, known) for number, known in enumerate(chosen, 1)]
        self.tables.bulk.members[job.id] = members
        return kept

    async def get_bulk(self, namespace: str, job: str) -> BulkJob | None:
        """Return a job."""
        self.check_open()
        found = self.tables.bulk.jobs.get(job)
        return found if found is not None and found.namespace == namespace else None

    async def list_bulk(self, namespace: str, before: str | None, limit: int) -> Sequence[BulkJob]:
        """Return jobs, the newest first."""
        self.check_open()
        jobs = self.tables.bulk.jobs
        ids = sorted((one for one in jobs if before is None or one < before), reverse=True)
        return [jobs[one] for one in ids if jobs[one].namespace == namespace][:limit]

    async def bulk_members(
        self, job: str, after: int, limit: int, result: BulkResult | None = None
    ) -> Sequence[BulkMember]:
        """Return the workflows of a job in their order, all or those with this result."""
        self.check_open()
        members = self.tables.bulk.members.get(job, [])
        wanted = [one for one in members[after:] if result in (None, one.result)]
        return wanted[:limit]

    async def stop_bulk(self, namespace: str, job: str) -> BulkJob | None:
        """Stop a job that is running; return it as it is then."""
        self.check_open()
        found = await self.get_bulk(namespace, job)
        if found is not None and found.status is BulkStatus.RUNNING:
            stopped = replace(found, status=BulkStatus.STOPPED, ended_at=self.clock.now())
            self.tables.bulk.jobs[job] = stopped
        return self.tables.bulk.jobs[job] if found is not None else None

    async def take_bulk(self, job: str, holder: str, quiet_for: timedelta) -> BulkJob | None:
        """Take over a running job that is one's own or has not got on for so long; else None."""
        self.check_open()
        found = self.tables.bulk.jobs.get(job)
        if found is None or found.status is not BulkStatus.RUNNING:
            return None
        if found.holder != holder and found.moved_at >= self.clock.now() - quiet_for:
            return None
        taken = replace(found, holder=holder, moved_at=self.clock.now())
        self.tables.bulk.jobs[job] = taken
        return taken

    async def next_bulk(self, job: str, holder: str, limit: int) -> Sequence[BulkMember] | None:
        """Return those whose turn is next; None unless the job is running and `holder`'s."""
        self.check_open()
        found = self.tables.bulk.jobs.get(job)
        if found is None or found.holder != holder or found.status is not BulkStatus.RUNNING:
            return None
        return [one for one in self.tables.bulk.members[job] if one.result is None][:limit]

    async def record_bulk(
        self, job: str, holder: str, results: Sequence[BulkMember]
    ) -> BulkStatus | None:
        """Keep what became of some; None unless the job is `holder`'s."""
        self.check_open()
        found = self.tables.bulk.jobs.get(job)
        if found is None or found.holder != holder:
            return None
        members = self.tables.bulk.members[job]
        told: Counter[BulkResult | None] = Counter()
        for one in results:
            earlier = members[one.number - 1]
            if earlier.result is None:
                members[one.number - 1] = replace(earlier, result=one.result, detail=one.detail)
                told[one.result] += 1
        now = self.clock.now()
        moved = replace(
            found,
            moved_at=now,
            done=found.done + told[BulkResult.DONE],
            refused=found.refused + told[BulkResult.REFUSED],
            failed=found.failed + told[BulkResult.FAILED],
        )
        if moved.status is BulkStatus.RUNNING and all(one.result for one in members):
            moved = replace(moved, status=BulkStatus.DONE, ended_at=now)
        self.tables.bulk.jobs[job] = moved
        return moved.status

    async def quiet_bulk(self, namespace: str, quiet_for: timedelta, limit: int) -> Sequence[str]:
        """Return running jobs that have not got on for so long."""
        self.check_open()
        before = self.clock.now() - quiet_for
        found = sorted(
            (one.moved_at, one.id)
            for one in self.tables.bulk.jobs.values()
            if one.namespace == namespace
            and one.status is BulkStatus.RUNNING
            and one.moved_at < before
        )
        return [job for _, job in found[:limit]]

    async def forget_bulk(
        self, namespace: str, ended_for: timedelta, epoch: Epoch, limit: int
    ) -> int:
        """Delete jobs that ended so long ago, at most so many members."""
        self.check_open()
        self.check_epoch(namespace, epoch)
        before = self.clock.now() - ended_for
        forgotten = 0
        for job in list(self.tables.bulk.jobs.values()):
            if job.namespace == namespace and job.ended_at is not None and job.ended_at < before:
                members = self.tables.bulk.members[job.id]
                gone = members[: max(0, limit - forgotten)]
                forgotten += len(gone)
                del members[: len(gone)]
                if not members:
                    forgotten += 1
                    del self.tables.bulk.jobs[job.id], self.tables.bulk.members[job.id]
        return forgotten

    def has_old_bulk(self, namespace: str) -> bool:
        """Whether there are jobs to be forgotten."""
        before = self.clock.now() - OLD_AFTER
        jobs = (one for one in self.tables.bulk.jobs.values() if one.namespace == namespace)
        return any(one.ended_at is not None and one.ended_at < before for one in jobs)

    def _found(self, namespace: str, wanted: BulkFilter) -> list[WorkflowId]:
        return sorted(
            known
            for known, row in self.tables.rows.items()
            if row.namespace == namespace and _matches(row.workflow, wanted)
        )


def _matches(workflow: Workflow, wanted: BulkFilter) -> bool:
    ref, created = workflow.definition, workflow.created_at
    return (
        (not wanted.status or workflow.status in wanted.status)
        and wanted.definition in (None, ref.name)
        and wanted.version in (None, ref.version)
        and wanted.labels.items() <= workflow.labels.items()
        and (wanted.created_before is None or created < wanted.created_before)
        and (wanted.created_after is None or created > wanted.created_after)
    )
