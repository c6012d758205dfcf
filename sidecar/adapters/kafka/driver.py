"""The driver's edge: its errors translated, its clients closed for certain, its log kept down.

aiokafka's `stop()` may hang while brokers are away, and a `stop()` that was given up leaves
tasks and connections behind. So closing has a deadline, and after it the pieces are ended
one by one. That needs attributes that the driver does not document; they are named here only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import structlog
from aiokafka.errors import (
    ConsumerStoppedError,
    KafkaConnectionError,
    KafkaError,
    ProducerClosed,
)

from sidecar.errors import QueueUnavailable

# AssertionError, KeyError and ValueError: what aiokafka's own bookkeeping raises when metadata or
# an assignment changed under a call.
DRIVER_ERRORS = (
    KafkaError,
    ConsumerStoppedError,
    ProducerClosed,
    OSError,
    TimeoutError,
    AssertionError,
    KeyError,
    ValueError,
)

_PIECES_WITHIN_S = 0.5
_ASKED_TO_END = 2
_TASKS = (
    ("_coordinator", "_coordination_task"),
    ("_coordinator", "_heartbeat_task"),
    ("_coordinator", "_commit_refresh_task"),
    ("_fetcher", "_fetch_task"),
    ("_sender", "_sender_task"),
)

T = TypeVar("T")
_background: set[asyncio.Task[None]] = set()
"""The loop itself holds on to no task."""

_log = structlog.get_logger("sidecar.kafka")


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise `QueueUnavailable`, saying what was being done, instead of the driver's errors."""
    try:
        yield
    except DRIVER_ERRORS as error:
        raise QueueUnavailable(f"Kafka, {doing}: {describe(error)}") from error
    else:
        _refusals.newest = ""  # a broker answered: what was refused before explains nothing now


def describe(error: BaseException) -> str:
    """Return one line about an error of the driver."""
    text = str(error).strip().replace("\n", " ")
    if isinstance(error, TimeoutError) and not text:
        return "no answer in time"
    if isinstance(error, KafkaConnectionError) and _refusals.newest:
        text = f"{text} ({_refusals.newest})"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def asked_to_end() -> bool:
    """Whether a `CancelledError` is meant for the running task, not for one of the driver."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


async def apart(client: Any, work: Coroutine[Any, Any, T]) -> T:
    """Await a call of a client so that whoever gives it up gets on, also where it takes no notice.

    A deadline (`asyncio.timeout`) cancels once. What swallows that would be waited for as long as
    it likes, and nothing of ours would ever look at it again. Giving up takes a second at most.
    """
    call = asyncio.create_task(work, name="kafka-call")
    try:
        await asyncio.wait({call})
    except asyncio.CancelledError:
        # Whoever is cancelled once more gets on at once, and the call is ended all the same.
        await asyncio.shield(_in_background(_give_up(client, call)))
        raise
    return call.result()


async def _give_up(client: Any, call: asyncio.Task[Any]) -> None:
    if not await end([call]):
        _log.warning("kafka_call_left_behind", call=str(call.get_coro()))
        _in_background(_when_it_ends(client, call))


async def _when_it_ends(client: Any, call: asyncio.Task[Any]) -> None:
    """End what a call that was left behind has begun in a client that was closed meanwhile."""
    await asyncio.wait({call})
    if not call.cancelled():
        call.exception()
    if client._closed:  # noqa: SLF001  (as below)
        await _abandon(client, call)


def _in_background(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(work, name="kafka-give-up")
    _background.add(task)
    task.add_done_callback(_background.discard)
    return task


class _Refusals(logging.Handler):
    """Keeps why no broker could be spoken to: the driver's error says only that it is so.

    A wrong password, an authority that is not trusted, a port without TLS: all of them reach
    nobody but its log.
    """

    newest = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what is said of a broker that could not be connected to."""
        if str(record.msg).startswith("Unable connect"):
            self.newest = record.getMessage().replace("\n", " ")


_refusals = _Refusals()


