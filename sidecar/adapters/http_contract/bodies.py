"""Reading the body of an answer: what can be kept, and what cannot.

A body is kept as the text that came in. It must be one JSON document in UTF-8 without NUL,
NaN, infinities or lone surrogates, at most `MAX_DEPTH` deep: exactly what every store and
every reader after us can hold. Bodies come from a program we do not know, so each bound here
holds whatever the bytes say, and is checked before memory is spent.
"""

from __future__ import annotations

import zlib
from typing import Any

import orjson

from sidecar.saga.definition import JsonText

MAX_DEPTH = 64
"""How deep arrays and objects may nest."""

MAX_DETAIL_BYTES = 16 * 1024
"""The largest error body that is kept whole."""

MAX_SNIPPET = 1024
"""How many characters of an error body that is no JSON are kept."""

_CONTAINERS = (dict, list)
_INFLATING_BITS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": 0}


class BadBody(ValueError):
    """The body cannot be kept; `code` is a stable word for the reason."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


class TooLarge(BadBody):
    """The body is larger than its bound."""

    def __init__(self, limit: int) -> None:
        super().__init__("body_too_large", f"the body is larger than {limit} bytes")


def decoded(body: bytes, encoding: str, limit: int) -> bytes:
    """Return `body` without its content encoding, which we asked not to use.

    Raises `TooLarge` beyond `limit` decoded bytes (no more than that is ever produced), and
    `BadBody` for an encoding that is unknown, chained or broken.
    """
    name = encoding.strip().lower()
    if name in {"", "identity"}:
        return body
    if name not in _INFLATING_BITS:
        raise BadBody("bad_encoding", "the content encoding of the body is not known")
    bits = _INFLATING_BITS[name]
    if name == "deflate":  # both the zlib form and the bare one are seen in the wild
        bits = zlib.MAX_WBITS if body[:1] and body[0] & 0x0F == zlib.DEFLATED else -zlib.MAX_WBITS
    stream = zlib.decompressobj(bits)
    try:
        plain = stream.decompress(body, limit + 1)
    except zlib.error:
        raise BadBody("bad_encoding", "the body is not what its content encoding says") from None
    if len(plain) > limit:
        raise TooLarge(limit)
    if not stream.eof:
        raise BadBody("bad_encoding", "the compressed body is cut short")
    return plain


def parsed(body: bytes) -> tuple[JsonText | None, Any]:
    """Return the text to keep and its value; `(None, None)` for a body of nothing but space.

    Raises `BadBody` for everything that cannot be kept.
    """
    if not body or not body.strip():
        return None, None
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadBody("not_json", f"the body is not JSON: {error.msg}") from None
    if isinstance(value, _CONTAINERS) and too_deep(body, value):
        raise BadBody("too_deep", f"the body nests deeper than {MAX_DEPTH} levels")
    if b"\\u0000" in body and holds_nul(value):
        raise BadBody("holds_nul", "the body holds a NUL character, which cannot be stored")
    return JsonText(body.decode()), value


def too_deep(body: bytes, value: Any) -> bool:
    """Whether arrays and objects nest deeper than `MAX_DEPTH`; `value` is `body` parsed."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for node in level
            for child in (node.values() if node.__class__ is dict else node)
            if child.__class__ in _CONTAINERS
        ]
        if not level:
            return False
    return True


def holds_nul(value: Any) -> bool:
    """Whether any string or key in `value`, which is not too deep, holds a NUL."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in key or holds_nul(child) for key, child in value.items())
    if isinstance(value, list):
        return any(holds_nul(child) for child in value)
    return False


def detail(body: bytes) -> Any:
    """Return what to keep of an error's body: its JSON, else the start of its text, else None."""
    if len(body) > MAX_DETAIL_BYTES:
        return _snippet(body)
    try:
        return parsed(body)[1]
    except BadBody:
        return _snippet(body)


def _snippet(body: bytes) -> str | None:
    return printable(body[: 4 * MAX_SNIPPET].decode("utf-8", "replace"))[:MAX_SNIPPET] or None


def printable(text: str) -> str:
    """Return `text` with everything that is neither printable nor a plain space replaced."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c in "\r\n\t" else "\ufffd" for c in text)
