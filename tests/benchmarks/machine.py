"""What a table must say of the machine and the moment it was made on."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks.costs import fdatasync_us
from tests.servers import postgres

_ROOT = Path(__file__).parents[2]
_PINS = Path(__file__).parent / "peers" / "pins"
_PINNED = (
    "dbos",
    "restate-sdk",
    "granian",
    "@restatedev/restate-server",
    "@restatedev/restate-sdk",
)
_KIB_IN_GIB = 1024 * 1024


def facts(command: str) -> dict[str, str]:
    """The command, the date, the machine, and the versions of what runs."""
    system = platform.freedesktop_os_release()["PRETTY_NAME"]
    cores = f"{len(os.sched_getaffinity(0))} cores ({_from_proc('cpuinfo', 'model name')})"
    memory = int(_from_proc("meminfo", "MemTotal").split()[0]) / _KIB_IN_GIB
    return {
        "command": f"`{command}`",
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "revision": _revision(),
        "machine": f"{cores}, {memory:.0f} GiB, {system}, Linux {platform.release()}",
        "fdatasync": f"{fdatasync_us():.0f} us for 8 KiB, the median of 300",
        "versions": ", ".join((
            f"Python {platform.python_version()}",
            postgres.version().removeprefix("postgres (").replace(")", "", 1),
            f"Node.js {_said_by('node', '--version')}",
            *_pinned(),
        )),
    }  # fmt: skip


def _from_proc(file: str, key: str) -> str:
    lines = Path("/proc", file).read_text(encoding="utf-8").splitlines()
    values = [value.strip() for line in lines for name, _, value in [line.partition(":")]
              if name.strip() == key]  # fmt: skip
    return values[0] if values else "unknown"


def _said_by(program: str, *arguments: str) -> str:
    """What a program prints, or `none` where it is not there or refuses to tell."""
    found = shutil.which(program)
    if found is None:
        return "none"
    said = subprocess.run([found, *arguments], capture_output=True, text=True, check=False)
    return said.stdout.strip() if said.returncode == 0 else "none"


def _revision() -> str:
    git = ("git", "-C", str(_ROOT))
    changed = _said_by(*git, "status", "--porcelain", "--", "sidecar", "tests")
    revision = _said_by(*git, "rev-parse", "--short", "HEAD")
    return f"{revision}, with changes" if changed not in {"", "none"} else revision


def _pinned() -> list[str]:
    """The peers' versions, as they are pinned."""
    python = [
        line.replace("==", " ")
        for file in ("dbos.txt", "restate.txt")
        for line in (_PINS / file).read_text(encoding="utf-8").splitlines()
    ]
    packages = json.loads((_PINS / "package.json").read_text(encoding="utf-8"))["dependencies"]
    every = [*python, *(f"{name} {version}" for name, version in packages.items())]
    return [one for one in every if one.split()[0] in _PINNED]
