"""The folder of an embedded PostgreSQL: what lies in it, who owns it, and what it proves.

lock          flock: whoever holds it runs the server
address.json  where the server listens; kept after its end, so that the port stays the same
password      of the role `goconductor`; readable by the owner alone
pgdata/       the data, moved here in one step when initdb was done
pgdata.new-*  an initdb under way, or one that was cut short: no server ever ran in it
log/          the server's logs, bounded
programs/     a copy of PostgreSQL's programs, only if the server's user cannot reach them
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import secrets
import shutil
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from sidecar.adapters.postgres.embedded_binaries import MAJOR
from sidecar.adapters.postgres.embedded_process import Identity, closed_folder, processes_in
from sidecar.errors import EmbeddedServerError

ROLE = "goconductor"
DATABASE = "postgres"

_NOBODY = 65534  # the number the kernel itself uses, where no such name is known
_KEPT_LOGS = 5
_STATUS = 7  # the line of postmaster.pid with what the server says of itself, its last


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server of a folder listens: its process and its holder's, for people."""

    host: str
    port: int
    user: str
    database: str
    pid: int
    holder: int

    def dsn(self, password: str) -> str:
        """The address as psycopg takes it."""
        return f"postgresql://{self.user}:{password}@{self.host}:{self.port}/{self.database}"


class Folder:
    """One folder, for one server."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()  # as the kernel tells it: see `processes_in`
        self.data = self.path / "pgdata"
        self.log = self.path / "log"
        self.programs = self.path / "programs"
        self.output = self.path / "output"
        self.identity = Identity()
        self._lock: int | None = None

    @property
    def locked(self) -> bool:
        """Whether we hold the lock."""
        return self._lock is not None

    def prepare(self) -> None:
        """Make the folder if it is not there, and settle whom the server runs as.

        Raises:
            EmbeddedServerError: the server's user could not reach its data here.
        """
        root = os.geteuid() == 0
        if root:
            self.identity = self._server_identity()
            self._demand_open(next(path for path in self._way() if path.exists()))
        if not self.path.exists():
            self.path.mkdir(parents=True)
            # The server's own user must pass through a folder of root's, but not look around.
            self.path.chmod(0o711 if root else 0o700)
        if root:
            self._demand_open(self.path)

    def _way(self) -> tuple[Path, ...]:
        return (self.path, *self.path.parents)

    def _demand_open(self, path: Path) -> None:
        closed = closed_folder(path, self.identity)
        if closed is not None:
            raise EmbeddedServerError(
                f"PostgreSQL does not run as root, and user {self.identity.uid}, as whom it "
                f"would run, cannot enter {closed}; choose a folder outside it (such as "
                f"/var/lib/goconductor), run: chmod o+x {closed}, or start as another user"
            )

    def try_lock(self) -> bool:
        """Take the lock if nobody holds it; the kernel drops it when its holder dies."""
        if self._lock is not None:
            return True
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.path / "lock", flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._lock = descriptor
        return True

    def unlock(self) -> None:
        """Let the next one have it; to unlock twice is fine."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def address(self) -> Address | None:
        """Where the last server listened; None if none ever did."""
        try:
            return Address(**json.loads((self.path / "address.json").read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):  # written by another version: as good as none
            return None

    def write_address(self, address: Address) -> None:
        """Tell the others where the server listens; they see the old or the new, never half."""
        self._write("address.json", json.dumps(asdict(address), indent=1) + "\n")

    def password(self) -> str | None:
        """The server's password; None before there is one."""
        with suppress(FileNotFoundError):
            return (self.path / "password").read_text().strip() or None
        return None

    def needs_data(self) -> bool:
        """Whether initdb is to run: there is no data, and there never was.

        Raises:
            EmbeddedServerError: something is there that is not ours to throw away, or to open.
        """
        with suppress(OSError):
            self.data.rmdir()  # only an empty folder lets itself be removed
        if not self.data.exists():
            return True
        version, control = self.data / "PG_VERSION", self.data / "global" / "pg_control"
        if not version.exists() or not control.exists():
            raise EmbeddedServerError(
                f"{self.data} is not a whole PostgreSQL data folder, and it is not empty; nothing "
                "was changed. Restore it from a backup, or move it away to start anew"
            )
        found = version.read_text().strip()
        if found != str(MAJOR):
            raise EmbeddedServerError(
                f"{self.data} was made by PostgreSQL {found}, and this is PostgreSQL {MAJOR}; "
                "nothing was changed. Move the data with pg_dump, or choose another folder"
            )
        if self.password() is None:
            raise EmbeddedServerError(
                f"{self.path / 'password'} is gone, and the data in {self.data} is kept under it; "
                "restore that file"
            )
        return False

    def new_data(self) -> tuple[Path, Path]:
        """An empty folder for initdb and the file with its password, both of the server's user."""
        for unfinished in self.path.glob("pgdata.new-*"):  # no server ever ran in one
            shutil.rmtree(unfinished)
        if self.password() is None:
            self._write("password", secrets.token_urlsafe(32) + "\n")
        new = Path(tempfile.mkdtemp(prefix="pgdata.new-", dir=self.path))
        hint = self._write("initial-password", (self.path / "password").read_text())
        self._give(new)
        self._give(hint)
        return new, hint

    def keep_data(self, new: Path, hint: Path) -> None:
        """What initdb made becomes the data, at once and whole."""
        hint.unlink()
        new.rename(self.data)
        _sync(self.path)

    def ready(self, pid: int) -> bool:
        """Whether the server with this process number says that it takes connections."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return lines[:1] == [str(pid)] and [line.strip() for line in lines[_STATUS:]] == ["ready"]

    def open_log(self) -> None:
        """Make the folder of the logs, of the server's user."""
        self.log.mkdir(mode=0o700, exist_ok=True)
        self._give(self.log)

    def prune_logs(self) -> None:
        """Keep the newest few of the server's logs."""
        for old in self._logs()[:-_KEPT_LOGS]:
            old.unlink(missing_ok=True)

    def newest_log(self) -> Path | None:
        """The log that the server writes now; None if it wrote none."""
        logs = self._logs()
        return logs[-1] if logs else None

    def clear_stale_lock_file(self) -> None:
        """Remove the `postmaster.pid` of a server that is gone.

        The number in it may by now be another process of the same user (in a container it nearly
        always is), and PostgreSQL would refuse to start beside that. We hold the folder's lock,
        and no process stands in the data: that is better proof.
        """
        if not processes_in(self.data):
            (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _logs(self) -> list[Path]:
        return sorted(self.log.glob("postgresql-*.log"))  # the names hold the time

    def _server_identity(self) -> Identity:
        for path in (self.data, self.path):
            if path.exists() and (owner := path.stat()).st_uid != 0:
                return Identity(owner.st_uid, owner.st_gid)
        try:
            nobody = pwd.getpwnam("nobody")
        except KeyError:
            return Identity(_NOBODY, _NOBODY)
        return Identity(nobody.pw_uid, nobody.pw_gid)

    def _give(self, path: Path) -> None:
        if self.identity.uid >= 0:
            os.chown(path, self.identity.uid, self.identity.gid)

    def _write(self, name: str, text: str) -> Path:
        descriptor, part = tempfile.mkstemp(prefix=f".{name}-", dir=self.path)  # mode 0600
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        target = self.path / name
        Path(part).replace(target)
        return target


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
