"""Programs of the embedded PostgreSQL: started so that they cannot outlive us, found, ended.

Promise: a program started here gets `orphan_signal` from the kernel when the thread that started
it dies, even by kill -9 of the process. The event loop's thread starts them, so they live no
longer than the loop that looks after them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sidecar.errors import EmbeddedServerError

_CHILD = Path(__file__).with_name("embedded_child.py")
_POLL_S = 0.02
_GONE_WITHIN_S = 5.0
_TAIL_LINES = 15
_TAIL_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a program runs as; -1 keeps our own user and group."""

    uid: int = -1
    gid: int = -1


class Program:
    """One running program, its output file, and its end."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        identity: Identity,
        output: Path,
        orphan_signal: signal.Signals,
    ) -> None:
        """Start it; `output` gets what it writes, in place of what stood there.

        Raises:
            EmbeddedServerError: it could not be started at all.
        """
        self.name = Path(command[0]).name
        self.output = output
        who = [str(os.getpid()), str(identity.uid), str(identity.gid), str(int(orphan_signal))]
        # -I -S: nothing of the caller's environment or packages is needed, or wanted.
        start = [sys.executable, "-I", "-S", str(_CHILD), "run", *who, *map(str, command)]
        try:
            with output.open("wb") as sink:
                self._process = subprocess.Popen(  # noqa: S603  (our own file, our own programs)
                    start,
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    env=_environment(),
                    start_new_session=True,  # Ctrl-C at a terminal is for us; we end it in order
                )
        except OSError as error:
            raise EmbeddedServerError(f"cannot start {self.name}: {error}") from error

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    async def ended(self) -> int:
        """Wait for its end and return its exit code."""
        while (code := self._process.poll()) is None:  # noqa: ASYNC110  (the kernel rings nobody)
            await asyncio.sleep(_POLL_S)
        return code

    async def stop(self, *steps: tuple[signal.Signals, float]) -> None:
        """End it: each signal in turn with its patience in seconds, at last SIGKILL."""
        for number, patience_s in steps:
            if not self.alive:
                return
            self._process.send_signal(number)
            try:
                async with asyncio.timeout(patience_s):
                    await self.ended()
            except TimeoutError:
                continue
        self.kill()

    def kill(self) -> None:
        """End it at once, without its leave; to kill one that has ended is fine."""
        self._process.kill()
        self._process.wait()

    async def kill_all(self) -> None:
        """Kill it and what it has started, and return when nothing of that writes any more."""
        if self._process.returncode is None:  # else the number may be another's by now
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)  # it began a session of its own
        self.kill()
        with suppress(TimeoutError):
            async with asyncio.timeout(_GONE_WITHIN_S):
                while _runs_in_group(self.pid):  # noqa: ASYNC110  (not our children)
                    await asyncio.sleep(_POLL_S)

    def tail(self) -> str:
        """The last lines that it wrote."""
        return tail(self.output)


async def run_to_end(
    command: Sequence[str | Path], *, identity: Identity, output: Path, within_s: float
) -> None:
    """Run a program to its end; what it wrote is in the error if it fails.

    Raises:
        EmbeddedServerError: it failed, or took longer than `within_s` seconds.
    """
    program = Program(command, identity=identity, output=output, orphan_signal=signal.SIGKILL)
    try:
        async with asyncio.timeout(within_s):
            code = await program.ended()
    except TimeoutError:
        raise EmbeddedServerError(
            f"{program.name} did not end within {within_s:g} s:\n{program.tail()}"
        ) from None
    finally:
        await program.kill_all()
    if code != 0:
        raise EmbeddedServerError(f"{program.name} failed (exit {code}):\n{program.tail()}")


def closed_folder(path: Path, identity: Identity) -> Path | None:
    """The first folder on the way to `path` that this identity cannot enter; None if all open."""
    done = subprocess.run(  # noqa: S603  (our own file, by our own interpreter)
        [
            *(sys.executable, "-I", "-S", str(_CHILD), "look"),
            *(str(identity.uid), str(identity.gid), str(path)),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    if done.returncode != 0:
        raise EmbeddedServerError(f"cannot act as user {identity.uid}: {done.stderr.strip()}")
    return Path(done.stdout) if done.stdout else None


def processes_in(folder: Path) -> list[int]:
    """The processes whose working folder this is: every process of a server stands in its data.

    A number read from a lock file may by now be somebody else's; this cannot be.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            inside = (entry / "cwd").readlink() == folder
        except OSError:  # it has ended, or is another user's and so not a server of ours
            continue
        if inside:
            found.append(int(entry.name))
    return found


def _runs_in_group(group: int) -> bool:
    """Whether a process of this group is still at work; one that waits to be buried is not."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended meanwhile
                state, _, found, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(found) == group and state not in "ZX":
                    return True
    return False


def tail(path: Path) -> str:
    """The last lines of a file; nothing if there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-_TAIL_LINES:])


def _environment() -> dict[str, str]:
    # PGDATA, PGPORT, PGOPTIONS and their like would steer the server past our settings.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}
