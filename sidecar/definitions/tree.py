"""The syntax tree of a compiled CEL expression.

The CEL library shows no tree, but it serialises one: `cel.expr.CheckedExpr`, a published
protobuf message. Only what is needed of it is decoded here, so that no protobuf package is
needed: the nodes, and where in the source each stands.

Macros come expanded: `has(a.b)` is a `Select` with `test`, `list.map(x, ...)` is a `Fold`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sidecar.errors import GoConductorError


@dataclass(frozen=True, slots=True)
class Node:
    """Any node; `offset` is where it stands in the source, in characters (-1: unknown)."""

    offset: int


@dataclass(frozen=True, slots=True)
class Constant(Node):
    """A literal; `size` is about how many characters its JSON takes."""

    size: int
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Ident(Node):
    """A name: a variable, or the variable of a fold."""

    name: str


@dataclass(frozen=True, slots=True)
class Select(Node):
    """`operand.field`, or with `test` whether there is such a field."""

    operand: Node
    field: str
    test: bool


@dataclass(frozen=True, slots=True)
class Call(Node):
    """An operator or a function; a method's target is the first argument."""

    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Build(Node):
    """A list, map or message literal with everything that stands in it."""

    elements: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Fold(Node):
    """A comprehension: `accumulator` starts as `start` and becomes `step` for each element."""

    variable: str
    second: str
    source: Node
    accumulator: str
    start: Node
    condition: Node
    step: Node
    result: Node


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly below."""
    match node:
        case Select():
            return (node.operand,)
        case Call():
            return node.arguments
        case Build():
            return node.elements
        case Fold():
            return (node.source, node.start, node.condition, node.step, node.result)
        case _:
            return ()


def decode(serialized: bytes) -> Node:
    """Decode what the CEL library serialised; fails loudly if its form has changed."""
    # google.protobuf.Any { type_url = 1, value = 2 } around
    # cel.expr.CheckedExpr { expr = 4, source_info = 5 { positions = 4 } }.
    envelope = _Message(serialized)
    if not envelope.text(1).endswith("/cel.expr.CheckedExpr"):
        raise GoConductorError(f"the CEL library serialises as {envelope.text(1)!r}")
    checked = _Message(envelope.one(2))
    offsets: dict[int, int] = {}
    for entry in _Message(checked.one(5)).many(4):
        pair = _Message(entry)
        offsets[pair.number(1)] = pair.number(2)
    return _node(checked.one(4), offsets)


def _node(raw: bytes, offsets: dict[int, int]) -> Node:
    """Decode cel.expr.Expr; the comments are its field numbers."""
    message = _Message(raw)
    offset = offsets.get(message.number(2), -1)
    if message.has(4):  # ident_expr
        return Ident(offset, _Message(message.one(4)).text(1))
    if message.has(5):  # select_expr
        select = _Message(message.one(5))
        operand = _node(select.one(1), offsets)
        return Select(offset, operand, select.text(2), bool(select.number(3)))
    if message.has(6):  # call_expr
        call = _Message(message.one(6))
        raws = ([call.one(1)] if call.has(1) else []) + call.many(3)
        return Call(offset, call.text(2), tuple(_node(one, offsets) for one in raws))
    if message.has(7):  # list_expr
        elements = _Message(message.one(7)).many(1)
        return Build(offset, tuple(_node(one, offsets) for one in elements))
    if message.has(8):  # struct_expr, whose entries have a field_key or a map_key = 3, a value = 4
        entries = [_Message(one) for one in _Message(message.one(8)).many(2)]
        parts = [part for one in entries for part in (one.many(3) + one.many(4))]
        return Build(offset, tuple(_node(part, offsets) for part in parts))
    if message.has(9):  # comprehension_expr
        return _fold(_Message(message.one(9)), offset, offsets)
    return _constant(_Message(message.one(3)), offset)


def _fold(fold: _Message, offset: int, offsets: dict[int, int]) -> Fold:
    def part(number: int) -> Node:
        return _node(fold.one(number), offsets)

    return Fold(
        offset,
        variable=fold.text(1),
        second=fold.text(8),
        source=part(2),
        accumulator=fold.text(3),
        start=part(4),
        condition=part(5),
        step=part(6),
        result=part(7),
    )


def _constant(constant: _Message, offset: int) -> Constant:
    if constant.has(6):  # string_value
        text = constant.text(6)
        return Constant(offset, max(8, len(text) + 2), text)
    if constant.has(7):  # bytes_value
        return Constant(offset, max(8, len(constant.one(7)) + 2))
    return Constant(offset, 8)


class _Message:
    """The fields of one protobuf message by their numbers."""

    def __init__(self, raw: bytes) -> None:
        self._fields: dict[int, list[bytes | int]] = {}
        for number, value in _fields(raw):
            self._fields.setdefault(number, []).append(value)

    def has(self, number: int) -> bool:
        return number in self._fields

    def many(self, number: int) -> list[bytes]:
        return [value for value in self._fields.get(number, ()) if isinstance(value, bytes)]

    def one(self, number: int) -> bytes:
        values = self.many(number)
        return values[-1] if values else b""

    def text(self, number: int) -> str:
        return self.one(number).decode()

    def number(self, number: int) -> int:
        values = [value for value in self._fields.get(number, ()) if isinstance(value, int)]
        return values[-1] if values else 0


def _fields(raw: bytes) -> Iterator[tuple[int, bytes | int]]:
    at = 0
    while at < len(raw):
        key, at = _varint(raw, at)
        match key & 7:
            case 0:
                value, at = _varint(raw, at)
                yield key >> 3, value
            case 1:
                yield key >> 3, raw[at : at + 8]
                at += 8
            case 2:
                size, at = _varint(raw, at)
                yield key >> 3, raw[at : at + size]
                at += size
            case 5:
                yield key >> 3, raw[at : at + 4]
                at += 4
            case kind:
                raise GoConductorError(f"the CEL library serialises with wire type {kind}")


_MORE = 0x80
"""The bit of a byte that says that more follow."""


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & _MORE:
            return value, at
        shift += 7
