"""Reading and writing the JSON that templates are filled with, paid for by a budget."""

from __future__ import annotations

import json
from typing import Any

import orjson

from sidecar.definitions.documents import canonical
from sidecar.definitions.work import (
    CHARACTERS,
    ELEMENT,
    LIST,
    MEMBER,
    OBJECT,
    SLOWLY,
    WEIGH,
    WRITE,
    Work,
)
from sidecar.saga.definition import JsonText

# What begins a number is written as a space, and every digit as 0.
_BYTES = bytes(range(256))
_KINDS = bytes(48 if 48 <= one < 58 else 32 if chr(one) in "[:,- \t\r\n" else 46 for one in _BYTES)
_LONG = b" " + 19 * b"0"


def read_json(text: JsonText, work: Work) -> Any:
    """Read a body. Raises `ValueError` if it is not JSON, and `RenderError`.

    The fast parser turns integers beyond 64 bits into floats, so bodies with numbers that long
    are read by the slow one.
    """
    work.spend(len(text) / WEIGH)
    cost = (
        len(text) / CHARACTERS
        + text.count("[") * LIST
        + text.count("{") * OBJECT
        + text.count(":") * MEMBER
        + text.count(",") * ELEMENT
    )
    long = _LONG in (b" " + text.encode(errors="replace")).translate(_KINDS)
    work.spend(cost + len(text) * SLOWLY if long else cost)
    try:
        return json.loads(text) if long else orjson.loads(text)
    except orjson.JSONDecodeError:
        if long:
            raise
    # What only the slow one takes: half of a surrogate pair, which is refused by its use.
    work.spend(len(text) * SLOWLY)
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("too deep") from error


def write_json(value: Any, work: Work) -> str:
    """Write a value: keys sorted, no spaces. It is paid afterwards, by its length."""
    try:
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except (TypeError, ValueError):  # an integer beyond 64 bits, half of a surrogate pair
        text = canonical(value)
        work.spent(len(text) * SLOWLY)
    work.spent(len(text) * WRITE)
    return text
