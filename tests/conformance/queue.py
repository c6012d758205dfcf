"""What every queue owes, whatever it is made of.

An adapter's binding subclasses `MessageQueueContract` and, from `queue_faults`,
`MessageQueueFaultContract`; or `SameStoreQueueContract` if its capability `same_store` says that
the store is the queue. It gives the fixture `bench`.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import pytest

from sidecar.errors import QueueUnavailable
from sidecar.ports.queue import Delivery, Doorbell, Queue, Refused
from sidecar.saga.workflow import StepKey, WorkflowId

SOON_S = 20.0
SHORT_S = 0.2


class QueueBench(Protocol):
    """What a binding supplies: queues of one namespace, and ways to hurt what is behind them."""

    def make_queue(self, service: str) -> Queue:
        """A new queue, not open yet; deadlines short enough for a test."""
        ...

    async def put_raw(self, service: str, payload: bytes) -> None:
        """Put a message on a service's destination past the adapter."""
        ...

    async def cut(self) -> None:
        """Take the broker away, without a word."""
        ...

    async def restore(self) -> None:
        """Bring it back as it was; harmless if it was never away."""
        ...

    async def freeze(self) -> None:
        """Let the broker answer nothing while its connections stay open."""
        ...

    async def thaw(self) -> None:
        """Let it answer again; harmless if it was never frozen."""
        ...

    async def remove_destination(self, service: str) -> None:
        """Delete the destination of a service, with all that is in it."""
        ...


def bell(number: int, service: str = "payments", trace: str | None = None) -> Doorbell:
    """A doorbell that differs from all of other numbers."""
    return Doorbell(WorkflowId(str(uuid.UUID(int=number))), StepKey("charge"), service, trace)


def bells(numbers: Iterable[int], service: str = "payments") -> list[Doorbell]:
    """Many of them."""
    return [bell(number, service) for number in numbers]


@asynccontextmanager
async def opened(queue: Queue) -> AsyncIterator[Queue]:
    """The queue open, and closed at the end."""
    await queue.open()
    try:
        yield queue
    finally:
        await queue.close()


async def take(
    queue: Queue, count: int, *, limit: int = 100, ack: bool = True
) -> list[Delivery | Refused]:
    """Receive until `count` messages came, through broker trouble if there is any."""
    taken: list[Delivery | Refused] = []
    async with asyncio.timeout(SOON_S):
        while len(taken) < count:
            try:
                got = await queue.receive(limit, 1.0)
            except QueueUnavailable:
                continue
            taken += got
            if ack:
                await queue.ack(got)
    return taken


async def take_all(queue: Queue, wanted: Sequence[Doorbell]) -> Counter[Doorbell]:
    """Receive until every one of `wanted` came at least once; how often each came."""
    seen: Counter[Doorbell] = Counter()
    async with asyncio.timeout(SOON_S):
        while not set(wanted) <= set(seen):
            seen.update(rung(await take(queue, 1)))
    return seen


async def nothing_comes(queue: Queue) -> bool:
    """Whether a second passes without a delivery."""
    end = asyncio.get_running_loop().time() + 1.0
    while asyncio.get_running_loop().time() < end:
        if await queue.receive(100, SHORT_S):
            return False
    return True


def rung(deliveries: Iterable[Delivery | Refused]) -> list[Doorbell]:
    """The doorbells among what came."""
    return [one.doorbell for one in deliveries if isinstance(one, Delivery)]


async def seconds(work: Awaitable[object]) -> float:
    """How long something takes."""
    began = asyncio.get_running_loop().time()
    await work
    return asyncio.get_running_loop().time() - began


class QueueContract:
    """What holds for every queue."""

    async def test_closing_twice_is_fine(self, bench: QueueBench) -> None:
        queue = bench.make_queue("payments")
        await queue.open()
        await queue.close()
        await queue.close()

    async def test_closing_what_was_never_open_is_fine(self, bench: QueueBench) -> None:
        await bench.make_queue("payments").close()

    async def test_a_wait_in_vain_ends_in_time(self, bench: QueueBench) -> None:
        async with opened(bench.make_queue("payments")) as queue:
            await queue.receive(10, 1.0)  # an early hint is allowed
            assert await seconds(queue.receive(10, SHORT_S)) < SHORT_S + 1.0

    async def test_publishing_nothing_is_fine(self, bench: QueueBench) -> None:
        async with opened(bench.make_queue("payments")) as queue:
            await queue.publish([])

    async def test_a_ring_ends_a_wait_early(self, bench: QueueBench) -> None:
        async with (
            opened(bench.make_queue("orders")) as sender,
            opened(bench.make_queue("payments")) as receiver,
        ):
            await sender.publish([bell(0)])
            await receiver.ack(await receiver.receive(10, SOON_S))
            waiting = asyncio.create_task(seconds(receiver.receive(10, SOON_S)))
            await asyncio.sleep(0)
            await sender.publish([bell(1)])
            assert await waiting < SOON_S / 2

    async def test_paused_it_receives_nothing_and_resumed_it_does(self, bench: QueueBench) -> None:
        async with opened(bench.make_queue("payments")) as queue:
            await queue.pause()
            await queue.publish([bell(1)])
            assert await queue.receive(10, SHORT_S) == ()
            await queue.resume()
            assert await seconds(queue.receive(10, SOON_S)) < SOON_S / 2


