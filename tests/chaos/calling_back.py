"""What the services of a chaos run do after a 202: act a little later, and call back.

A callback is said again, at one sidecar after the other, until one of them has taken it (200) or
said that it never will be (any other answer below 500): who was asked first may have died. That
it was said to somebody who died is a line of the book, so a run can demand that it happened.

Failure behaviour: what was taken on is kept in memory. A ledger that is killed forgets it, as a
service may: then the time of the callback runs out, and the next attempt is taken on anew.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from tests.chaos.book import Asked, Book, Entry, Fact, answer

AGAIN = "callback_again"
_TASKS = "/v1/tasks/"
_PAUSE_S = 0.1
_WITHIN_S = 2.0
_TRIES = 300
_LATER_MS = 200


class Jobs:
    """What was taken on and is not finished. `addresses` are the sidecars that take callbacks."""

    def __init__(self, book: Book) -> None:
        self.addresses: tuple[str, ...] = ()
        self._book = book
        self._under_way: set[asyncio.Task[None]] = set()

    def take_on(self, asked: Asked) -> None:
        """Finish later what was promised, in a time that its key decides."""
        task = asyncio.get_running_loop().create_task(self._finish(asked))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _finish(self, asked: Asked) -> None:
        drawn = zlib.crc32(f"{asked.key} {asked.attempt}".encode())
        await pause(drawn % _LATER_MS / 1000)
        entry = self._book.act_after_all(asked)
        verb, body = _said(entry)
        base, _, token = asked.callback.rpartition(_TASKS)
        at = [one for one in self.addresses if one != base]
        first = drawn % (len(at) + 1)
        # Any sidecar of the namespace takes it: who has called is asked first by some only.
        around = [*at[first:], base, *at[:first]]
        status, tries = None, 0
        while status is None and tries < _TRIES:
            status = await say(around[tries % len(around)], f"{_TASKS}{token}/{verb}", body)
            tries += 1
            if status is None:
                await pause(_PAUSE_S)
        self._book.called_back(asked, status, AGAIN if tries > 1 else None)


def _said(entry: Entry) -> tuple[str, dict[str, Any]]:
    if entry.fact in (Fact.REFUSED, Fact.TOO_LATE) or entry.own == 422:
        return "fail", {"message": f"{entry.step} is {entry.fact}", "outcome": "refused"}
    return "complete", {"output": answer(entry)}


async def pause(seconds: float) -> None:
    """Let others run for a while."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()


async def say(address: str, path: str, body: dict[str, Any]) -> int | None:
    """POST once; the status, or None when nobody knows whether it was taken."""
    parts = urlsplit(address)
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(_WITHIN_S):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(head.encode() + data)
            status = _status(await reader.readline())
    except (OSError, TimeoutError):
        return None
    finally:
        if writer is not None:
            writer.close()
    return None if status is None or status >= 500 or status in (408, 429) else status


def _status(line: bytes) -> int | None:
    words: Sequence[bytes] = line.split()
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else None
