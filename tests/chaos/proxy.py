"""A TCP proxy on loopback that harms what passes through it, and counts the harm.

It stands between a client and `upstream` (a port of 127.0.0.1) and runs in a thread with a loop
of its own, so that a synchronous test can drive it; every method may be called from any thread
and returns when the fault is in force. `up` is what the client sends, `down` what it gets.

    delay       bytes arrive later, in order; what is on its way already keeps its time
    throttle    so many bytes a second
    cut_after   after so many more bytes of a connection both its ends are reset
    swallow     bytes and ends of streams are taken and dropped; nobody is told
    hold        bytes are kept; `release` delivers them, and `pass_new` lets the connections pass
                that come from then on, while the older ones are held still
    reset       every present connection is reset
    reset_new   connections are accepted and reset at once
    refuse      nobody listens: the client is refused by the kernel
    heal        all of that is over; connections that lost bytes are reset

Failure behaviour: an upstream that cannot be reached resets the client. Closing the proxy resets
all that is left.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

_CHUNK = 65_536
_THROTTLED_CHUNK = 1_024
_QUEUED_CHUNKS = 256
_COMMAND_WITHIN_S = 10.0
_RESET = struct.pack("ii", 1, 0)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Harm:
    """What is done to one direction."""

    delay_s: float = 0.0
    bytes_per_s: float | None = None
    cut_after: int | None = None
    cut_number: int = 0
    swallow: bool = False
    hold: bool = False


_NO_HARM = _Harm()


class FaultProxy:
    """One proxy; a context manager."""

    def __init__(self, upstream: int = 0) -> None:
        self._upstream = upstream
        self._counts: Counter[str] = Counter()
        self._harm = {"up": _NO_HARM, "down": _NO_HARM}
        self._reset_new = False
        self._passes_from: int | None = None
        self._connections: dict[_Connection, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        # Bound and never listening: keeps the port ours while nobody is to listen there.
        self._place = _bound(0)
        self.port: int = self._place.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._thread.start()
        self._do(self._listen)

    # -- what a test says -----------------------------------------------------------------------

    @property
    def counts(self) -> Counter[str]:
        """How often each fault did something: `delayed`, `swallowed` and so on, in chunks."""
        return Counter(self._counts)

    @property
    def connections(self) -> int:
        """How many connections there are now."""
        return len(self._connections)

    def aim(self, upstream: int) -> None:
        """Lead new connections to this port."""
        self._upstream = upstream

    def delay(self, *, up_s: float = 0.0, down_s: float = 0.0) -> None:
        """Let what comes in from now on arrive later."""
        self._set(up={"delay_s": up_s}, down={"delay_s": down_s})

    def throttle(self, *, up: float | None = None, down: float | None = None) -> None:
        """Let so many bytes a second pass; None: no bound."""
        self._set(up={"bytes_per_s": up}, down={"bytes_per_s": down})

    def cut_after(self, *, up: int | None = None, down: int | None = None) -> None:
        """Reset each connection after so many more bytes; 0: at its next byte."""
        number = self._harm["up"].cut_number + 1
        self._set(
            up={"cut_after": up, "cut_number": number},
            down={"cut_after": down, "cut_number": number},
        )

    def swallow(self, *, up: bool = True, down: bool = True) -> None:
        """Take what comes in and drop it, while the connections stay open."""
        self._set(up={"swallow": up}, down={"swallow": down})

    def hold(self, *, up: bool = True, down: bool = True) -> None:
        """Keep what comes in until `release`."""
        self._passes_from = None
        self._set(up={"hold": up}, down={"hold": down})

    def pass_new(self) -> None:
        """Hold only what older connections carry: what is sent anew overtakes it."""

        async def change() -> None:
            self._passes_from = self._counts["connections"] + 1
            self._tell()

        self._do(change)

    def release(self) -> None:
        """Deliver what was held, in order."""
        self._set(up={"hold": False}, down={"hold": False})

    def reset(self) -> int:
        """Reset all present connections, and tell how many."""
        return self._do(self._reset_all)

    def reset_new(self) -> None:
        """Accept connections and reset them at once."""
        self._reset_new = True

    def refuse(self) -> None:
        """Listen no more; present connections stay. Only the order is counted, not who came."""
        self._do(self._close_door)

    def heal(self) -> None:
        """End all faults, and reset the connections that lost bytes by them."""
        self._do(self._heal)

    def close(self) -> None:
        """Reset everything and end the thread; closing twice is fine."""
        if self._thread.is_alive():
            self._do(self._end)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._place.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- in the loop ----------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _do(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(_COMMAND_WITHIN_S)

    def _set(self, **changes: dict[str, Any]) -> None:
        async def change() -> None:
            for direction, fields in changes.items():
                self._harm[direction] = replace(self._harm[direction], **fields)
            self._tell()

        self._do(change)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _listen(self) -> None:
        if self._server is None:
            listener = _bound(self.port)
            self._server = await asyncio.start_server(self._accept, sock=listener, backlog=512)

    async def _close_door(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            for listener in server.sockets:
                self._loop.remove_reader(listener.fileno())
            # Whom it has just accepted gets his connection: a server that is closed forgets him.
            await asyncio.sleep(0)
            server.close()
            self._counts["refusing"] += 1

    async def _reset_all(self) -> int:
        number = len(self._connections)
        for connection in tuple(self._connections):
            connection.reset()
        self._counts["reset"] += number
        return number

    async def _heal(self) -> None:
        self._harm = {"up": _NO_HARM, "down": _NO_HARM}
        self._reset_new = False
        self._passes_from = None
        for connection in tuple(self._connections):
            if connection.torn:
                connection.reset()
        self._tell()
        await self._listen()

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = tuple(self._connections.values())
        for connection in tuple(self._connections):
            connection.reset()
        await asyncio.gather(*tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._counts["connections"] += 1
        number = self._counts["connections"]
        if self._reset_new:
            self._counts["reset_new"] += 1
            _reset(writer)
            return
        try:
            ahead = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            self._counts["unreachable"] += 1
            _reset(writer)
            return
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a connection is served by a task")
        connection = _Connection(self, (reader, writer), ahead, task, number)
        self._connections[connection] = task
        try:
            await connection.serve()
        finally:
            del self._connections[connection]

    # -- what a connection asks -----------------------------------------------------------------

    def harm(self, direction: str) -> _Harm:
        """What is in force for a direction."""
        return self._harm[direction]

    def holds(self, direction: str, number: int) -> bool:
        """Whether the connection with this number is held in a direction."""
        passes = self._passes_from is not None and number >= self._passes_from
        return self._harm[direction].hold and not passes

    def count(self, fault: str) -> None:
        """A fault did something."""
        self._counts[fault] += 1

    async def changed(self, within_s: float | None) -> None:
        """Return when the faults have changed, or when the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._changed.wait()


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Connection:
    """One client and its upstream: a reader and a writer for each direction."""

    def __init__(
        self,
        proxy: FaultProxy,
        client: Stream,
        ahead: Stream,
        task: asyncio.Task[None],
        number: int,
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._ahead = ahead
        self._task = task
        self._number = number
        self._reset = False
        self.torn = False

    async def serve(self) -> None:
        """Carry bytes until both directions have ended, or something broke."""
        try:
            await self._carry()
        except asyncio.CancelledError:
            if not self._reset:
                raise
        finally:
            for _, writer in (self._client, self._ahead):
                writer.close()

    def reset(self) -> None:
        """Reset both ends, also if what was to pass is being held."""
        self._reset = True
        self._break()
        self._task.cancel()

    def _break(self) -> None:
        for _, writer in (self._client, self._ahead):
            _reset(writer)

    async def _carry(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for direction, source, target in (
                    ("up", self._client, self._ahead),
                    ("down", self._ahead, self._client),
                ):
                    line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUED_CHUNKS)
                    group.create_task(self._take(direction, source[0], line))
                    group.create_task(self._give(direction, target[1], line))
        except* OSError:
            self._break()

    async def _take(
        self, direction: str, reader: asyncio.StreamReader, line: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        while True:
            chunk = await reader.read(_CHUNK)
            harm = self._proxy.harm(direction)
            if harm.swallow:
                self.torn = True
                self._proxy.count("swallowed")
                if not chunk:  # its end is swallowed too: the other side is told nothing
                    await asyncio.Event().wait()
                continue
            if harm.delay_s:
                self._proxy.count("delayed")
            if self._proxy.holds(direction, self._number):
                self._proxy.count("held")
            await line.put((asyncio.get_running_loop().time() + harm.delay_s, chunk))
            if not chunk:
                return

    async def _give(
        self, direction: str, writer: asyncio.StreamWriter, line: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        passed = number = 0
        while True:
            due, chunk = await line.get()
            await self._wait(direction, due)
            harm = self._proxy.harm(direction)
            if harm.cut_number != number:
                passed, number = 0, harm.cut_number
            if harm.cut_after is not None and chunk and passed + len(chunk) > harm.cut_after:
                await self._write(direction, writer, chunk[: harm.cut_after - passed])
                self._proxy.count("cut")
                raise ConnectionResetError("cut")
            if not chunk:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            await self._write(direction, writer, chunk)
            passed += len(chunk)

    async def _wait(self, direction: str, due: float) -> None:
        loop = asyncio.get_running_loop()
        while self._proxy.holds(direction, self._number):
            await self._proxy.changed(None)
        while (left := due - loop.time()) > 0 and self._proxy.harm(direction).delay_s:
            await self._proxy.changed(left)

    async def _write(self, direction: str, writer: asyncio.StreamWriter, chunk: bytes) -> None:
        while chunk:
            rate = self._proxy.harm(direction).bytes_per_s
            size = len(chunk) if rate is None else max(1, min(_THROTTLED_CHUNK, int(rate / 10)))
            part, chunk = chunk[:size], chunk[size:]
            writer.write(part)
            await writer.drain()
            if rate is not None:
                self._proxy.count("throttled")
                await self._proxy.changed(len(part) / rate)


def _bound(port: int) -> socket.socket:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", port))
    return one


def _reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection as a crash would: its peer gets RST."""
    connection = writer.get_extra_info("socket")
    if connection is not None and not writer.transport.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
