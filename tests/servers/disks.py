"""A small disk of its own, to be filled by a test: memory mounted as a file system of a fixed size.

Only root may mount; others get `ServerMissingError`, with the reason. The disk is gone when its
context ends, whatever happened, and one whose owner was killed is swept away before the next is
made. What still has a file open on it must have ended before.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Self

from tests.servers.processes import ServerMissingError, private_folder, runs

_CHUNK = 1 << 16
_KIND = "disk"
_UNMOUNT_TRIES = 100


class SmallDisk:
    """One disk of `megabytes`; its `folder` belongs to `owner`."""

    def __init__(self, megabytes: int, owner: pwd.struct_passwd | None = None) -> None:
        if os.geteuid() != 0:
            raise ServerMissingError("only root may mount a disk")
        _sweep()
        self.folder = private_folder(_KIND)
        self._filler = self.folder / "filler"
        options = f"size={megabytes}m,mode=0755"
        if owner is not None:
            options += f",uid={owner.pw_uid},gid={owner.pw_gid}"
        command = ["mount", "-t", "tmpfs", "-o", options, "goconductor-disk", self.folder]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            shutil.rmtree(self.folder)
            raise ServerMissingError(f"a disk cannot be mounted here: {done.stderr.strip()}")

    def fill(self) -> int:
        """Write until nothing more fits; how many bytes it were."""
        written = 0
        with self._filler.open("ab", buffering=0) as filler:
            size = _CHUNK
            while size:
                try:
                    written += filler.write(bytes(size))
                except OSError:
                    size //= 2
        return written

    def free(self) -> None:
        """Take away what `fill` wrote."""
        self._filler.unlink()

    @property
    def free_bytes(self) -> int:
        """How many bytes still fit."""
        return shutil.disk_usage(self.folder).free

    def close(self) -> None:
        """Unmount it; what is on it is gone. Closing twice is fine."""
        _unmount(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _sweep() -> None:
    """Unmount the disks of tests that were killed."""
    for folder in list(_mounted()):
        owner = folder.name.split("-")[2]
        if owner.isdigit() and not runs(int(owner)):
            _unmount(folder)


def _mounted() -> list[Path]:
    points = [Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines()]
    return [one for one in points if one.name.startswith(f"goconductor-{_KIND}-")]


def _unmount(folder: Path) -> None:
    for _ in range(_UNMOUNT_TRIES):
        if folder not in _mounted():
            shutil.rmtree(folder, ignore_errors=True)
            return
        # Whoever was killed may take a moment to let go of its files.
        if subprocess.run(["umount", folder], check=False, capture_output=True).returncode != 0:
            threading.Event().wait(0.05)
    subprocess.run(["umount", "--lazy", folder], check=True)
    shutil.rmtree(folder)
