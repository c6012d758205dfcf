"""Where the script `install` has put the peers."""

from __future__ import annotations

from pathlib import Path

from tests.servers.processes import ServerMissingError

SERVICES = Path(__file__).parent / "services"
_PEERS = Path(__file__).parents[3] / ".cache" / "bench-peers"


def program(environment: str, name: str) -> Path:
    """A program of one peer's virtual environment."""
    return _there(_PEERS / environment / "bin" / name)


def node_modules() -> Path:
    """The folder of what came from npm."""
    return _there(_PEERS / "node" / "node_modules")


def restate_server() -> Path:
    """Restate's server for this machine."""
    found = list(node_modules().glob("@restatedev/restate-server-*/bin/restate-server"))
    if len(found) != 1:
        raise ServerMissingError("Restate is not installed: run tests/benchmarks/peers/install")
    return found[0]


def _there(path: Path) -> Path:
    if not path.exists():
        raise ServerMissingError(f"no {path}: run tests/benchmarks/peers/install")
    return path
