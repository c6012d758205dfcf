"""From bytes to plain data, and from plain data to the one way of writing it.

Nothing of a document is trusted. Its size is looked at first; YAML is read as a stream of
events, so depth, number of nodes, anchors, aliases and tags are refused before anything is
built from them, and no constructor of a YAML library ever runs. Scalars follow the core
schema of YAML 1.2: `no` and `on` are text, `2024-01-01` is text, `010` is ten.

What comes out is JSON data: None, bool, int (64 bits), float (finite), str, list, dict.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from sidecar.definitions.findings import Findings, Path, Position, shown, written
from sidecar.errors import DefinitionError
from sidecar.saga.definition import JsonText

Format = Literal["yaml", "json"]

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_NODES = 50_000

_FORMATS: dict[str, Format] = {
    "yaml": "yaml",
    "json": "json",
    "application/yaml": "yaml",
    "application/x-yaml": "yaml",
    "text/yaml": "yaml",
    "text/x-yaml": "yaml",
    "application/json": "json",
}


@dataclass(frozen=True, slots=True)
class Document:
    """Plain data, where its values stand, and the text they were read from."""

    value: Any
    positions: dict[Path, Position] = field(default_factory=dict)
    lines: tuple[str, ...] = ()


def format_of(content_type: str) -> Format:
    """The format that a content type, or the bare word, stands for."""
    bare = content_type.partition(";")[0].strip().lower()
    if bare not in _FORMATS:
        raise _refused(
            f"{shown(bare)!r} is not a format this version reads; "
            "send application/yaml or application/json"
        )
    return _FORMATS[bare]


def read_document(text: bytes | str, form: Format) -> Document:
    """Read YAML or JSON. Raises `DefinitionError`."""
    size = len(text) if isinstance(text, bytes) else len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise _refused(f"is larger than {MAX_BYTES // 1024} KiB; split it into smaller documents")
    decoded = _decode(text)
    return _read_json(decoded) if form == "json" else _read_yaml(decoded)


def canonical(value: Any) -> JsonText:
    """The one way of writing plain data: keys sorted, no spaces, UTF-8 as it is."""
    text = json.dumps(
        value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    )
    return JsonText(text)


def digest(document: JsonText) -> str:
    """The SHA-256 (hex) of a canonical document."""
    return hashlib.sha256(document.encode()).hexdigest()


def _refused(text: str, path: str = "") -> DefinitionError:
    return DefinitionError([(path, text)])


def _decode(text: bytes | str) -> str:
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        decoded.encode()
    except UnicodeDecodeError as error:
        raise _refused(f"is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except UnicodeEncodeError as error:
        raise _refused("holds half of a surrogate pair; send UTF-8 text") from error
    return decoded.removeprefix("\ufeff")


# -- JSON -----------------------------------------------------------------------------------


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it was written, doubled keys and all."""


def _no_constant(name: str) -> Any:
    raise _refused(f"holds {name}, which is not JSON; write a number or null")


