"""Inputs with expressions in them: found, compiled and checked once, rendered often.

A string that is one expression, `"${input.amount}"`, keeps the type of its result; with text
around it, or several in one string, the result is text. `$${` writes a plain `${`.

A compiled template is a flat list of JSON fragments with the expressions between them, so
rendering is joining. What a template renders is canonical: keys sorted, no spaces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sidecar.definitions.bodies import read_json, write_json
from sidecar.definitions.data import Data
from sidecar.definitions.documents import Document, canonical
from sidecar.definitions.expressions import Cel, Expression, Flaw, Language, Reference
from sidecar.definitions.findings import Findings, Path, Position, shown, unknown_name, written
from sidecar.definitions.work import MOST_FORWARD, MOST_WORK, SLOT, Work
from sidecar.errors import RenderError
from sidecar.saga.definition import JsonText, Scope, Template

MAX_RESULT = 1024 * 1024
"""The largest rendered input, in bytes of UTF-8."""
MAX_EXPRESSIONS = 2_000
"""How many expressions one definition may hold."""
MAX_NODES = 20_000
"""How many names, values, operators and so on all its expressions may have, macros written out."""

_WORKFLOW = ("id", "definition", "version")


@dataclass(frozen=True, slots=True)
class Visible:
    """Which steps a template may read: those that have ended before it is rendered.

    `known` are all steps of the definition; `step` is the one whose template it is.
    """

    step: str
    steps: frozenset[str]
    known: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where a result goes: as JSON of its own, or (`in_text`) inside a JSON string."""

    expression: Expression
    path: Path
    in_text: bool


_Parts = tuple[str | _Slot, ...]


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A compiled template; `undo` says that it is the input of a compensation."""

    parts: _Parts
    undo: bool


class TemplateCompiler:
    """Compiles the templates of one document, and keeps what it finds wrong with them."""

    def __init__(self, document: Document, findings: Findings, language: Language) -> None:
        self._document, self._findings, self._language = document, findings, language
        self._expressions = 0
        self._nodes = 0

    def compile(self, value: Any, path: Path, visible: Visible) -> Template:
        """Compile one template; if findings were added it must not be used."""
        parts: list[str | _Slot] = []
        reads: set[str] = set()
        self._value(value, path, visible, parts, reads)
        joined = _joined(parts)
        if all(isinstance(part, str) for part in joined):
            source = JsonText("".join(part for part in joined if isinstance(part, str)))
            return Template(source, constant=True)
        compiled = _Compiled(joined, undo="compensate" in path)
        return Template(canonical(value), False, frozenset(reads), compiled)

    def _value(
        self, value: Any, path: Path, visible: Visible, parts: list[str | _Slot], reads: set[str]
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
        self, text: str, path: Path, visible: Visible, parts: list[str | _Slot], reads: set[str]
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
                parts.append(_Slot(compiled, path, in_text=not whole))
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


def _misnamed(reference: Reference, visible: Visible) -> str | None:
    """What is wrong with a chain of names, if anything is."""
    match reference.names:
        case ("workflow", *rest) if len(rest) != 1 or rest[0] not in _WORKFLOW:
            return "write workflow.id, workflow.definition or workflow.version"
        case ("steps",):
            return "name one step: steps.<name>.output or steps.<name>.status"
        case ("steps", step, *rest):
            return _unseen(step, visible) or _no_field(step, rest)
    return None


def _unseen(step: str, visible: Visible) -> str | None:
    if step not in visible.known:
        return unknown_name("there is no step", step, visible.known)
    if step in visible.steps:
        return None
    if step == visible.step:
        return f"{step!r} is this very step; its output does not exist yet"
    return (
        f"{step!r} does not come before {visible.step!r}, so its output may not exist; "
        f"add {step!r} to `after` of {visible.step!r}"
    )


def _no_field(step: str, rest: list[str]) -> str | None:
    if rest[:1] == ["output"] or rest == ["status"]:
        return None
    return f"write steps.{step}.output or steps.{step}.status"


def _joined(parts: list[str | _Slot]) -> _Parts:
    """Put neighbouring fragments together."""
    joined: list[str | _Slot] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(last := joined[-1], str):
            joined[-1] = last + part
        else:
            joined.append(part)
    return tuple(joined)


# -- finding expressions in text --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """An expression found in a text; `offset` is where it begins, after the `${`."""

    text: str
    offset: int


def split(text: str) -> list[str | Source] | Flaw:
    """Part a text into plain text and expressions."""
    pieces: list[str | Source] = []
    plain, at = "", 0
    while at < len(text):
        if text.startswith("$${", at):
            plain, at = plain + "${", at + 3
        elif text.startswith("${", at):
            end = _closing(text, at + 2)
            if end is None:
                return Flaw("`${` is not closed; add `}`, or write `$${` for a plain `${`", at)
            pieces.extend([plain] if plain else [])
            pieces.append(Source(text[at + 2 : end], at + 2))
            plain, at = "", end + 1
        else:
            following = text.find("$", at + 1)
            following = len(text) if following < 0 else following
            plain, at = plain + text[at:following], following
    pieces.extend([plain] if plain else [])
    return pieces


def _closing(text: str, at: int) -> int | None:
    """Where the `}` stands that ends the expression; those in strings and maps do not."""
    depth = 0
    while at < len(text):
        char = text[at]
        if char in "\"'":
            at = _after_string(text, at)
            continue
        if text.startswith("//", at):
            line_end = text.find("\n", at)
            at = len(text) if line_end < 0 else line_end
            continue
        if char == "{":
            depth += 1
        elif char == "}":
            if depth == 0:
                return at
            depth -= 1
        at += 1
    return None


def _after_string(text: str, at: int) -> int:
    """The place after the CEL string literal whose quote stands at `at`."""
    raw = _is_raw(text, at)
    quote = text[at] * 3 if text.startswith(text[at] * 3, at) else text[at]
    at += len(quote)
    while at < len(text) and not text.startswith(quote, at):
        at += 2 if text[at] == "\\" and not raw else 1
    return at + len(quote)


def _is_raw(text: str, at: int) -> bool:
    """Whether the letters right before a quote make the string raw: r, br, rb."""
    begin = at
    while begin > 0 and text[begin - 1].isalnum():
        begin -= 1
    return text[begin:at].lower() in ("r", "br", "rb")


# -- rendering --------------------------------------------------------------------------------


class _Seen:
    """What one transition has seen: read once, however many templates read it."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._texts: dict[str, JsonText] = {}
        self._steps: dict[str, dict[str, Any]] = {}
        workflow = {
            "id": scope.workflow_id,
            "definition": scope.definition,
            "version": scope.version,
        }
        self._values: dict[str, Any] = {"steps": self._steps, "workflow": workflow}
        self._forward = Work(MOST_FORWARD)
        self._back: Work | None = None
        self.data = Data(self._values, self._forward)

    def take(self, compiled: _Compiled) -> None:
        """Make ready what a template reads, and the budget that pays for it."""
        if compiled.undo:
            self._back = self._back or Work(MOST_WORK - self._forward.done)
        self.data.work = self._back or self._forward
        self.data.work.spend(len(compiled.parts) * SLOT)
        for part in compiled.parts:
            for one in () if isinstance(part, str) else part.expression.references:
                self._take(one.names)

    def _take(self, names: tuple[str, ...]) -> None:
        if names[0] == "input" and "input" not in self._values:
            self._values["input"] = self._parsed(self._scope.input, "input")
        elif names[0] == "steps":
            step = self._steps.setdefault(names[1], {})
            if names[2] == "status" and names[1] in self._scope.statuses:
                step["status"] = self._scope.statuses[names[1]]
            elif names[2] == "output":
                self._take_output(names[1], step)

    def _take_output(self, name: str, step: dict[str, Any]) -> None:
        text = self._scope.outputs.get(name)
        if text is None:
            step["output"] = None
        elif self._texts.get(name) is not text:
            step["output"] = self._parsed(text, name)
            self._texts[name] = text

    def _parsed(self, text: JsonText, what: str) -> Any:
        try:
            return read_json(text, self.data.work)
        except ValueError as error:
            raise RenderError(f"{shown(what)} cannot be read as JSON") from error


