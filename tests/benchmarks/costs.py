"""What processes cost, from /proc: CPU time, memory, and the cores that anything else used.

A process that ends between two looks is still counted: its parent inherits its time when it
buries it. One that cannot be read any more counts as nothing.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_BUSY = (0, 1, 2, 5, 6, 7)  # of the first line of /proc/stat: all but idle, I/O wait and guests
_MIB_IN_KIB = 1024
DRIVER = "driver"


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds: of each kind of process, and of the whole machine, since it was started."""

    by_kind: dict[str, float]
    machine: float

    def since(self, earlier: Spent) -> Spent:
        """What was spent after an earlier look."""
        return Spent(
            {kind: spent - earlier.by_kind[kind] for kind, spent in self.by_kind.items()},
            self.machine - earlier.machine,
        )

    @property
    def foreign(self) -> float:
        """What nobody of ours has spent; the clock of the machine ticks, so it may be below 0."""
        return max(0.0, self.machine - sum(self.by_kind.values()))


def spent(roots: Mapping[str, Sequence[int]]) -> Spent:
    """What these processes, all below them, and we ourselves have spent so far."""
    by_kind = {kind: sum(map(_cpu, family(pids))) for kind, pids in roots.items()}
    by_kind[DRIVER] = sum(os.times()[:2])
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    return Spent(by_kind, sum(int(fields[at]) for at in _BUSY) / _TICKS)


def memory(roots: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Resident MiB by kind of process; a page that several share counts once among them."""
    return {kind: sum(map(_resident_mib, family(pids))) for kind, pids in roots.items()}


def family(pids: Sequence[int]) -> list[int]:
    """These processes and all that they, or any thread of theirs, have started."""
    found: list[int] = []
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        for listed in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                waiting.extend(map(int, listed.read_text(encoding="ascii").split()))
            except OSError:  # the thread ended meanwhile
                continue
    return found


def fdatasync_us(*, times: int = 300) -> float:
    """How long it takes to get 8 KiB onto the disk of temporary files: the median, in us."""
    took: list[float] = []
    page = os.urandom(8192)
    with tempfile.TemporaryFile(buffering=0) as file:
        for _ in range(times):
            file.seek(0)
            file.write(page)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return statistics.median(took) * 1e6


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS


def _resident_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / _MIB_IN_KIB
