"""Bulk jobs: what they choose, whose they are, what became of each workflow."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from sidecar.errors import StaleEpoch
from sidecar.ports.bulk import (
    BulkFilter,
    BulkJob,
    BulkMember,
    BulkResult,
    BulkStatus,
    NewBulkJob,
)
from sidecar.ports.store import Store
from sidecar.saga.definition import JsonText
from sidecar.saga.states import WorkflowStatus
from sidecar.saga.workflow import WorkflowId
from tests.conformance.store_play import (
    Backend,
    Player,
    StoreFixtures,
    assert_utc,
    call,
    new_id,
    register,
)

QUIET = timedelta(seconds=20)
WEEK = timedelta(days=7)
DONE, REFUSED, FAILED = BulkResult.DONE, BulkResult.REFUSED, BulkResult.FAILED


async def begin(store: Store, limit: int = 100, **wanted: Any) -> BulkJob:
    """Begin a job of the sidecar `one`."""
    job = NewBulkJob(
        id=new_id(),
        namespace="default",
        verb="cancel",
        arguments=JsonText('{"reason":"enough"}'),
        filter=BulkFilter(**wanted),
        written=JsonText('{"definition":"order"}'),
        actor="ada",
        holder="one",
        limit=limit,
    )
    return await store.begin_bulk(job)


def told(members: list[BulkMember], *results: BulkResult) -> list[BulkMember]:
    """What became of the first of them."""
    pairs = zip(members, results, strict=False)
    return [BulkMember(one.number, one.workflow, result, "why") for one, result in pairs]


class BulkSuite(StoreFixtures):
    """What a store promises of bulk jobs."""

    async def some(self, store: Store, payments: Player, number: int) -> list[WorkflowId]:
        """So many workflows of `order`."""
        definition = await register(store, call("charge"))
        return [await payments.start(definition) for _ in range(number)]

    # -- choosing -----------------------------------------------------------------------------

    async def test_a_filter_finds_what_fits_all_of_it(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("charge"))
        other = await register(store, call("charge"), name="other")
        later = await register(store, call("pay"))
        old = await payments.start(definition, labels={"shop": "north", "day": "1"})
        ended = await payments.start(definition)
        await payments.cancel(ended)
        await backend.pass_time(3600)
        new = [await payments.start(one) for one in (definition, other, later)]
        middle = (await payments.see(new[0])).created_at - timedelta(minutes=30)

        async def found(**wanted: Any) -> list[WorkflowId]:
            selection = await store.select_bulk("default", BulkFilter(**wanted), 100, 100)
            assert (selection.count, selection.more) == (len(selection.first), False)
            return list(selection.first)

        assert await found() == [old, ended, *new]
        assert await found(definition="order") == [old, ended, new[0], new[2]]
        assert await found(definition="order", version=2) == [new[2]]
        assert await found(status=frozenset({WorkflowStatus.ROLLED_BACK})) == [ended]
        assert await found(labels={"shop": "north"}) == [old]
        assert await found(labels={"shop": "south"}) == []
        assert await found(created_before=middle) == [old, ended]
        assert await found(created_after=middle, definition="other") == [new[1]]
        assert (await store.select_bulk("elsewhere", BulkFilter(), 9, 9)).count == 0

    async def test_a_limit_takes_the_oldest_and_says_that_there_is_more(
        self, store: Store, payments: Player
    ) -> None:
        workflows = await self.some(store, payments, 3)
        selection = await store.select_bulk("default", BulkFilter(), 2, 1)
        assert (selection.count, selection.more) == (2, True)
        assert selection.first == (workflows[0],)
        job = await begin(store, limit=2)
        assert (job.selected, job.more, job.status) == (2, True, BulkStatus.RUNNING)
        members = await store.bulk_members(job.id, 0, 10)
        assert [(one.number, one.workflow, one.result) for one in members] == [
            (1, workflows[0], None),
            (2, workflows[1], None),
        ]
        exact = await begin(store, limit=3)
        assert (exact.selected, exact.more) == (3, False)

    async def test_what_was_chosen_stays_chosen(self, store: Store, payments: Player) -> None:
        workflows = await self.some(store, payments, 2)
        job = await begin(store, status=frozenset({WorkflowStatus.IN_PROGRESS}))
        await payments.cancel(workflows[0])
        await self.some(store, payments, 1)
        members = await store.next_bulk(job.id, "one", 10)
        assert members is not None
        assert [one.workflow for one in members] == workflows

    async def test_a_job_that_chose_nothing_is_done(self, store: Store) -> None:
        job = await begin(store)
        assert (job.status, job.selected, job.done) == (BulkStatus.DONE, 0, 0)
        assert_utc(job.ended_at)
        assert await store.next_bulk(job.id, "one", 10) is None

    # -- doing --------------------------------------------------------------------------------

    async def test_results_are_kept_once_and_end_the_job(
        self, store: Store, payments: Player
    ) -> None:
        await self.some(store, payments, 4)
        job = await begin(store)
        members = list(await store.next_bulk(job.id, "one", 3) or ())
        assert [one.number for one in members] == [1, 2, 3]
        first = told(members, DONE, REFUSED)
        assert await store.record_bulk(job.id, "one", first) is BulkStatus.RUNNING
        again = told(members, FAILED, FAILED, FAILED)
        assert await store.record_bulk(job.id, "one", again) is BulkStatus.RUNNING
        last = list(await store.next_bulk(job.id, "one", 3) or ())
        assert [one.number for one in last] == [4]
        assert await store.record_bulk(job.id, "one", told(last, DONE)) is BulkStatus.DONE
        ended = await store.get_bulk("default", job.id)
        assert ended is not None
        assert (ended.done, ended.refused, ended.failed) == (2, 1, 1)
        assert (ended.verb, ended.arguments, ended.actor) == (job.verb, job.arguments, "ada")
        assert ended.filter == job.filter
        assert ended.ended_at is not None
        page = await store.bulk_members(job.id, 1, 2)
        assert [(one.number, one.result, one.detail) for one in page] == [
            (2, REFUSED, "why"),
            (3, FAILED, "why"),
        ]
        only = await store.bulk_members(job.id, 0, 10, DONE)
        assert [one.number for one in only] == [1, 4]
        assert await store.get_bulk("elsewhere", job.id) is None

    async def test_a_job_belongs_to_one_sidecar_until_it_falls_quiet(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        await self.some(store, payments, 2)
        job = await begin(store)
        assert await store.next_bulk(job.id, "two", 10) is None
        assert await store.take_bulk(job.id, "two", QUIET) is None
        assert await store.take_bulk(job.id, "one", QUIET) is not None
        assert await store.quiet_bulk("default", QUIET, 10) == []
        await backend.pass_time(21)
        work = await store.leader_work("default", QUIET, None)
        assert work.bulk
        assert list(await store.quiet_bulk("default", QUIET, 10)) == [job.id]
        assert await store.quiet_bulk("elsewhere", QUIET, 10) == []
        taken = await store.take_bulk(job.id, "two", QUIET)
        assert taken is not None
        assert taken.holder == "two"
        assert await store.take_bulk(job.id, "three", QUIET) is None
        assert not (await store.leader_work("default", QUIET, None)).bulk
        members = list(await store.next_bulk(job.id, "two", 10) or ())
        assert await store.record_bulk(job.id, "one", told(members, FAILED)) is None
        assert await store.record_bulk(job.id, "two", told(members, DONE)) is BulkStatus.RUNNING
        kept = await store.bulk_members(job.id, 0, 10)
        assert [one.result for one in kept] == [DONE, None]

    async def test_getting_on_keeps_a_job(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        await self.some(store, payments, 2)
        job = await begin(store)
        members = list(await store.next_bulk(job.id, "one", 1) or ())
        await backend.pass_time(15)
        await store.record_bulk(job.id, "one", told(members, DONE))
        await backend.pass_time(15)
        assert await store.take_bulk(job.id, "two", QUIET) is None

    async def test_a_job_is_stopped_for_good(self, store: Store, payments: Player) -> None:
        await self.some(store, payments, 2)
        job = await begin(store)
        members = list(await store.next_bulk(job.id, "one", 10) or ())
        for _ in range(2):
            stopped = await store.stop_bulk("default", job.id)
            assert stopped is not None
            assert stopped.status is BulkStatus.STOPPED
        assert await store.next_bulk(job.id, "one", 10) is None
        assert await store.take_bulk(job.id, "one", QUIET) is None
        # What was under way had taken effect: it is told.
        under_way = told(members, DONE, REFUSED)
        assert await store.record_bulk(job.id, "one", under_way) is BulkStatus.STOPPED
        ended = await store.get_bulk("default", job.id)
        assert ended is not None
        assert (ended.status, ended.done, ended.refused) == (BulkStatus.STOPPED, 1, 1)
        assert ended.ended_at == stopped.ended_at
        assert await store.stop_bulk("elsewhere", job.id) is None
        assert await store.stop_bulk("default", new_id()) is None

    # -- looking and forgetting ---------------------------------------------------------------

    async def test_jobs_are_listed_newest_first(self, store: Store) -> None:
        jobs = [(await begin(store)).id for _ in range(3)]
        page = await store.list_bulk("default", None, 2)
        assert [one.id for one in page] == [jobs[2], jobs[1]]
        rest = await store.list_bulk("default", jobs[1], 2)
        assert [one.id for one in rest] == [jobs[0]]
        assert await store.list_bulk("elsewhere", None, 2) == []

    async def test_old_jobs_are_forgotten_by_the_leader_alone_some_members_at_a_time(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        await self.some(store, payments, 3)
        old = await begin(store)
        await store.stop_bulk("default", old.id)
        running = await begin(store)
        stale: datetime = old.moved_at
        assert_utc(stale)
        await backend.pass_time(WEEK.total_seconds() + 1)
        young = await begin(store)
        await store.stop_bulk("default", young.id)
        before = await store.mint_epoch("default", "one")
        epoch = await store.mint_epoch("default", "two")
        with pytest.raises(StaleEpoch):
            await store.forget_bulk("default", WEEK, before, 10)
        assert (await store.leader_work("default", WEEK * 2, None)).bulk
        while await store.forget_bulk("default", WEEK, epoch, 2):
            pass
        assert await store.get_bulk("default", old.id) is None
        assert await store.bulk_members(old.id, 0, 10) == []
        for kept in (running, young):
            assert len(await store.bulk_members(kept.id, 0, 10)) == 3
        assert not (await store.leader_work("default", WEEK * 2, None)).bulk
