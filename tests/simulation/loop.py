"""An event loop that a seed repeats exactly.

Time is a number: when nothing is ready it jumps to the next timer, and when there is no timer
either, that is a deadlock. Of the callbacks that are ready one is drawn by the seed's chance.

Every callback belongs to the node in whose context it was made. Those of a dead node are
dropped unrun, as `kill -9` would; those of a stopped node are kept until it goes on.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import struct
import zlib
from collections.abc import Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, NoReturn, cast

MAX_STEPS = 400_000
_STAMP = struct.Struct("<dIi")


class Deadlock(Exception):
    """Nothing is ready and nothing ever will be."""


class Endless(Exception):
    """The run has taken more steps than any healthy run does."""


class Life:
    """Whether a node runs, is stopped for a while, or is dead for good."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.alive = True
        self.stopped = False
        self.held: list[asyncio.Handle] = []


LIFE: ContextVar[Life | None] = ContextVar("life", default=None)


class NumberedTask(asyncio.Task[Any]):
    """A task whose hash is its number, so that sets of tasks have the same order in every run."""

    def __init__(self, coro: Coroutine[Any, Any, Any], loop: SimLoop, **more: Any) -> None:
        self._number = loop.next_task_number()
        super().__init__(coro, loop=loop, **more)
        self._log_destroy_pending = False

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


def _new_task(loop: Any, coro: Any, **more: Any) -> Any:
    task = NumberedTask(coro, loop=loop, **more)
    loop.tasks.append(task)
    return task


class SimLoop(asyncio.BaseEventLoop):
    """See the module. `digest` depends on every step taken so far."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.digest = 0
        self.steps = 0
        self.tasks: list[asyncio.Task[Any]] = []
        self._now = 0.0
        self._random = random.Random(f"order {seed}")
        self._numbers = 0
        self._clock_resolution = 1e-9
        self._outside = copy_context()
        self._outside.run(LIFE.set, None)
        self.set_task_factory(_new_task)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    def next_task_number(self) -> int:
        """Return how many tasks there have been."""
        self._numbers += 1
        return self._numbers

    def note(self, text: str) -> None:
        """Let the digest depend on `text`."""
        self.digest = zlib.crc32(text.encode(), self.digest)

    def outside(self) -> Context:
        """Return a context that belongs to no node: what runs there survives every crash."""
        return self._outside.copy()

    def spawn(self, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine outside of all nodes."""
        return self.create_task(coro, context=self.outside())

    def resume(self, life: Life) -> None:
        """Let a stopped node go on with all that came up meanwhile."""
        life.stopped = False
        self._ready.extend(life.held)  # type: ignore[attr-defined]
        life.held.clear()

    def abandon(self) -> None:
        """End all that is unfinished, without another step of the loop."""
        for task in self.tasks:
            coro = cast("Coroutine[Any, Any, Any]", task.get_coro())
            try:
                coro.close()
            except (RuntimeError, ValueError):
                continue  # it waits in its `finally`, or is running: nobody is left to care
        self._ready.clear()  # type: ignore[attr-defined]
        self._scheduled.clear()  # type: ignore[attr-defined]

    def run_in_executor(self, *_: Any) -> NoReturn:  # type: ignore[override]
        """There are no threads here."""
        raise RuntimeError("a thread in a simulation")

    def _process_events(self, _: Any) -> None:
        """There is nothing outside to hear of."""

    def _write_to_self(self) -> None:
        """There is nobody to wake: one thread does everything."""

    def _run_once(self) -> None:
        ready, timers = self._ready, self._scheduled  # type: ignore[attr-defined]
        while timers and timers[0]._cancelled:
            heapq.heappop(timers)._scheduled = False
        if not ready:
            if not timers:
                raise Deadlock(f"at {self._now:.3f} s")
            self._now = max(self._now, timers[0]._when)
        while timers and timers[0]._when <= self._now:
            timer = heapq.heappop(timers)
            timer._scheduled = False
            ready.append(timer)
        choice = self._random.randrange(len(ready)) if len(ready) > 1 else 0
        ready.rotate(-choice)
        handle = ready.popleft()
        ready.rotate(choice)
        if handle._cancelled:
            return
        life = handle._context.get(LIFE)
        self._stamp(choice, life)
        if life is not None:
            if not life.alive:
                return
            if life.stopped:
                life.held.append(handle)
                return
        handle._run()

    def _stamp(self, choice: int, life: Life | None) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise Endless(f"{self.steps} steps, {self._now:.3f} s")
        number = -1 if life is None else life.number
        self.digest = zlib.crc32(_STAMP.pack(self._now, choice, number), self.digest)
