"""Everything the demo runs, built up in order and taken down in the opposite one.

    FOLDER/postgres   the embedded server's folder
    FOLDER/ledgers    the services' books
    FOLDER/logs       what services and sidecars write
    FOLDER/*.yaml     the sidecars' configurations

Without a folder of the user's own it is a temporary one, named after our process; one that a
killed demo left behind is swept by the next.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yaml

from sidecar import wiring
from sidecar.cli.demo.children import Child, DemoError, free_ports
from sidecar.cli.demo.ledger import Entry, read_ledger

SERVICES = ("payments", "inventory", "shipping")

_PREFIX = "goconductor-demo-"
_READY_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Replica:
    """One service and the sidecar beside it; the numbers are loopback ports."""

    service: str
    service_port: int
    http_port: int
    metrics_port: int

    @property
    def api(self) -> str:
        """Where the sidecar's REST API and pages are."""
        return f"http://127.0.0.1:{self.http_port}"

    def config(self, folder: Path) -> dict[str, object]:
        """What stands in the sidecar's file."""
        return {
            "service": self.service,
            "service_url": f"http://127.0.0.1:{self.service_port}",
            "store": {"embedded": str(folder / "postgres")},
            "queue": {"kind": "postgres"},
            "election": {"kind": "postgres"},
            "listen": {
                "http": f"127.0.0.1:{self.http_port}",
                "metrics": f"127.0.0.1:{self.metrics_port}",
            },
        }


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs."""

    folder: Path
    replicas: tuple[Replica, ...]
    http: aiohttp.ClientSession

    def books(self) -> dict[str, list[Entry]]:
        """What the services wrote so far."""
        return {name: read_ledger(_book(self.folder, name)) for name in SERVICES}


@contextmanager
def demo_folder(given: Path | None) -> Iterator[Path]:
    """The folder that was given, or a temporary one that is gone afterwards."""
    if given is not None:
        try:
            given.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DemoError(f"--data: {given} cannot be made: {error.strerror}") from error
        yield given.resolve()
        return
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    folder.chmod(0o711)  # as root the database runs as another user, who must pass through
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@asynccontextmanager
async def open_stage(folder: Path) -> AsyncIterator[Stage]:
    """Start the database, the services and their sidecars; end them all afterwards.

    Raises:
        GoConductorError: something did not start; says what it wrote.
    """
    for name in ("ledgers", "logs"):
        (folder / name).mkdir(exist_ok=True)
    ports = free_ports(3 * len(SERVICES))
    replicas = tuple(Replica(name, *ports[3 * at : 3 * at + 3]) for at, name in enumerate(SERVICES))
    async with AsyncExitStack() as stack:
        # We hold the database ourselves: then its holder is the last to leave.
        await stack.enter_async_context(wiring.embedded_server(folder / "postgres"))
        connections = aiohttp.TCPConnector(limit=0)
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=connections))
        services = await stack.enter_async_context(_together())
        for replica in replicas:
            services.append(await _start_service(folder, replica))
        for child, replica in zip(services, replicas, strict=True):
            await _until_answers(child, http, f"http://127.0.0.1:{replica.service_port}/healthz")
        sidecars = await stack.enter_async_context(_together())
        for replica in replicas:
            sidecars.append(await _start_sidecar(folder, replica))
        for child, replica in zip(sidecars, replicas, strict=True):
            await _until_answers(child, http, f"http://127.0.0.1:{replica.metrics_port}/readyz")
        yield Stage(folder, replicas, http)


def _book(folder: Path, service: str) -> Path:
    return folder / "ledgers" / f"{service}.jsonl"


@asynccontextmanager
async def _together() -> AsyncIterator[list[Child]]:
    """The processes that are put into the list are ended at the same time."""
    children: list[Child] = []
    try:
        yield children
    finally:
        async with asyncio.TaskGroup() as group:
            for child in children:
                group.create_task(child.stop())


async def _start_service(folder: Path, replica: Replica) -> Child:
    return await Child.start(
        f"the {replica.service} service",
        *("-m", "sidecar.cli.demo.service", replica.service),
        *("--port", str(replica.service_port)),
        *("--ledger", str(_book(folder, replica.service))),
        log=folder / "logs" / f"{replica.service}-service.log",
    )


async def _start_sidecar(folder: Path, replica: Replica) -> Child:
    config = folder / f"{replica.service}.yaml"
    config.write_text(yaml.safe_dump(replica.config(folder), sort_keys=False))
    return await Child.start(
        f"the sidecar of {replica.service}",
        *("-m", "sidecar.cli.main", "sidecar", "--config", str(config)),
        log=folder / "logs" / f"{replica.service}-sidecar.log",
    )


async def _until_answers(child: Child, http: aiohttp.ClientSession, url: str) -> None:
    async def answers() -> bool:
        try:
            async with http.get(url, timeout=aiohttp.ClientTimeout(total=2)) as answer:
                return answer.ok
        except (aiohttp.ClientError, TimeoutError):
            return False

    await child.until(answers, within_s=_READY_WITHIN_S)


def _sweep() -> None:
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = left.name.removeprefix(_PREFIX).partition("-")[0]
        ours = left.is_dir() and not left.is_symlink() and left.stat().st_uid == os.geteuid()
        if ours and pid.isdecimal() and not Path("/proc", pid).exists():
            shutil.rmtree(left, ignore_errors=True)  # another demo may be sweeping too
