"""What is wrong with a document, said so that whoever wrote it can mend it.

A finding has a path (`steps[2].after[0]`), a sentence that says what to write instead, and,
where the format gives one, a line. Values are never repeated: a document may hold secrets.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sidecar.errors import DefinitionError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Path = tuple[str | int, ...]
"""Where a value stands: keys and indexes from the root."""

MOST = 100
"""How many findings are told at once; more would bury the first."""
_LISTED = 30
"""As many known names are listed when none is near."""
_GUESSES = 20
"""After so many findings no nearest name is looked for: that takes time, and is a gift."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a text; both numbers count from 1."""

    line: int
    column: int


@dataclass(slots=True)
class Findings:
    """Collects what is wrong; `positions` says where the values of the document stand."""

    positions: Mapping[Path, Position] = field(default_factory=dict)
    found: dict[tuple[Path, str], None] = field(default_factory=dict)

    def add(self, path: Path, text: str, *, at: Position | None = None) -> None:
        """Keep one finding; a second at the same path with the same text is dropped.

        Without `at` the line is that of the value, or of what it should stand in.
        """
        if at is not None:
            text = f"{text} (line {at.line}, column {at.column})"
        elif (place := self._nearest(path)) is not None:
            text = f"{text} (line {place.line})"
        self.found.setdefault((path, text))

    def add_unknown(self, path: Path, what: str, name: str, known: Iterable[str]) -> None:
        """Keep the finding that there is no such name, with the nearest one if there is time."""
        tired = len(self.found) >= _GUESSES
        self.add(path, unknown_name(what, name, () if tired else known))

    def _nearest(self, path: Path) -> Position | None:
        for length in range(len(path), -1, -1):
            if (place := self.positions.get(path[:length])) is not None:
                return place
        return None

    def problems(self) -> list[tuple[str, str]]:
        """All findings, the paths in writing; what exceeds `MOST` is only counted."""
        told = [(written(path), text) for path, text in list(self.found)[:MOST]]
        if (rest := len(self.found) - MOST) > 0:
            told.append(("", f"and {rest} more problems"))
        return told

    def check(self) -> None:
        """Raise `DefinitionError` with everything that was found, if anything was."""
        if self.found:
            raise DefinitionError(self.problems())


def written(path: Path) -> str:
    """Write a path as people do: `steps[2].after[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{shown(part)}" if text else shown(part)
    return text


def shown(text: str, most: int = 80) -> str:
    """Text from a document, cut and without line breaks or control characters."""
    safe = "".join(char if char.isprintable() else "?" for char in text[: most + 1])
    return safe if len(safe) <= most else f"{safe[:most]}..."


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` is most likely meant to be."""
    found = difflib.get_close_matches(name[:80], list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Say that there is no such name, with the nearest one, or else all there are."""
    known = sorted(known)
    if (close := nearest(name, known)) is not None:
        return f"{what} {shown(name)!r}; did you mean {close!r}?"
    if 0 < len(known) <= _LISTED:
        return f"{what} {shown(name)!r}; there are: {', '.join(known)}"
    return f"{what} {shown(name)!r}"


_SHAPES = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "mapping_type": "must be a mapping of keys to values",
    "missing": "is missing; it must be given",
    "path_type": "must be the path of a folder",
}
_BOUNDS = {
    "greater_than_equal": ("must be at least {}", "ge"),
    "greater_than": ("must be more than {}", "gt"),
    "less_than_equal": ("must be at most {}", "le"),
    "less_than": ("must be less than {}", "lt"),
    "too_long": ("holds too many elements; at most {}", "max_length"),
    "too_short": ("holds too few elements; at least {}", "min_length"),
    "string_too_long": ("is too long; at most {} characters", "max_length"),
    "string_too_short": ("is too short; at least {} characters", "min_length"),
    "literal_error": ("must be {}", "expected"),
    "enum": ("must be {}", "expected"),
}


def sentence(error: ErrorDetails) -> str:
    """Turn one complaint of pydantic into a sentence, without the value complained of."""
    kind, context = error["type"], dict[str, Any](error.get("ctx") or {})
    if kind == "value_error":
        return str(context["error"])
    if kind in _BOUNDS:
        text, key = _BOUNDS[kind]
        return text.format(context.get(key))
    return _SHAPES.get(kind, error["msg"])
