"""The databases of worlds: `migrate` makes one in each server, the others are copies of it."""

from __future__ import annotations

import subprocess
import sys
from weakref import WeakSet

from tests.servers.postgres import PostgresServer

_TEMPLATE = "chaos_migrated"
_have_it: WeakSet[PostgresServer] = WeakSet()


def create_migrated(server: PostgresServer, name: str) -> str:
    """Make a database with our schema in it; its DSN."""
    if server not in _have_it:
        server.drop_database(_TEMPLATE)  # what a migration that failed has left
        dsn = server.create_database(_TEMPLATE)
        migrate = (sys.executable, "-m", "sidecar.cli.main", "migrate", "--dsn", dsn)
        subprocess.run(migrate, check=True, stdout=subprocess.DEVNULL)
        _have_it.add(server)
    return server.create_database(name, template=_TEMPLATE)
