"""Templates: data with expressions in it, found, compiled and checked once, rendered often.

A string that is one expression, `"${input.amount}"`, keeps the type of its result; with text
around it, or several in one string, the result is text. `$${` writes a plain `${`.

A compiled template is a flat list of JSON fragments with the expressions between them, so
rendering (see `rendering`) is joining. What a template renders is canonical: keys sorted, no
spaces.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sidecar.definitions.documents import Document, canonical
from sidecar.definitions.expressions import Cel, Expression, Flaw, Language, Reference
from sidecar.definitions.findings import Findings, Path, Position, unknown_name
from sidecar.definitions.splitting import Source, split
from sidecar.saga.definition import JsonText, Template
from sidecar.saga.moments import parse_moment

MAX_EXPRESSIONS = 2_000
"""How many expressions one definition may hold."""
MAX_NODES = 20_000
"""How many names, values, operators and so on all its expressions may have, macros written out."""

_WORKFLOW = ("id", "definition", "version")


@dataclass(frozen=True, slots=True)
class Visible:
    """Which steps a template may read: those that have ended before it is rendered.

    `known` are all steps of the definition; `step` is the one whose template it is, "" if it is
    the workflow's own. `each` says whether it is rendered for an item of a fan-out.
    """

    step: str
    steps: frozenset[str]
    known: frozenset[str]
    each: bool = False


@dataclass(frozen=True, slots=True)
class Wish:
    """What a template must be: one expression whose result can be of this kind."""

    kind: str
    words: str


TRUTH = Wish("BOOL", "gives true or false, like ${input.amount > 100}")
LIST = Wish("LIST", "gives a list, like ${input.lines}")
TIME = Wish("STRING", "gives a time as RFC 3339 text, like ${input.due}; or write the time itself")
"""This one may be text as well: `2030-01-31T12:00:00Z`, `${input.day}T12:00:00Z`."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a result goes: as JSON of its own, or (`in_text`) inside a JSON string."""

    expression: Expression
    path: Path
    in_text: bool