def render(template: Template, scope: Scope) -> JsonText:
    """Fill a template: the `Render` that the machine is given. Raises `RenderError`.

    Whatever else goes wrong is one too: a transition ends with a step that failed and says why,
    never with an exception that would come again at every try.
    """
    if template.constant:
        return template.source
    try:
        return _rendered(template.compiled, scope)
    except RenderError:
        raise
    except Exception as error:
        raise RenderError(f"cannot be rendered: {type(error).__name__}") from error


def _rendered(compiled: _Compiled, scope: Scope) -> JsonText:
    seen = scope.kept.get("seen")
    if seen is None:
        seen = scope.kept["seen"] = _Seen(scope)
    seen.take(compiled)
    rendered: list[str] = []
    size = 0
    for part in compiled.parts:
        text = part if isinstance(part, str) else _fill(part, seen.data)
        size += len(text)
        if size > MAX_RESULT:
            raise RenderError(f"the rendered input is larger than {MAX_RESULT // 1024} KiB")
        rendered.append(text)
    whole = "".join(rendered)
    try:
        encoded = len(whole.encode())
    except UnicodeEncodeError as error:
        raise RenderError("the rendered input holds half of a surrogate pair") from error
    if encoded > MAX_RESULT:
        raise RenderError(f"the rendered input is larger than {MAX_RESULT // 1024} KiB")
    return JsonText(whole)


def _fill(slot: _Slot, data: Data) -> str:
    try:
        value = slot.expression.evaluate(data)
        text = write_json(value, data.work)
        if not slot.in_text:
            return text
        return text[1:-1] if isinstance(value, str) else write_json(text, data.work)[1:-1]
    except RenderError as error:
        raise RenderError(f"{written(slot.path)}: {error.message}") from error


CEL: Language = Cel()
"""The language of this version; one environment serves all definitions."""
