"""The demo's own processes: started to die with it, asked until they are ready, ended by number."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from sidecar.errors import GoConductorError

_CHILD = Path(__file__).with_name("child.py")
_POLL_S = 0.05
_END_WITHIN_S = 8.0
_TAIL_LINES = 20


class DemoError(GoConductorError):
    """A part of the demo could not be run."""

    code = "demo"


class Child:
    """One process, and the file that gets what it writes."""

    def __init__(self, name: str, log: Path, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._log = log
        self._process = process

    @classmethod
    async def start(cls, name: str, *arguments: str, log: Path) -> Self:
        """Run our own interpreter with these arguments."""
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(_CHILD), str(os.getpid())),
                *(sys.executable, *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env=_environment(),
                start_new_session=True,  # Ctrl-C at the terminal is for us; we end it in order
            )
        return cls(name, log, process)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    async def until(self, ready: Callable[[], Awaitable[bool]], *, within_s: float) -> None:
        """Wait until it is ready.

        Raises:
            DemoError: it ended, or was not ready in time; with the end of what it wrote.
        """
        try:
            async with asyncio.timeout(within_s):
                while not await ready():
                    if self._process.returncode is not None:
                        raise DemoError(f"{self.name} ended while starting:\n{self._tail()}")
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise DemoError(
                f"{self.name} was not ready within {within_s:g} s:\n{self._tail()}"
            ) from None

    async def stop(self) -> None:
        """Ask it to end, and kill it if it does not; to stop twice is fine."""
        if self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(_END_WITHIN_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody holds now, all different."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _environment() -> dict[str, str]:
    # Settings of the caller's own sidecars would override the files that the demo writes.
    return {
        name: value for name, value in os.environ.items() if not name.startswith("GOCONDUCTOR_")
    }
