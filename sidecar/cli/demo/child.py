"""Becomes a program that the kernel kills when the thread that started it dies.

    child.py PARENT PROGRAM ARGUMENT...

Run as a file by a bare interpreter: code between fork and exec is unsafe in a process with
threads. Nothing of the demo outlives it, not even when it is killed itself.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def become(parent: int, command: list[str]) -> None:
    """Become the program, bound to the life of the process `parent`."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel refuses to watch the parent process")
    if os.getppid() != parent:  # it died before the kernel was asked to watch
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606  (becoming the program is what this file is for)


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])