def _read_json(text: str) -> Document:
    try:
        raw = json.loads(text, object_pairs_hook=_Pairs, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        where = f"(line {error.lineno}, column {error.colno})"
        raise _refused(f"is not JSON: {error.msg} {where}") from error
    except RecursionError as error:
        raise _refused(f"is nested deeper than {MAX_DEPTH} levels; flatten it") from error
    except ValueError as error:  # Python refuses to read numbers of thousands of digits
        raise _refused("holds a number that is too long; keep to 64 bits") from error
    findings = Findings()
    builder = _Builder(findings)
    _build_json(builder, raw)
    findings.check()
    return Document(value=builder.root)


def _build_json(builder: _Builder, value: Any) -> None:
    """Feed parsed JSON to the builder, which checks it as it checks YAML."""
    if isinstance(value, _Pairs):
        builder.open({}, None)
        for key, child in value:
            builder.key(key, None)
            _build_json(builder, child)
        builder.close()
    elif isinstance(value, list):
        builder.open([], None)
        for child in value:
            _build_json(builder, child)
        builder.close()
    else:
        builder.scalar(value, None)


# -- YAML -----------------------------------------------------------------------------------

_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", re.ASCII)
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_SURROGATE = re.compile("[\ud800-\udfff]")
_CORE_TAGS = {f"tag:yaml.org,2002:{name}": name for name in ("str", "seq", "map")}
_DIGITS = 20
"""No 64-bit number has more; longer ones are not even converted."""

# libyaml is some ten times faster; the parser in Python tells the same events.
_LOADER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


def _read_yaml(text: str) -> Document:
    findings = Findings()
    builder = _Builder(findings)
    try:
        _parse_yaml(builder, text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if mark:
            _refuse_before(text[: mark.index])
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise _refused(f"is not YAML: {error.problem or error.context}{where}") from error
    except yaml.YAMLError as error:
        raise _refused("is not YAML: it holds a character that is not allowed") from error
    findings.check()
    if builder.documents == 0:
        raise _refused("is empty; write a mapping with `name` and `steps`")
    return Document(builder.root, builder.positions, tuple(text.split("\n")))


def _parse_yaml(builder: _Builder, text: str) -> None:
    for event in yaml.parse(text, Loader=_LOADER):
        _feed(builder, event)


def _refuse_before(text: str) -> None:
    """Refuse in our words what comes before the place where the parser gave up.

    A parser reads some way ahead of the events that it tells, and may have limits of its own:
    the newest PyYAML ends at a thousand levels before it told of the first one.
    """
    with contextlib.suppress(yaml.YAMLError):
        _parse_yaml(_Builder(Findings()), text)


def _feed(builder: _Builder, event: Any) -> None:
    """Pass one event on; refuse what a definition never needs."""
    at = Position(event.start_mark.line + 1, event.start_mark.column + 1)
    if isinstance(event, yaml.DocumentStartEvent):
        builder.documents += 1
        if builder.documents > 1:
            raise _refused(f"holds more than one YAML document; send one (line {at.line})")
    elif isinstance(event, yaml.AliasEvent):
        raise builder.refuse(
            "begins with *, an alias, which is not read; quote text, or write it out", at
        )
    elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
        builder.close()
    elif isinstance(event, yaml.NodeEvent):
        if event.anchor is not None:
            raise builder.refuse("begins with &, an anchor, which is not read; quote text", at)
        tag = getattr(event, "tag", None)
        if isinstance(tag, str) and tag != "!" and tag not in _CORE_TAGS:
            raise builder.refuse(
                "begins with !, a tag, which is not read; quote text, or leave it out", at
            )
        if isinstance(event, yaml.ScalarEvent):
            _feed_scalar(builder, event, at)
        else:
            builder.open({} if isinstance(event, yaml.MappingStartEvent) else [], at)


def _feed_scalar(builder: _Builder, event: Any, at: Position) -> None:
    if builder.wants_key:
        # Keys are text whatever they look like: `409:` is the same as `"409":` in JSON.
        builder.key(event.value, at)
    elif event.implicit[0]:  # neither quoted nor tagged
        builder.scalar(_plain(builder, event.value, at), at)
    else:
        builder.scalar(event.value, at)


def _plain(builder: _Builder, text: str, at: Position) -> Any:
    """What an unquoted scalar means by the core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        if len(text) > _DIGITS + 2:
            builder.fault("is a number beyond 64 bits; quote it", at)
            return 0
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text, base)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NOT_FINITE.fullmatch(text):
        builder.fault("is not a finite number, so it is not JSON", at)
        return 0
    return text


# -- building -------------------------------------------------------------------------------


class _Builder:
    """Builds plain data from a stream of events and holds it to the limits."""

    def __init__(self, findings: Findings) -> None:
        self.root: Any = None
        self.positions: dict[Path, Position] = {}
        self.documents = 0
        self._findings = findings
        self._nodes = 0
        self._open: list[dict[str, Any] | list[Any]] = []
        self._path: list[str | int] = []
        self._key: str | None = None

    @property
    def wants_key(self) -> bool:
        """Whether the next thing is the key of a mapping."""
        return bool(self._open) and isinstance(self._open[-1], dict) and self._key is None

    def refuse(self, text: str, at: Position | None) -> DefinitionError:
        """The error for what ends the reading at once."""
        where = f" (line {at.line})" if at else ""
        return _refused(f"{text}{where}", written(self._here()))

    def fault(self, text: str, at: Position | None) -> None:
        """Keep a finding about the value that comes now, and read on."""
        self._findings.add(self._here(), text, at=at)

    def key(self, key: str, at: Position | None) -> None:
        """The key of the pair that comes now."""
        self._count(at)
        mapping = self._open[-1]
        self._key = key
        if key in mapping:
            self.fault("is given twice; keep one of the two", at)
        self._check_text(key, at)

    def scalar(self, value: Any, at: Position | None) -> None:
        """A value without children."""
        if self.wants_key:
            raise self.refuse("a key must be text", at)
        self._count(at)
        if isinstance(value, str):
            self._check_text(value, at)
        elif isinstance(value, float) and not math.isfinite(value):
            self.fault("is a number beyond 64 bits; quote it", at)
            value = 0.0
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            self.fault("is a number beyond 64 bits; quote it", at)
            value = 0
        self._put(value, at)

    def open(self, container: dict[str, Any] | list[Any], at: Position | None) -> None:
        """A list or a mapping begins."""
        if self.wants_key:
            raise self.refuse("a key must be text, not a list or a mapping", at)
        self._count(at)
        if len(self._open) >= MAX_DEPTH:
            raise self.refuse(f"is nested deeper than {MAX_DEPTH} levels; flatten it", at)
        path = self._here()
        self._put(container, at)
        self._open.append(container)
        self._path[:] = path

    def close(self) -> None:
        """The list or mapping that was opened last ends."""
        self._open.pop()
        if self._path:
            self._path.pop()

    def _count(self, at: Position | None) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self.refuse(f"holds more than {MAX_NODES} keys and values; make it smaller", at)

    def _here(self) -> Path:
        if not self._open:
            return ()
        parent = self._open[-1]
        if isinstance(parent, list):
            return (*self._path, len(parent))
        return tuple(self._path) if self._key is None else (*self._path, self._key)

    def _put(self, value: Any, at: Position | None) -> None:
        if at is not None:
            self.positions[self._here()] = at
        if not self._open:
            self.root = value
        elif isinstance(parent := self._open[-1], list):
            parent.append(value)
        elif self._key is not None:
            parent[self._key] = value
            self._key = None

    def _check_text(self, text: str, at: Position | None) -> None:
        if "\x00" in text:
            self.fault("holds the character NUL, which cannot be kept; leave it out", at)
        elif _SURROGATE.search(text):
            self.fault("holds half of a surrogate pair; write the whole character", at)


def walk(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """All values of plain data with their paths, parents first."""
    yield path, value
    if isinstance(value, dict):
        for key, child in value.items():
            yield from walk(child, (*path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from walk(child, (*path, index))
