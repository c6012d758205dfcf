"""What every way of sending notices owes: hints, soon, and never a fault for whoever gives them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from sidecar.ports.notices import Notice, Notices
from sidecar.saga.workflow import WorkflowId

SOON_S = 15.0


class NoticesBench(Protocol):
    """What a binding supplies."""

    def make_notices(self, service: str, *, namespace: str = "default") -> Notices:
        """New notices, not open yet; deadlines short enough for a test."""
        ...

    async def ready(self, heard: Heard) -> None:
        """Return when notices that were just opened hear what is announced."""
        ...


class Heard:
    """A subscriber that remembers."""

    def __init__(self) -> None:
        self.services: list[str] = []
        self.ended: list[WorkflowId] = []
        self._news = asyncio.Event()

    def __call__(self, notice: Notice) -> None:
        self.services += notice.services
        self.ended += notice.ended
        self._news.set()

    def forget(self) -> None:
        """Begin anew."""
        self.services.clear()
        self.ended.clear()

    async def until(self, enough: Callable[[], bool]) -> None:
        """Return when `enough()` is true of what was heard."""
        async with asyncio.timeout(SOON_S):
            while not enough():
                self._news.clear()
                await self._news.wait()


def workflow(number: int) -> WorkflowId:
    """A workflow id."""
    return WorkflowId(str(uuid.UUID(int=number)))


@asynccontextmanager
async def listening(
    bench: NoticesBench, service: str, *, namespace: str = "default"
) -> AsyncIterator[tuple[Notices, Heard]]:
    """Notices that are open and hear, and what they heard since."""
    notices, heard = bench.make_notices(service, namespace=namespace), Heard()
    notices.subscribe(heard)
    await notices.open()
    try:
        await bench.ready(heard)
        heard.forget()
        yield notices, heard
    finally:
        await notices.close()


class NoticesContract:
    """What holds for all of them."""

    async def test_a_ring_is_heard_by_the_service_it_names(self, bench: NoticesBench) -> None:
        async with (
            listening(bench, "orders") as (orders, by_orders),
            listening(bench, "payments") as (_, by_payments),
        ):
            orders.announce(services=["payments"])
            await by_payments.until(lambda: by_payments.services == ["payments"])
            orders.announce(ended=[workflow(1)])
            await by_orders.until(lambda: by_orders.ended == [workflow(1)])
            assert by_orders.services == []

    async def test_every_replica_hears_it(self, bench: NoticesBench) -> None:
        async with (
            listening(bench, "payments") as (_, one),
            listening(bench, "payments") as (sender, other),
        ):
            sender.announce(services=["payments"])
            await one.until(lambda: "payments" in one.services)
            await other.until(lambda: "payments" in other.services)

    async def test_an_end_is_heard_by_all(self, bench: NoticesBench) -> None:
        async with (
            listening(bench, "orders") as (orders, by_orders),
            listening(bench, "payments") as (_, by_payments),
        ):
            orders.announce(ended=[workflow(1), workflow(2)])
            for heard in (by_orders, by_payments):
                await heard.until(lambda one=heard: len(one.ended) == 2)  # type: ignore[misc]
                assert heard.ended == [workflow(1), workflow(2)]

    async def test_another_namespace_hears_nothing(self, bench: NoticesBench) -> None:
        async with (
            listening(bench, "payments", namespace="theirs") as (_, theirs),
            listening(bench, "payments", namespace="ours") as (sender, ours),
        ):
            sender.announce(services=["payments"], ended=[workflow(1)])
            await ours.until(lambda: bool(ours.ended and ours.services))
            assert theirs.services == []
            assert theirs.ended == []

    async def test_thousands_of_ends_at_once_all_arrive(self, bench: NoticesBench) -> None:
        many = [workflow(number) for number in range(5_000)]
        async with listening(bench, "orders") as (notices, heard):
            notices.announce(services=["orders"], ended=many)
            await heard.until(lambda: len(heard.ended) == len(many))
            assert heard.ended == many

    async def test_many_announcements_share_few_notices(self, bench: NoticesBench) -> None:
        async with listening(bench, "orders") as (notices, heard):
            for number in range(100):
                notices.announce(services=["orders"], ended=[workflow(number)])
            await heard.until(lambda: len(heard.ended) == 100)
            assert 1 <= len(heard.services) <= 3

    async def test_nothing_to_announce_is_fine(self, bench: NoticesBench) -> None:
        async with listening(bench, "orders") as (notices, heard):
            notices.announce()
            notices.announce(ended=[workflow(1)])
            await heard.until(lambda: heard.ended == [workflow(1)])

    async def test_whoever_unsubscribed_hears_no_more(self, bench: NoticesBench) -> None:
        async with listening(bench, "orders") as (notices, heard):
            gone = Heard()
            unsubscribe = notices.subscribe(gone)
            unsubscribe()
            unsubscribe()
            notices.announce(services=["orders"])
            await heard.until(lambda: bool(heard.services))
            assert gone.services == []

    async def test_a_subscriber_that_fails_does_not_silence_others(
        self, bench: NoticesBench
    ) -> None:
        def fail(notice: Notice) -> None:
            raise RuntimeError("a fault of the subscriber's own")

        async with listening(bench, "orders") as (notices, _):
            heard = Heard()
            notices.subscribe(fail)
            notices.subscribe(heard)
            notices.announce(services=["orders"])
            await heard.until(lambda: heard.services == ["orders"])

    async def test_what_was_announced_before_a_close_is_still_said(
        self, bench: NoticesBench
    ) -> None:
        async with listening(bench, "payments") as (_, heard):
            async with listening(bench, "orders") as (orders, _):
                orders.announce(services=["payments"])
            await heard.until(lambda: heard.services == ["payments"])

    async def test_closing_is_repeatable_and_announcing_never_raises(
        self, bench: NoticesBench
    ) -> None:
        notices = bench.make_notices("orders")
        notices.announce(services=["payments"])
        await notices.close()
        await notices.open()
        await notices.close()
        await notices.close()
        notices.announce(services=["payments"], ended=[workflow(1)])
