"""The saga on DBOS: `python dbos_service.py PORT STUB_PORT DSN NUMBER`, one of several processes.

It runs in an environment of its own, without the rest of this repository. DBOS is a library, so
its ingress is ours: `POST /saga` runs one workflow and answers when it has ended.
"""

from __future__ import annotations

import asyncio
import sys

import aiohttp
import uvloop
from aiohttp import web
from dbos import DBOS, DBOSConfig

PORT, STUB_PORT, DSN, NUMBER = sys.argv[1:]
FIRST_TWO = ("/charge", "/reserve")


class Refused(Exception):
    """The service said no."""


class Stub:
    """The way to the services: one session that keeps its connections."""

    session: aiohttp.ClientSession


@DBOS.step()
async def call(path: str, order: int) -> dict[str, bool]:
    """Do one step, or undo one."""
    key = {"Idempotency-Key": f'"{DBOS.workflow_id}{path}"'}
    url = f"http://127.0.0.1:{STUB_PORT}{path}"
    async with Stub.session.post(url, json={"order": order}, headers=key) as answer:
        if answer.status == 422:
            raise Refused(path)
        answer.raise_for_status()
        output: dict[str, bool] = await answer.json()
        return output


@DBOS.workflow()
async def saga(order: int, last: str) -> str:
    """Do all three, or undo what was done."""
    done: list[str] = []
    try:
        for path in (*FIRST_TWO, last):
            await call(path, order)
            done.append(path)
    except Refused:
        for path in reversed(done):
            await call(f"/undo{path}", order)
        return "compensated"
    return "done"


async def run(request: web.Request) -> web.Response:
    """Run one saga to its end."""
    asked = await request.json()
    return web.json_response({"status": await saga(asked["order"], asked["last"])})


async def serve() -> None:
    """Serve until somebody ends us."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        Stub.session = session
        DBOS.launch()
        app = web.Application()
        app.router.add_post("/saga", run)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", int(PORT)).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": DSN,
        "executor_id": NUMBER,
        "application_version": "bench",
        "log_level": "WARNING",
    }
    DBOS(config=config)
    uvloop.run(serve())
