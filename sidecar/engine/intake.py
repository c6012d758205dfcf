"""What comes in from outside, checked before it gets near a transaction.

A body that the store cannot keep would fail the whole batch that it rides in, so it is refused
here, with the name of the field at fault. "Storable" means: JSON that reads back as exactly
what was sent (no NaN or infinity, no integer beyond 64 bits, no lone surrogate), without the
character U+0000, at most 1 MiB of text, at most 64 levels deep.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import orjson

from sidecar.errors import InvalidRequest
from sidecar.saga.definition import BodyCheck, JsonText

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
MAX_LABELS = 32
MAX_START_KEY = 255
MAX_ACTOR = 100
OUR_ACTORS = frozenset({"leader", "service", "sidecar"})
"""Who acts of itself; nobody else may go by these names in a history."""

_LABEL_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
_MAX_LABEL_VALUE = 255
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_MOST_DIGITS = 20
_LARGEST, _SMALLEST = 2**64 - 1, -(2**63)


class MalformedJson(InvalidRequest):
    """The body is not JSON."""

    code = "malformed_json"


def read_json(raw: bytes) -> Any:
    """Parse a body, or raise `MalformedJson`, or `InvalidRequest` for a number it would change.

    The fast parser turns integers beyond 64 bits into floats; where the text has any number that
    long, a second look makes sure that none was changed in silence.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise MalformedJson(f"The body is not JSON: {error}.") from None
    if _LONG_NUMBER.search(raw):
        _refuse_large_integers(raw)
    return value


def _refuse_large_integers(raw: bytes) -> None:
    """Raise `InvalidRequest` if the JSON holds an integer that 64 bits cannot hold."""
    import json

    def check(digits: str) -> int:
        # Bounded before it is converted: the conversion of a very long one is quadratic.
        if len(digits) > _MOST_DIGITS or not _SMALLEST <= (number := int(digits)) <= _LARGEST:
            raise InvalidRequest(
                f"The integer {digits[:24]} does not fit into 64 bits; send it as a string."
            )
        return number

    try:
        json.loads(raw, parse_int=check)
    except RecursionError:  # near a thousand levels, which the fast parser still takes
        raise MalformedJson("The body is not JSON that can be read: it is too deep.") from None


def storable(value: Any, field: str) -> JsonText:
    """Return `value` as JSON text that the store can keep, or raise `InvalidRequest`."""
    try:
        raw = orjson.dumps(value)
    except TypeError as error:
        raise InvalidRequest(f"{field} cannot be kept: {error}.", field=field) from None
    if len(raw) > MAX_BYTES:
        raise InvalidRequest(
            f"{field} is {len(raw)} bytes long; the limit is {MAX_BYTES}.", field=field
        )
    # A walk is needed only where the text shows a sign of what it looks for: U+0000, NaN (which
    # is written as null), or more brackets than there may be levels.
    if b"\\u0000" in raw or b"null" in raw or raw.count(b"{") + raw.count(b"[") > MAX_DEPTH:
        _walk(value, field)
    return JsonText(raw.decode())


def canonical(value: Any) -> bytes:
    """Return the JSON that two equal values share: no spaces, keys in order."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _walk(value: Any, field: str) -> None:
    """Look at every part of `value`, the deep way without recursion."""
    stack: list[tuple[Any, str, int]] = [(value, field, 1)]
    while stack:
        part, path, depth = stack.pop()
        if isinstance(part, str):
            if "\0" in part:
                raise InvalidRequest(f"{path} holds the character U+0000.", field=path)
        elif isinstance(part, float):
            if not math.isfinite(part):
                raise InvalidRequest(f"{path} is not a finite number.", field=path)
        elif isinstance(part, dict | list):
            if depth > MAX_DEPTH:
                raise InvalidRequest(f"{field} is more than {MAX_DEPTH} levels deep.", field=field)
            stack.extend(_parts(part, path, depth + 1))


def _parts(part: dict[str, Any] | list[Any], path: str, depth: int) -> list[tuple[Any, str, int]]:
    """The members of an object or list, each with its path."""
    if isinstance(part, list):
        return [(one, f"{path}[{at}]", depth) for at, one in enumerate(part)]
    for name in part:
        if "\0" in name:
            raise InvalidRequest(f"{path} has a key with the character U+0000.", field=path)
    return [(one, f"{path}.{name}", depth) for name, one in part.items()]


def check_body(check: BodyCheck | None, body: JsonText, field: str) -> None:
    """Raise `InvalidRequest` with all that a definition's schema finds wrong with a body."""
    problems = [] if check is None else check.problems(body)
    if not problems:
        return
    paths = [f"{field}{'' if path[:1] in ('', '[') else '.'}{path}" for path, _ in problems]
    told = "; ".join(f"{path} {text}" for path, (_, text) in zip(paths, problems, strict=True))
    raise InvalidRequest(f"{told}.", field=paths[0])


def checked_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    """Return the labels, or raise `InvalidRequest` naming the one that is out of bounds."""
    if len(labels) > MAX_LABELS:
        raise InvalidRequest(f"There may be at most {MAX_LABELS} labels.", field="labels")
    for name, value in labels.items():
        if _LABEL_NAME.fullmatch(name) is None:
            raise InvalidRequest(
                "A label's name is 1 to 63 letters, digits and . _ / - "
                "and begins and ends with a letter or digit.",
                field=f"labels.{_shown(name)}",
            )
        if len(value) > _MAX_LABEL_VALUE or not value.isprintable():
            raise InvalidRequest(
                f"A label's value is at most {_MAX_LABEL_VALUE} printable characters.",
                field=f"labels.{name}",
            )
    return labels


def checked_start_key(key: str | None) -> str | None:
    """Return the start key, or raise `InvalidRequest`."""
    if key is not None and not (0 < len(key) <= MAX_START_KEY and key.isprintable()):
        raise InvalidRequest(
            f"start_key is 1 to {MAX_START_KEY} printable characters.", field="start_key"
        )
    return key


def checked_actor(name: str) -> str:
    """Return the name of whoever acts, or raise `InvalidRequest`."""
    if not (name.strip() and len(name) <= MAX_ACTOR and name.isprintable()):
        raise InvalidRequest(
            f"An actor's name is 1 to {MAX_ACTOR} printable characters.", field="actor"
        )
    if name in OUR_ACTORS:
        raise InvalidRequest(f"No person goes by the name {name} here.", field="actor")
    return name


def valid_trace(traceparent: str | None) -> str | None:
    """Return a W3C traceparent if it is one, else None: a bad one must not stop a start."""
    if traceparent is not None and _TRACEPARENT.fullmatch(traceparent):
        return traceparent
    return None


def _shown(name: str) -> str:
    """A name from outside, short and harmless enough for an error message."""
    return "".join(one if one.isprintable() else "?" for one in name[:64])
