"""Long tasks: what has to go on for as long as the process lives.

A task that ended by a bug would be missed by nobody: the sidecar would look well, and take,
write or heal nothing. So each of them runs under a `LongTask`: whatever ends it is told in the
log, and it begins anew after a pause. What a sidecar cannot work without also speaks for its
readiness, by `sound`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

log = structlog.get_logger("sidecar.supervision")

PAUSE_S = 1.0
"""How long to wait before a task that has failed begins anew."""

SOUND_AFTER_S = 10.0
"""How long a task has to go on after a failure until it is taken for sound again."""


ASK_AGAIN_S = 3.0
"""How long a task that is to end may take, until it is asked once more."""


class LongTask:
    """Runs `work`, which should never end, until it is stopped. Starts and stops repeatedly."""

    def __init__(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._name = name
        self._work = work
        self._task: asyncio.Task[None] | None = None
        self._failed_at: float | None = None

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped since."""
        return self._task is not None

    @property
    def sound(self) -> bool:
        """Whether it has not failed lately."""
        if self._failed_at is None:
            return True
        return asyncio.get_running_loop().time() - self._failed_at >= SOUND_AFTER_S

    def start(self) -> None:
        """Begin; harmless when repeated."""
        if self._task is None:
            self._task = asyncio.create_task(self._keep_running(), name=self._name)

    async def stop(self) -> None:
        """End it, and wait until it has ended; harmless when repeated.

        It is asked again and again: a library may take the request for an answer to something
        that it waited for (`asyncio.wait_for` of Python 3.11 does, at the moment of a time-out),
        and the task would go on.
        """
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        while True:
            try:
                async with asyncio.timeout(ASK_AGAIN_S):
                    await asyncio.gather(asyncio.shield(task), return_exceptions=True)
            except TimeoutError:
                log.warning("long_task_asked_again", task=self._name)
                task.cancel()
            except asyncio.CancelledError:
                task.cancel()  # nobody will wait for it any more
                raise
            else:
                return

    async def _keep_running(self) -> None:
        while True:
            try:
                await self._work()
                log.error("long_task_ended", task=self._name)
            except asyncio.CancelledError:
                if _is_asked_to_end():
                    raise
                # Something that it waited for was cancelled by somebody else.
                log.exception("long_task_failed", task=self._name)
            except Exception:
                log.exception("long_task_failed", task=self._name)
            if _is_asked_to_end():
                return  # what it did at its end has failed, or has swallowed the request
            self._failed_at = asyncio.get_running_loop().time()
            await asyncio.sleep(PAUSE_S)


def _is_asked_to_end() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
