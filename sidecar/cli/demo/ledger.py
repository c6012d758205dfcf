"""The book of one demo service: a file of JSON lines that only grows.

An entry is on the disk before its answer leaves the service, and holds that answer, so that the
same key is always answered alike. A last line that was cut short was never answered for, and is
dropped. One process writes a book; others may read it meanwhile.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path


class Fact(StrEnum):
    """What an entry says of its effect."""

    APPLIED = "applied"
    REFUSED = "refused"
    UNDONE = "undone"
    BARRED = "barred"
    """Nothing had been applied, and now nothing will be: the compensation came first."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. `effect` names what is applied at most once: the workflow and its step."""

    fact: Fact
    key: str
    effect: str
    order: str
    amount: int
    status: int
    answer: dict[str, object]


class Ledger:
    """One book, open for writing."""

    def __init__(self, path: Path) -> None:
        """Open or make the file, and read what stands in it."""
        whole = _whole_lines(path)
        self._file = path.open("r+b" if path.exists() else "w+b")
        self._file.truncate(len(whole))
        self._file.seek(0, os.SEEK_END)
        self._by_key: dict[str, Entry] = {}
        self._facts: set[tuple[str, Fact]] = set()
        for entry in _parse(whole):
            self._note(entry)

    def answered(self, key: str) -> Entry | None:
        """What this key was answered before, if it was."""
        return self._by_key.get(key)

    def says(self, effect: str, fact: Fact) -> bool:
        """Whether the book says this of an effect."""
        return (effect, fact) in self._facts

    def write(self, entry: Entry) -> None:
        """Add an entry; when this returns it is on the disk."""
        self._file.write(json.dumps(asdict(entry)).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._note(entry)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _note(self, entry: Entry) -> None:
        self._by_key[entry.key] = entry
        self._facts.add((entry.effect, entry.fact))


def read_ledger(path: Path) -> list[Entry]:
    """All whole entries of a book; none if there is no book yet."""
    return _parse(_whole_lines(path))


def _whole_lines(path: Path) -> bytes:
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def _parse(lines: bytes) -> list[Entry]:
    found = (json.loads(line) for line in lines.splitlines())
    return [Entry(**{**fields, "fact": Fact(fields["fact"])}) for fields in found]
