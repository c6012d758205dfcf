"""The least that a durable saga can cost here: `python floor_service.py PORT STUB_PORT DSN`.

No product: one process, aiohttp on both sides, and one row for the start of a saga and one for
each answer, written before the next call goes out. What gathers while one commit is under way
goes into the next, as one INSERT. Nobody would find these rows again after a crash.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys

import aiohttp
import psycopg
import uvloop
from aiohttp import web

PORT, STUB_PORT, DSN = sys.argv[1:]
STUB = f"http://127.0.0.1:{STUB_PORT}"
FIRST_TWO = ("/charge", "/reserve")
TABLE = """
CREATE TABLE journal (
    saga bigint, place int, path text, answer json, PRIMARY KEY (saga, place)
)
"""
INSERT = """
INSERT INTO journal SELECT * FROM unnest(%b::bigint[], %b::int[], %b::text[], %b::json[])
"""
Row = tuple[int, int, str, str]


class Journal:
    """Writes rows; each writer waits for the commit that its row is in."""

    def __init__(self, connection: psycopg.AsyncConnection) -> None:
        self._connection = connection
        self._gathered: list[tuple[Row, asyncio.Future[None]]] = []
        self._something = asyncio.Event()

    async def write(self, row: Row) -> None:
        """Return when the row is durable."""
        committed = asyncio.get_running_loop().create_future()
        self._gathered.append((row, committed))
        self._something.set()
        await committed

    async def run(self) -> None:
        """Commit for ever; a refused batch ends the process, and with it the measurement."""
        while True:
            await self._something.wait()
            self._something.clear()
            batch, self._gathered = self._gathered, []
            columns = [list(column) for column in zip(*(row for row, _ in batch), strict=True)]
            await self._connection.execute(INSERT, columns, prepare=True)
            for _, committed in batch:
                if not committed.cancelled():
                    committed.set_result(None)


class Floor:
    """Runs sagas."""

    def __init__(self, journal: Journal, session: aiohttp.ClientSession) -> None:
        self._journal = journal
        self._session = session
        self._numbers = itertools.count(1)

    async def ask(self, request: web.Request) -> web.Response:
        """Run one saga to its end."""
        asked = await request.json()
        number, places = next(self._numbers), itertools.count()
        order, last = asked["order"], asked["last"]
        await self._journal.write((number, next(places), "", json.dumps(asked)))
        done: list[str] = []
        for path in (*FIRST_TWO, last):
            if not await self._step(number, next(places), path, order):
                break
            done.append(path)
        else:
            return web.json_response({"status": "done"})
        for path in reversed(done):
            await self._step(number, next(places), f"/undo{path}", order)
        return web.json_response({"status": "compensated"})

    async def _step(self, number: int, place: int, path: str, order: int) -> bool:
        key = {"Idempotency-Key": f'"{number}{path}"'}
        body = {"order": order}
        async with self._session.post(f"{STUB}{path}", json=body, headers=key) as answer:
            text = await answer.text()
        if answer.status not in (200, 422):
            raise RuntimeError(f"{path} answered {answer.status}")
        await self._journal.write((number, place, path, text))
        return answer.status == 200


async def serve() -> None:
    """Serve until somebody ends us."""
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        await psycopg.AsyncConnection.connect(DSN, autocommit=True) as connection,
        aiohttp.ClientSession(connector=connector) as session,
        asyncio.TaskGroup() as group,
    ):
        await connection.execute(TABLE)
        journal = Journal(connection)
        group.create_task(journal.run())
        app = web.Application()
        app.router.add_post("/saga", Floor(journal, session).ask)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", int(PORT)).start()


if __name__ == "__main__":
    uvloop.run(serve())