class SameStoreQueueContract(QueueContract):
    """What a queue without messages owes: it wakes whoever waits, and keeps nothing."""

    async def test_it_says_that_it_is_in_the_store(self, bench: QueueBench) -> None:
        assert bench.make_queue("payments").capabilities.same_store

    async def test_receiving_gives_nothing(self, bench: QueueBench) -> None:
        async with opened(bench.make_queue("payments")) as queue:
            await queue.publish([bell(1)])
            assert list(await queue.receive(10, SHORT_S)) == []
            await queue.ack([])

    async def test_a_ring_for_another_service_wakes_nobody(self, bench: QueueBench) -> None:
        async with opened(bench.make_queue("payments")) as queue:
            await queue.receive(10, 1.0)
            await queue.receive(10, SHORT_S)
            await queue.publish([bell(1, "inventory")])
            assert await seconds(queue.receive(10, SHORT_S)) >= SHORT_S * 0.9

    async def test_a_ring_between_two_receives_is_not_lost(self, bench: QueueBench) -> None:
        async with opened(bench.make_queue("payments")) as queue:
            await queue.receive(10, SHORT_S)
            await queue.publish([bell(1)])
            assert await seconds(queue.receive(10, SOON_S)) < SOON_S / 2


class MessageQueueContract(QueueContract):
    """What a queue with messages owes: at-least-once, whatever happens."""

    async def test_it_says_that_it_carries_messages(self, bench: QueueBench) -> None:
        assert not bench.make_queue("payments").capabilities.same_store

    async def test_a_doorbell_arrives_as_it_was(self, bench: QueueBench) -> None:
        trace = f"00-{'a' * 32}-{'b' * 16}-01"
        item = Doorbell(bell(2).workflow, StepKey("reserve", 7), "payments", trace)
        async with opened(bench.make_queue("payments")) as queue:
            await queue.publish([bell(1), item])
            assert set(rung(await take(queue, 2))) == {bell(1), item}

    async def test_never_more_than_the_limit(self, bench: QueueBench) -> None:
        async with opened(bench.make_queue("payments")) as queue:
            await queue.publish(bells(range(10)))
            first = await take(queue, 1, limit=3)
            assert 1 <= len(first) <= 3
            rest = await take(queue, 10 - len(first), limit=3)
            assert {*rung(first), *rung(rest)} == set(bells(range(10)))

    async def test_many_at_once(self, bench: QueueBench) -> None:
        async with opened(bench.make_queue("payments")) as queue:
            await queue.publish(bells(range(1000)))
            assert await take_all(queue, bells(range(1000)))

    async def test_what_was_acknowledged_does_not_come_back(self, bench: QueueBench) -> None:
        async with opened(bench.make_queue("payments")) as queue:
            await queue.publish(bells(range(20)))
            await take(queue, 20)
        async with opened(bench.make_queue("payments")) as queue:
            await queue.publish([bell(99)])
            assert rung(await take(queue, 1)) == [bell(99)]
            assert await nothing_comes(queue)

    @pytest.mark.fault(4)
    async def test_what_was_not_acknowledged_comes_back(self, bench: QueueBench) -> None:
        async with opened(bench.make_queue("payments")) as queue:
            await queue.publish(bells(range(20)))
            held = await take(queue, 20, ack=False)
            open_still = rung(held[::2])
            await queue.ack(held[1::2])
        async with opened(bench.make_queue("payments")) as queue:
            assert await take_all(queue, open_still)

    @pytest.mark.fault(51)
    async def test_a_late_ack_of_another_life_is_harmless(self, bench: QueueBench) -> None:
        async with opened(bench.make_queue("payments")) as queue:
            await queue.publish([bell(1)])
            late = await take(queue, 1, ack=False)
            await queue.pause()
            await queue.resume()
            again = await take(queue, 1, ack=False)
            await queue.ack(late)
            await queue.ack(again)
            await queue.ack(again)
            assert rung(again) == [bell(1)]

    async def test_each_service_hears_its_own(self, bench: QueueBench) -> None:
        async with (
            opened(bench.make_queue("payments")) as payments,
            opened(bench.make_queue("inventory")) as inventory,
        ):
            await payments.publish([bell(1), bell(2, "inventory")])
            assert rung(await take(payments, 1)) == [bell(1)]
            assert rung(await take(inventory, 1)) == [bell(2, "inventory")]

    async def test_a_service_that_never_ran_finds_what_was_rung(self, bench: QueueBench) -> None:
        async with opened(bench.make_queue("payments")) as payments:
            await payments.publish([bell(1, "shipping")])
        async with opened(bench.make_queue("shipping")) as shipping:
            assert rung(await take(shipping, 1)) == [bell(1, "shipping")]

    async def test_two_consumers_share_the_work(self, bench: QueueBench) -> None:
        async with (
            opened(bench.make_queue("payments")) as one,
            opened(bench.make_queue("payments")) as other,
        ):
            by_one: Counter[Doorbell] = Counter()
            by_other: Counter[Doorbell] = Counter()
            sent = 0
            async with asyncio.timeout(SOON_S):
                while not (by_one and by_other and len(by_one | by_other) == sent):
                    await one.publish(bells(range(sent, sent + 50)))
                    sent += 50
                    for queue, seen in ((one, by_one), (other, by_other)):
                        got = await queue.receive(10, SHORT_S)
                        seen.update(rung(got))
                        await queue.ack(got)
                    if by_one and by_other:
                        for queue, seen in ((one, by_one), (other, by_other)):
                            while got := await queue.receive(100, SHORT_S):
                                seen.update(rung(got))
                                await queue.ack(got)
            await one.publish(bells(range(10_000, 10_200)))
            halves = await asyncio.gather(_drain(one), _drain(other))
            assert halves[0] + halves[1] == Counter(bells(range(10_000, 10_200)))

    @pytest.mark.fault(51)
    async def test_members_that_come_and_go_lose_nothing(self, bench: QueueBench) -> None:
        wanted = bells(range(300))
        seen: Counter[Doorbell] = Counter()
        async with opened(bench.make_queue("payments")) as steady:

            async def come_and_go() -> None:
                for round_ in range(3):
                    async with opened(bench.make_queue("payments")) as guest:
                        await steady.publish(wanted[round_ * 100 : round_ * 100 + 100])
                        got = await guest.receive(10, 1.0)
                        await guest.ack(got[1:])  # it leaves with one delivery open
                        seen.update(rung(got[1:]))

            async with asyncio.timeout(SOON_S), asyncio.TaskGroup() as group:
                group.create_task(come_and_go())
                while not set(wanted) <= set(seen):
                    got = await steady.receive(50, SHORT_S)
                    seen.update(rung(got))
                    await steady.ack(got)

    async def test_pausing_leaves_the_work_to_others(self, bench: QueueBench) -> None:
        async with opened(bench.make_queue("payments")) as one:
            await one.publish(bells(range(10)))
            await take(one, 10, ack=False)
            async with opened(bench.make_queue("payments")) as other:
                await one.pause()
                assert await take_all(other, bells(range(10)))

    @pytest.mark.parametrize(
        "poison",
        [
            b"",
            b"not json",
            b"\xff\xfe\x00",
            b"[]",
            b'{"v":2,"w":"00000000-0000-0000-0000-000000000001","s":"a"}',
            b'{"v":1,"w":"1","s":"charge"}',
            b'{"v":1,"w":"00000000-0000-0000-0000-000000000001"}',
            b"[" * 100_000,
        ],
        ids=["empty", "text", "bytes", "array", "version", "workflow", "step", "deep"],
    )
    @pytest.mark.fault(61)
    async def test_poison_is_refused_and_blocks_nothing(
        self, bench: QueueBench, poison: bytes
    ) -> None:
        async with opened(bench.make_queue("payments")) as queue:
            await bench.put_raw("payments", poison)
            await queue.publish([bell(1)])
            came = await take(queue, 2)
            refused = [one for one in came if isinstance(one, Refused)]
            assert rung(came) == [bell(1)]
            assert refused[0].reason
            assert poison.startswith(refused[0].sample)

    async def test_a_cancelled_receive_loses_nothing(self, bench: QueueBench) -> None:
        wanted = bells(range(200))
        seen: Counter[Doorbell] = Counter()
        async with opened(bench.make_queue("payments")) as queue:

            async def keep_publishing() -> None:
                for start in range(0, 200, 5):
                    await queue.publish(wanted[start : start + 5])

            async def receive_and_ack() -> None:
                got = await queue.receive(7, 1.0)
                seen.update(rung(got))
                await queue.ack(got)

            async with asyncio.timeout(SOON_S), asyncio.TaskGroup() as group:
                group.create_task(keep_publishing())
                turns = 0
                while not set(wanted) <= set(seen):
                    task = asyncio.create_task(receive_and_ack())
                    turns += 1
                    if turns % 2:
                        for _ in range(turns % 5):
                            await asyncio.sleep(0)
                        task.cancel()
                    await asyncio.gather(task, return_exceptions=True)


async def _drain(queue: Queue) -> Counter[Doorbell]:
    """Receive and acknowledge until nothing comes for a while."""
    seen: Counter[Doorbell] = Counter()
    while got := await queue.receive(100, 1.0):
        seen.update(rung(got))
        await queue.ack(got)
    return seen
