"""Waiting for a fact instead of for time to pass: the one place where tests of real things poll."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

_POLL_S = 0.02


async def until(
    fact: Callable[[], bool] | Callable[[], Awaitable[bool]],
    *,
    within_s: float = 10.0,
    poll_s: float = _POLL_S,
) -> None:
    """Return when `fact()` is true; raise TimeoutError if it does not become so in time.

    The fact is asked once more at the end, so that a slow machine does not decide.
    """
    try:
        async with asyncio.timeout(within_s):
            while not await _holds(fact):  # noqa: ASYNC110  (a real server sets no event)
                await asyncio.sleep(poll_s)
    except TimeoutError:
        if not await _holds(fact):
            raise


async def _holds(fact: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> bool:
    answer = fact()
    return await answer if inspect.isawaitable(answer) else bool(answer)
