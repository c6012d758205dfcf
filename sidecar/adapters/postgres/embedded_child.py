"""Stands between us and a PostgreSQL program: takes its identity, binds its life to ours.

Run as a file by a bare interpreter, it becomes the program by exec. Two ways to call it:

    embedded_child.py run PARENT UID GID SIGNAL PROGRAM ARGUMENT...
    embedded_child.py look UID GID PATH

`run` drops to UID and GID (-1 keeps our own), asks the kernel to send SIGNAL when the thread
that started it dies, and executes the program. `look` drops likewise and prints the first
folder on the way to PATH that this identity cannot enter, or nothing.

It is a program of its own because code between fork and exec is unsafe in a process with
threads, and because the identity must change before the kernel is asked: changing it
afterwards forgets the request.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def run(parent: int, uid: int, gid: int, end_signal: int, command: list[str]) -> None:
    """Become the program; it gets `end_signal` when the thread that started us dies."""
    libc = ctypes.CDLL(None, use_errno=True)
    _become(uid, gid)
    if libc.prctl(_PR_SET_PDEATHSIG, end_signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel refuses to watch the parent process")
    if os.getppid() != parent:  # it died before the kernel was asked to watch
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606  (becoming the program is what this file is for)


def look(uid: int, gid: int, path: Path) -> None:
    """Print the first folder on the way that this identity cannot enter, if there is one."""
    _become(uid, gid)
    for folder in (*reversed(path.parents), path):
        if not os.access(folder, os.X_OK):
            sys.stdout.write(str(folder))
            return


def _become(uid: int, gid: int) -> None:
    if uid < 0:
        return
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["run", parent, uid, gid, number, *command]:
            run(int(parent), int(uid), int(gid), int(number), command)
        case ["look", uid, gid, path]:
            look(int(uid), int(gid), Path(path))
        case _:
            sys.exit("usage: see the docstring of this file")
