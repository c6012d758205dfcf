"""Reads that gather: whoever asks while one query is under way shares the next.

There are no timers: a lone question goes at once. An answer is always read after its question
was asked, so nobody gets what was true before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

TURNS = 2
"""Turns of the loop in which questions that are on their way may still come along."""

AT_ONCE = 200
"""How many are asked for by one query."""


class Gathering(Generic[K, V]):
    """Answers questions for single things by queries for many: `read` gets them without doubles."""

    def __init__(self, read: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._read = read
        self._asked: dict[K, asyncio.Future[V | None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def get(self, key: K) -> V | None:
        """Return the value of `key`, or None if there is none. Raises what `read` raises."""
        future = self._asked.get(key)
        if future is None:
            future = self._asked[key] = asyncio.get_running_loop().create_future()
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._answer(), name="gathered reads")
        # Shielded: whoever gives up must not take the answer away from the others.
        return await asyncio.shield(future)

    async def close(self) -> None:
        """Stop reading; whoever waits is told by a cancellation."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for future in self._asked.values():
            future.cancel()
        self._asked.clear()

    async def _answer(self) -> None:
        while self._asked:
            for _ in range(TURNS):
                await asyncio.sleep(0)
            keys = list(self._asked)[:AT_ONCE]
            asked = {key: self._asked.pop(key) for key in keys}
            try:
                found = await self._read(keys)
            except asyncio.CancelledError:
                for future in asked.values():
                    future.cancel()
                raise
            except Exception as error:  # noqa: BLE001  (whoever asked gets it)
                for future in asked.values():
                    _fail(future, error)
            else:
                for key, future in asked.items():
                    if not future.done():
                        future.set_result(found.get(key))


def _fail(future: asyncio.Future[V], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # nobody may be left to hear it
