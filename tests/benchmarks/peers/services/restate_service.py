"""The saga on Restate's Python SDK: `STUB_PORT=... granian --interface asgi restate_service:app`.

It runs in an environment of its own, without the rest of this repository. Restate's server calls
it over HTTP/2 and is called by whoever wants a saga.
"""

from __future__ import annotations

import os

import aiohttp
import restate

STUB = f"http://127.0.0.1:{os.environ['STUB_PORT']}"
FIRST_TWO = ("/charge", "/reserve")

bench = restate.Service("Bench")


class Stub:
    """The way to the services: one session that keeps its connections, made on the loop."""

    session: aiohttp.ClientSession | None = None


async def call(path: str, order: int, saga: str) -> dict[str, bool]:
    """Do one step, or undo one."""
    if Stub.session is None:
        Stub.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    key = {"Idempotency-Key": f'"{saga}{path}"'}
    async with Stub.session.post(f"{STUB}{path}", json={"order": order}, headers=key) as answer:
        if answer.status == 422:
            raise restate.TerminalError(path, status_code=422)
        answer.raise_for_status()
        output: dict[str, bool] = await answer.json()
        return output


@bench.handler()
async def saga(ctx: restate.Context, asked: dict) -> dict:
    """Do all three, or undo what was done."""
    order, number = asked["order"], ctx.request().id
    done: list[str] = []

    async def step(path: str) -> None:
        await ctx.run_typed(path, call, restate.RunOptions(), path=path, order=order, saga=number)

    try:
        for path in (*FIRST_TWO, asked["last"]):
            await step(path)
            done.append(path)
    except restate.TerminalError:
        for path in reversed(done):
            await step(f"/undo{path}")
        return {"status": "compensated"}
    return {"status": "done"}


app = restate.app([bench])
