"""What a queue with messages owes while its broker is away, silent, restarted or emptied."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from sidecar.errors import QueueUnavailable
from sidecar.ports.queue import Doorbell, Queue
from tests.conformance.queue import (
    SOON_S,
    QueueBench,
    bell,
    bells,
    opened,
    rung,
    seconds,
    take,
    take_all,
)

CLOSE_WITHIN_S = 5.0
PUBLISH_WITHIN_S = 10.0


async def publish_until_taken(queue: Queue, doorbells: Sequence[Doorbell]) -> None:
    """Publish, again and again while the broker is in trouble."""
    async with asyncio.timeout(SOON_S):
        while True:
            try:
                await queue.publish(doorbells)
            except QueueUnavailable:
                await asyncio.sleep(0)
            else:
                return


class MessageQueueFaultContract:
    """Every call ends in time, and what was published before or after is not lost."""

    @pytest.mark.fault(56)
    async def test_publishing_without_a_broker_fails_in_time(self, bench: QueueBench) -> None:
        async with opened(bench.make_queue("payments")) as queue:
            await queue.publish([bell(1)])
            await bench.cut()
            try:
                for number in range(2):
                    began = asyncio.get_running_loop().time()
                    with pytest.raises(QueueUnavailable):
                        await queue.publish([bell(number)])
                    assert asyncio.get_running_loop().time() - began < PUBLISH_WITHIN_S
            finally:
                await bench.restore()

    async def test_opening_without_a_broker_fails_and_later_works(self, bench: QueueBench) -> None:
        queue = bench.make_queue("payments")
        await bench.cut()
        try:
            with pytest.raises(QueueUnavailable):
                await queue.open()
        finally:
            await bench.restore()
        async with opened(queue):
            await publish_until_taken(queue, [bell(1)])
            assert rung(await take(queue, 1)) == [bell(1)]

    async def test_closing_without_a_broker_ends_in_time(self, bench: QueueBench) -> None:
        queue = bench.make_queue("payments")
        await queue.open()
        await queue.publish([bell(1)])
        await take(queue, 1)
        await bench.cut()
        try:
            assert await seconds(queue.close()) < CLOSE_WITHIN_S
        finally:
            await bench.restore()

    async def test_closing_with_a_frozen_broker_ends_in_time(self, bench: QueueBench) -> None:
        queue = bench.make_queue("payments")
        await queue.open()
        await queue.publish([bell(1)])
        await take(queue, 1)
        await bench.freeze()
        try:
            publishing = asyncio.create_task(queue.publish([bell(2)]))
            await asyncio.sleep(0)
            assert await seconds(queue.close()) < CLOSE_WITHIN_S
            await asyncio.gather(publishing, return_exceptions=True)
        finally:
            await bench.thaw()

    @pytest.mark.fault(56)
    async def test_a_restart_of_the_broker_loses_nothing(self, bench: QueueBench) -> None:
        async with opened(bench.make_queue("payments")) as queue:
            await queue.publish(bells(range(20)))
            await bench.cut()
            await bench.restore()
            await publish_until_taken(queue, [bell(99)])
            assert await take_all(queue, [*bells(range(20)), bell(99)])

    @pytest.mark.fault(56, 60)
    async def test_a_frozen_broker_is_survived(self, bench: QueueBench) -> None:
        async with opened(bench.make_queue("payments")) as queue:
            await queue.publish([bell(1)])
            await take(queue, 1)
            await bench.freeze()
            try:
                with pytest.raises(QueueUnavailable):
                    await queue.publish([bell(2)])
            finally:
                await bench.thaw()
            await publish_until_taken(queue, [bell(3)])
            await take_all(queue, [bell(3)])

    @pytest.mark.fault(57)
    async def test_a_destination_deleted_in_mid_run_is_made_again(self, bench: QueueBench) -> None:
        async with opened(bench.make_queue("payments")) as queue:
            await queue.publish(bells(range(20)))
            await take(queue, 20)
            await bench.remove_destination("payments")
            seen: set[Doorbell] = set()
            number = 100
            async with asyncio.timeout(SOON_S):  # doorbells may be lost now, but not for ever
                while not seen:
                    await publish_until_taken(queue, [bell(number)])
                    number += 1
                    try:
                        got = await queue.receive(10, 1.0)
                    except QueueUnavailable:
                        continue
                    await queue.ack(got)
                    seen.update(one for one in rung(got) if one not in bells(range(20)))