def keep_driver_quiet() -> None:
    """Keep the driver from logging broker trouble as errors of its own; ours says it once.

    Whoever wants to hear it sets a level on the logger `aiokafka` before.
    """
    driver = logging.getLogger("aiokafka")
    if driver.level == logging.NOTSET:
        driver.setLevel(logging.ERROR)
        driver.propagate = False
    if _refusals not in driver.handlers:
        driver.addHandler(_refusals)


async def stop(client: Any, *, within_s: float) -> None:
    """Close a producer or a consumer, within about `within_s` seconds whatever happens."""
    stopping = asyncio.create_task(client.stop(), name="kafka-client-stop")
    try:
        _, late = await asyncio.wait({stopping}, timeout=within_s)
    except asyncio.CancelledError:
        await _abandon(client, stopping)
        raise
    if late:
        why = "no answer in time"
    elif stopping.cancelled():  # it awaits tasks that it cancels, and hands that on
        why = "its own end was cancelled"
    elif (error := stopping.exception()) is None:
        return
    elif isinstance(error, DRIVER_ERRORS):
        why = describe(error)
    else:
        raise error
    _log.info("kafka_client_abandoned", why=why)
    await _abandon(client, stopping)


async def end(tasks: Collection[asyncio.Task[Any]]) -> bool:
    """Cancel tasks of the driver's, or that wait within it; return whether all have ended.

    One that is cancelled while it awaits another, which takes that for its own end, goes on as if
    nothing had been said (`asyncio.wait_for` of Python 3.11 swallows a cancellation, too): it is
    asked again. And whoever never ends is left behind: `asyncio.gather` would wait for it, also
    under a time-out.
    """
    for _ in range(_ASKED_TO_END):
        for task in tasks:
            task.cancel()
        if await _ended(tasks):
            return True
    return False


def note_that_nobody_fetches(consumer: Any) -> None:
    """Set right what a fetch that failed or was cut short leaves behind in the driver.

    It counts such a fetch as under way for ever. It would take us for one that always asks, and
    keep the partitions of a member that has no room for what they bring.
    """
    state = consumer._subscription  # noqa: SLF001  (here, and below: nothing public mends it)
    if state._fetch_count:  # noqa: SLF001
        state._fetch_count = 0  # noqa: SLF001
        with state.fetch_context():  # notes the time, too
            pass


async def _abandon(client: Any, stopping: asyncio.Task[None]) -> None:
    """End what a broken `stop()` left running."""
    tasks = [getattr(getattr(client, part, None), name, None) for part, name in _TASKS]
    tasks += [stopping, *getattr(getattr(client, "_fetcher", None), "_pending_tasks", ())]
    running = [task for task in tasks if isinstance(task, asyncio.Task) and not task.done()]
    for task in running:
        task.cancel()
    # Tasks wait for answers even when cancelled, until their connections are gone; and one that was
    # about to connect may still have done so.
    await _close_connections(client)
    if not await end(running):
        left = [task.get_name() for task in running if not task.done()]
        _log.warning("kafka_client_left_behind", why="it does not end", tasks=left)
    await _close_connections(client)


async def _close_connections(client: Any) -> None:
    connections = getattr(client, "client", None) or getattr(client, "_client", None)
    if connections is None:
        return
    closing = asyncio.create_task(connections.close(), name="kafka-connections-close")
    if await _ended([closing]):
        error = None if closing.cancelled() else closing.exception()
        why = None if error is None else describe(error)
    else:
        closing.cancel()
        why = "no answer in time"
    if why is not None:
        _log.warning("kafka_client_left_behind", why=why)


async def _ended(tasks: Collection[asyncio.Task[Any]]) -> bool:
    """Whether all have ended within the time that a piece is given; their errors are heard."""
    if not tasks:
        return True
    done, late = await asyncio.wait(tasks, timeout=_PIECES_WITHIN_S)
    for task in done:
        if not task.cancelled():
            task.exception()
    return not late
