"""What the architecture tests look at: the project's files, read once, and findings as file:line.

Generated stubs are not ours to keep tidy and are left out everywhere.
"""

from __future__ import annotations

import ast
import functools
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "sidecar"
TESTS = ROOT / "tests"
FAMILIES = ("queues", "stores", "elections", "services")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

_STUBS = PACKAGE / "api" / "grpc" / "stubs"


@dataclass(frozen=True)
class Module:
    """One Python file and its tree."""

    path: Path
    source: str
    tree: ast.Module

    def at(self, line: int, finding: str) -> str:
        """A finding as an editor can open it."""
        return f"{self.path.relative_to(ROOT)}:{line}: {finding}"


def files(folder: Path, *endings: str) -> Iterator[Path]:
    """Every file of ours below a folder, which may not exist."""
    for path in sorted(folder.rglob("*")):
        ours = "__pycache__" not in path.parts and not path.is_relative_to(_STUBS)
        if ours and path.is_file() and path.suffix in endings:
            yield path


def modules(*folders: Path) -> Iterator[Module]:
    """Every Python module below these folders."""
    for folder in folders:
        for path in files(folder, ".py"):
            yield read(path)


@functools.cache
def read(path: Path) -> Module:
    """A module, parsed once."""
    source = path.read_text()
    return Module(path, source, ast.parse(source, filename=str(path)))


def docstrings(tree: ast.AST) -> set[ast.Constant]:
    """The constants of a tree that are documentation, not data."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, *FUNCTIONS)) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                found.add(first.value)
    return found


def texts(tree: ast.AST) -> Iterator[ast.Constant]:
    """Every string of a tree that is data, with the parts of f-strings."""
    documentation = docstrings(tree)
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant))
    for node in constants:
        if isinstance(node.value, str) and node not in documentation:
            yield node


def project_files() -> list[Path]:
    """What is in the repository or is about to be: tracked or new, but not ignored."""
    listed = subprocess.run(
        # A checkout may belong to another account than the one that tests it.
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return sorted({path for path in paths if path.is_file()})


def backend_name(path: Path) -> str | None:
    """The backend that a file or package of an adapters' family implements.

    What a backend's adapters share lies in a room of its own, sidecar/adapters/<backend>/.
    """
    if path.is_dir():
        return path.name if (path / "__init__.py").exists() else None
    return path.stem if path.suffix == ".py" and path.stem != "__init__" else None


def adapters() -> Iterator[tuple[str, str, Path]]:
    """Every adapter of a port: its family, the backend's name, and its file or package."""
    for family in FAMILIES:
        folder = PACKAGE / "adapters" / family
        for path in sorted(folder.iterdir()) if folder.exists() else ():
            name = backend_name(path)
            if name is not None:
                yield family, name, path