_Parts = tuple[str | Slot, ...]


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled template; `undo` says that it is the input of a compensation.

    `chains` is all that its expressions read.
    """

    parts: _Parts
    undo: bool
    chains: tuple[tuple[str, ...], ...]


class TemplateCompiler:
    """Compiles the templates of one document, and keeps what it finds wrong with them."""

    def __init__(self, document: Document, findings: Findings, language: Language) -> None:
        self._document, self._findings, self._language = document, findings, language
        self._expressions = 0
        self._nodes = 0

    def compile(
        self, value: Any, path: Path, visible: Visible, wish: Wish | None = None
    ) -> Template:
        """Compile one template; if findings were added it must not be used."""
        parts: list[str | Slot] = []
        reads: set[str] = set()
        self._value(value, path, visible, parts, reads)
        joined = _joined(parts)
        if wish is not None and isinstance(value, str):
            self._check(joined, path, wish)
        if all(isinstance(part, str) for part in joined):
            source = JsonText("".join(part for part in joined if isinstance(part, str)))
            return Template(source, constant=True)
        chains = {
            one.names
            for part in joined
            if isinstance(part, Slot)
            for one in part.expression.references
        }
        compiled = Compiled(joined, "compensate" in path, tuple(sorted(chains)))
        return Template(canonical(value), False, frozenset(reads), compiled)

    def _check(self, parts: _Parts, path: Path, wish: Wish) -> None:
        """Whether it is what it must be; of what has a flaw already there are no parts."""
        match parts:
            case (Slot(expression, _, False),):
                gives = expression.gives
                if gives not in (wish.kind, "DYN"):
                    kind = _KINDS.get(gives, gives.lower())
                    self._findings.add(path, f"gives {kind}; write one that {wish.words}")
            case (str() as constant,) if wish is TIME:
                try:
                    parse_moment(json.loads(constant))
                except ValueError as error:
                    self._findings.add(path, str(error))
            case (_, *_) if wish is not TIME:
                self._findings.add(path, f"must be one expression that {wish.words}")

    def _value(
        self, value: Any, path: Path, visible: Visible, parts: list[str | Slot], reads: set[str]
    ) -> None:
        if isinstance(value, str):
            self._text(value, path, visible, parts, reads)
        elif isinstance(value, dict):
            opening = "{"
            for key in sorted(value):
                if "${" in key.replace("$${", ""):
                    self._findings.add(
                        (*path, key), "a key cannot hold an expression; only values can"
                    )
                parts.append(f"{opening}{canonical(key.replace('$${', '${'))}:")
                self._value(value[key], (*path, key), visible, parts, reads)
                opening = ","
            parts.append("}" if value else "{}")
        elif isinstance(value, list):
            parts.append("[")
            for index, one in enumerate(value):
                parts.extend([","] if index else [])
                self._value(one, (*path, index), visible, parts, reads)
            parts.append("]")
        else:
            parts.append(canonical(value))

    def _text(
        self, text: str, path: Path, visible: Visible, parts: list[str | Slot], reads: set[str]
    ) -> None:
        pieces = split(text)
        if isinstance(pieces, Flaw):
            self._flaw(text, path, pieces)
            return
        whole = len(pieces) == 1 and isinstance(pieces[0], Source)
        parts.append("" if whole else '"')
        for piece in pieces:
            if isinstance(piece, str):
                parts.append(canonical(piece)[1:-1])
            elif (compiled := self._compile(text, piece, path, visible, reads)) is not None:
                parts.append(Slot(compiled, path, in_text=not whole))
        parts.append("" if whole else '"')

    def _compile(
        self, text: str, piece: Source, path: Path, visible: Visible, reads: set[str]
    ) -> Expression | None:
        self._expressions += 1
        if self._expressions > MAX_EXPRESSIONS:
            self._findings.add((), f"holds more than {MAX_EXPRESSIONS} expressions")
            return None
        if self._nodes > MAX_NODES:
            return None
        compiled = self._language.compile(piece.text)
        if isinstance(compiled, list):
            for flaw in compiled:
                self._flaw(text, path, Flaw(flaw.message, flaw.offset + piece.offset))
            return None
        self._nodes += compiled.nodes
        if self._nodes > MAX_NODES:
            self._findings.add((), f"holds expressions of more than {MAX_NODES} parts in all")
            return None
        for one in compiled.references:
            message = _misnamed(one, visible)
            if message is not None:
                self._flaw(text, path, Flaw(message, one.offset + piece.offset))
            elif one.names[0] == "steps" and one.names[2] == "output":
                reads.add(one.names[1])
        return compiled

    def _flaw(self, text: str, path: Path, flaw: Flaw) -> None:
        """Say where in the document, or at least where in its text, the flaw is."""
        begin = self._document.positions.get(path)
        if begin is not None and begin.line <= len(self._document.lines):
            line = self._document.lines[begin.line - 1]
            # Exact only if the text stands in the document as it is, without escapes.
            for quote in (0, 1):
                column = begin.column - 1 + quote
                if line[column : column + len(text)] == text:
                    at = Position(begin.line, column + flaw.offset + 1)
                    self._findings.add(path, flaw.message, at=at)
                    return
        before = text[: flaw.offset]
        row, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        self._findings.add(path, f"{flaw.message} (line {row}, column {column} of the text)")


_KINDS = {
    "BOOL": "true or false",
    "INT": "a number",
    "UINT": "a number",
    "DOUBLE": "a number",
    "STRING": "text",
    "LIST": "a list",
    "MAP": "a mapping",
    "NULL": "null",
    "TIMESTAMP": "a timestamp, not text",
    "DURATION": "a duration",
}


def _misnamed(reference: Reference, visible: Visible) -> str | None:
    """What is wrong with a chain of names, if anything is."""
    match reference.names:
        case ("workflow", *rest) if len(rest) != 1 or rest[0] not in _WORKFLOW:
            return "write workflow.id, workflow.definition or workflow.version"
        case ("steps",):
            return "name one step: steps.<name>.output or steps.<name>.status"
        case ("steps", step, *rest):
            return _unseen(step, visible) or _no_field(step, rest)
        case ("each", *_) if not visible.each:
            return "`each` is seen by `input` and `compensate.input` of a step with `for_each` only"
        case ("each", *rest) if rest[:1] != ["item"] and rest != ["index"]:
            return "write each.item or each.index"
    return None


def _unseen(step: str, visible: Visible) -> str | None:
    if step not in visible.known:
        return unknown_name("there is no step", step, visible.known)
    if step in visible.steps:
        return None
    if step == visible.step:
        return f"{step!r} is this very step; its output does not exist yet"
    if not visible.step:
        return "this is asked before any step runs; it sees `input` and `workflow` only"
    return (
        f"{step!r} does not come before {visible.step!r}, so its output may not exist; "
        f"add {step!r} to `after` of {visible.step!r}"
    )


def _no_field(step: str, rest: list[str]) -> str | None:
    if rest[:1] == ["output"] or rest == ["status"]:
        return None
    return f"write steps.{step}.output or steps.{step}.status"


def _joined(parts: list[str | Slot]) -> _Parts:
    """Put neighbouring fragments together."""
    joined: list[str | Slot] = []
    for part in parts:
        if part == "":
            continue
        if isinstance(part, str) and joined and isinstance(last := joined[-1], str):
            joined[-1] = last + part
        else:
            joined.append(part)
    return tuple(joined)


CEL: Language = Cel()
"""The language of this version; one environment serves all definitions."""
