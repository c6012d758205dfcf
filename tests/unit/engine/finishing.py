"""A service in memory that finishes what it has taken on, and says so by a callback."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from sidecar.adapters.services.memory import Act, MemoryService
from sidecar.ports.service import Call
from sidecar.saga.outcomes import Outcome, OutcomeKind

CallBack = Callable[[Call, Outcome], Awaitable[None]]


class Finishing:
    """Whatever `service` answers with `pending` comes to `then`, so many seconds `after`.

    Without `after` it is never finished.
    """

    def __init__(self, service: MemoryService, call_back: CallBack) -> None:
        self.then = Act()
        self.after: float | None = 0.0
        self._service = service
        self._answering = service.call
        self._call_back = call_back
        self._tasks: set[asyncio.Task[None]] = set()
        service.call = self.call  # type: ignore[method-assign]

    async def call(self, call: Call) -> Outcome:
        """Make a call, and let it be finished later."""
        answer = await self._answering(call)
        if answer.kind is OutcomeKind.PENDING and self.after is not None:
            asyncio.get_running_loop().call_later(self.after, self._finish, call)
        return answer

    def _finish(self, call: Call) -> None:
        answer = self._service.act_later(call, self.then)
        task = asyncio.ensure_future(self._call_back(call, answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def token_of(made: Call) -> str:
    """The token that a call carried."""
    assert made.callback is not None
    return made.callback.rpartition("/")[2]
