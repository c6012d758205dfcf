"""Long tasks: whatever ends one is told, and it begins anew."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from sidecar.engine import supervision
from sidecar.engine.supervision import LongTask
from tests.unit.engine.faces import until


class Work:
    """Goes wrong as often as it is told, then goes on for ever."""

    def __init__(self, *faults: BaseException | None) -> None:
        self.faults = list(faults)
        self.runs = 0
        self.ended = False

    async def __call__(self) -> None:
        """Run once."""
        self.runs += 1
        if self.faults:
            fault = self.faults.pop(0)
            if fault is not None:
                raise fault
            return
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """What was logged; a terminal would show each of the many traces at length."""
    with capture_logs() as lines:
        yield lines


@pytest.fixture(autouse=True)
def _short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "PAUSE_S", 0.001)


@pytest.mark.parametrize(
    "fault", [ValueError("a bug"), None, asyncio.CancelledError()], ids=["raise", "end", "cancel"]
)
@pytest.mark.fault(69)
async def test_whatever_ends_it_is_told_and_it_begins_anew(
    fault: BaseException | None, logs: list[MutableMapping[str, Any]]
) -> None:
    work = Work(fault, fault)
    task = LongTask("work", work)
    task.start()
    assert task.sound
    await until(lambda: work.runs == 3)
    assert not task.sound
    await task.stop()
    assert work.ended
    assert [(line["task"], line["log_level"]) for line in logs] == [("work", "error")] * 2


async def test_it_is_sound_again_when_it_has_gone_on_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = Work(ValueError("a bug"))
    task = LongTask("work", work)
    task.start()
    await until(lambda: work.runs == 2)
    assert not task.sound
    monkeypatch.setattr(supervision, "SOUND_AFTER_S", 0.0)
    assert task.sound
    await task.stop()


async def test_it_starts_and_stops_as_often_as_one_likes() -> None:
    work = Work()
    task = LongTask("work", work)
    await task.stop()
    for number in range(1, 4):
        task.start()
        task.start()
        assert task.running
        await until(lambda wanted=number: work.runs == wanted)
        await task.stop()
        await task.stop()
        assert not task.running
    assert work.runs == 3


async def test_it_stops_in_the_pause_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "PAUSE_S", 3600.0)
    work = Work(ValueError("a bug"))
    task = LongTask("work", work)
    task.start()
    await until(lambda: not task.sound)
    await task.stop()
    assert work.runs == 1


@pytest.mark.parametrize("fault", [ValueError("a bug"), None], ids=["raise", "swallow"])
async def test_it_stops_although_its_end_goes_wrong(
    monkeypatch: pytest.MonkeyPatch, fault: Exception | None
) -> None:
    monkeypatch.setattr(supervision, "PAUSE_S", 3600.0)
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if fault is not None:
                raise fault from None

    task = LongTask("work", work)
    task.start()
    await begun.wait()
    running = task._task
    assert running is not None
    async with asyncio.timeout(5):
        await task.stop()
    assert running.done()


async def test_a_stop_that_is_given_up_asks_once_more() -> None:
    begun, asked = asyncio.Event(), asyncio.Event()

    async def swallows_one() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            asked.set()
            await asyncio.Event().wait()

    task = LongTask("stubborn", swallows_one)
    task.start()
    running = task._task
    assert running is not None
    await begun.wait()
    stopping = asyncio.create_task(task.stop())
    await asked.wait()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()


async def test_it_stops_although_a_request_to_end_was_swallowed(
    monkeypatch: pytest.MonkeyPatch, logs: list[MutableMapping[str, Any]]
) -> None:
    monkeypatch.setattr(supervision, "ASK_AGAIN_S", 0.001)
    begun = asyncio.Event()
    swallowed = 0

    async def swallows() -> None:
        nonlocal swallowed
        begun.set()
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if swallowed == 2:
                    raise
                swallowed += 1

    task = LongTask("stubborn", swallows)
    task.start()
    await begun.wait()
    await task.stop()
    assert swallowed == 2
    assert [line["event"] for line in logs] == ["long_task_asked_again"] * 2
