"""For every case of the probe a service that is wrong in that one way."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from contextlib import suppress
from typing import Any

from aiohttp import web

from tests.adapters.probe.sound_service import COMPENSATED, MemoryService, Row, problem, step_of

MEETING_S = 0.03
"""How long one request of a race waits for the other, before it goes on alone."""

SLOW_S = 0.2
"""Longer than a client of these tests holds before it hangs up."""

_KNOWN = {
    f"goconductor-{name}"
    for name in (
        "action",
        "attempt",
        "deadline",
        "definition",
        "namespace",
        "step",
        "timeout-ms",
        "workflow",
    )
}


async def _meet(others: asyncio.Event, within_s: float) -> None:
    """Wait for another request to come, as one does that looks before it acts."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await others.wait()


class Redirects(MemoryService):
    """The path wants a slash at its end."""

    async def do(self, step: str, body: Any) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": "/charges/"})


class PromisesLater(MemoryService):
    async def do(self, step: str, body: Any) -> web.StreamResponse:
        await super().do(step, body)
        return web.Response(status=202)


class AnswersText(MemoryService):
    async def do(self, step: str, body: Any) -> web.StreamResponse:
        done = await super().do(step, body)
        return web.Response(status=done.status, text="<p>thank you</p>")


class KnowsTheBodyOnly(MemoryService):
    """The same input is taken for the same call, whatever its key."""

    async def do(self, step: str, body: Any) -> web.StreamResponse:
        return await super().do(json.dumps(body), body)


class AnswersAnew(MemoryService):
    """It acts once, but has forgotten what it answered."""

    def do_locked(self, step: str, body: Any) -> web.StreamResponse:
        known = step in self.rows
        answer = super().do_locked(step, body)
        done = self.rows[step].state == "done"
        return web.json_response({"receipt": None}, status=201) if known and done else answer


class LooksBeforeItActs(MemoryService):
    """Two executes at once both find that the key is new. A compensation is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way: defaultdict[str, int] = defaultdict(int)
        self.second: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def do(self, step: str, body: Any) -> web.StreamResponse:
        if step in self.rows:
            return await super().do(step, body)
        self.under_way[step] += 1
        if self.under_way[step] > 1:
            self.second[step].set()
        await _meet(self.second[step], MEETING_S)
        self.under_way[step] -= 1
        row = self.rows.get(step)
        if row is not None and row.state == "compensated":
            return problem(410, COMPENSATED)
        self.rows[step] = Row("done", self.act(step))
        return web.json_response(self.rows[step].answer, status=201)


class KeysHoldTheBody(MemoryService):
    """Another body under a key is taken for another call."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: dict[str, Any] = {}

    def do_locked(self, step: str, body: Any) -> web.StreamResponse:
        if body != self.bodies.setdefault(step, body) and self.rows[step].state == "done":
            return web.json_response(self.act(step), status=201)
        return super().do_locked(step, body)


class ClaimsTooEarly(MemoryService):
    """A key counts as taken from the headers on, also if the body never comes."""

    def __init__(self) -> None:
        super().__init__()
        self.claimed: set[str] = set()

    async def execute(self, request: web.Request) -> web.StreamResponse:
        step = step_of(request)
        if step in self.claimed and step not in self.rows:
            return problem(409, "this key is being worked on")
        self.claimed.add(step)
        return await super().execute(request)


class ForgetsWhenLeftAlone(MemoryService):
    """Effect and key are written apart, and the work ends when its client hangs up between."""

    handler_cancellation = True

    async def do(self, step: str, body: Any) -> web.StreamResponse:
        async with self.locks[step]:
            if step not in self.rows:
                answer = self.act(step)
                await _meet(asyncio.Event(), SLOW_S)
                self.rows[step] = Row("done", answer)
            return self.do_locked(step, body)


class TooSmall(MemoryService):
    async def read(self, request: web.Request) -> Any:
        body = await request.read()
        if len(body) > 64 * 1024:
            raise web.HTTPInternalServerError
        return json.loads(body)


class MindsHeaders(MemoryService):
    async def execute(self, request: web.Request) -> web.StreamResponse:
        ours = {name.lower() for name in request.headers if name.lower().startswith("goconductor-")}
        if ours - _KNOWN:
            return problem(400, "a header that is not known")
        return await super().execute(request)


class StumblesOverNoJson(MemoryService):
    async def read(self, request: web.Request) -> Any:
        try:
            return json.loads(await request.read())
        except ValueError:
            raise web.HTTPInternalServerError from None


class StumblesOverDepth(MemoryService):
    async def read(self, request: web.Request) -> Any:
        try:
            return json.loads(await request.read())
        except RecursionError:
            raise web.HTTPInternalServerError from None


class UndoesNothing(MemoryService):
    def undo_locked(self, step: str) -> web.StreamResponse:
        if step not in self.rows:
            return super().undo_locked(step)
        return web.Response()


class UndoesTwice(MemoryService):
    def undo_locked(self, step: str) -> web.StreamResponse:
        known = self.rows.get(step)
        if known is not None and known.state == "compensated":
            self.acted[step] -= 1
        return super().undo_locked(step)


class NeedsTheOutput(MemoryService):
    """It finds what to undo by what it answered, which nobody may have heard."""

    async def undo(self, step: str, body: Any) -> web.StreamResponse:
        row = self.rows.get(step)
        if row is not None and row.state == "done" and body["output"] is None:
            return problem(500, "no receipt")
        return await super().undo(step, body)


class UndoesOnlyWhatItKnows(MemoryService):
    async def undo(self, step: str, body: Any) -> web.StreamResponse:
        if step not in self.rows:
            return problem(404, "no such charge")
        return await super().undo(step, body)


class LeavesNoBarrier(MemoryService):
    """There was nothing to undo, so nothing is written down."""

    def undo_locked(self, step: str) -> web.StreamResponse:
        return super().undo_locked(step) if step in self.rows else web.Response()


class DeletesTheKey(MemoryService):
    """What is undone may be done again."""

    def undo_locked(self, step: str) -> web.StreamResponse:
        known = self.rows.get(step)
        answer = super().undo_locked(step)
        if known is not None and known.state == "done":
            del self.rows[step]
        return answer


class UndoesWithoutTheLock(MemoryService):
    """A compensation does not wait for an execute under way, finds nothing, and is content."""

    def __init__(self) -> None:
        super().__init__()
        self.undoing: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def do(self, step: str, body: Any) -> web.StreamResponse:
        async with self.locks[step]:
            if step not in self.rows:
                await _meet(self.undoing[step], MEETING_S)
                self.rows[step] = Row("done", self.act(step))
            return self.do_locked(step, body)

    async def undo(self, step: str, body: Any) -> web.StreamResponse:
        if not self.locks[step].locked():
            return await super().undo(step, body)
        self.undoing[step].set()
        return web.Response()


class TellsAnotherWord(MemoryService):
    async def outcome(self, step: str) -> str | None:
        outcome = await super().outcome(step)
        return "finished" if outcome == "succeeded" else outcome


class PromisesWhatItBreaks(MemoryService):
    """`refused` says that a late execute will be refused; this one is done."""

    async def outcome(self, step: str) -> str | None:
        return await super().outcome(step) or "refused"


BROKEN: dict[str, type[MemoryService]] = {
    "no_redirect": Redirects,
    "first_execute": PromisesLater,
    "answer_body": AnswersText,
    "other_key": KnowsTheBodyOnly,
    "same_key_twice": AnswersAnew,
    "same_key_at_once": LooksBeforeItActs,
    "same_key_other_body": KeysHoldTheBody,
    "cut_request": ClaimsTooEarly,
    "lost_answer": ForgetsWhenLeftAlone,
    "large_input": TooSmall,
    "unknown_headers": MindsHeaders,
    "not_json": StumblesOverNoJson,
    "too_deep": StumblesOverDepth,
    "compensate": UndoesNothing,
    "compensate_twice": UndoesTwice,
    "compensate_unknown_outcome": NeedsTheOutput,
    "compensate_before_execute": UndoesOnlyWhatItKnows,
    "execute_after_compensate": LeavesNoBarrier,
    "repeat_after_compensate": DeletesTheKey,
    "compensate_at_once": UndoesWithoutTheLock,
    "status_known": TellsAnotherWord,
    "status_unknown": PromisesWhatItBreaks,
}
