"""Cursors: where a page of a list ended, as text that means nothing to clients."""

from __future__ import annotations

import base64
import binascii
import re

from sidecar.errors import InvalidRequest

_MAX_CURSOR = 512
_NUMBER = re.compile(r"[0-9]{1,9}")


def cursor_of(kind: str, position: str) -> str:
    """Return the cursor that continues a list of some kind after `position`."""
    return base64.urlsafe_b64encode(f"{kind}1:{position}".encode()).decode().rstrip("=")


def position_of(cursor: str, kind: str) -> str:
    """Return the position in a cursor of this kind of list. Raises `InvalidRequest`."""
    prefix = f"{kind}1:"
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise bad_cursor() from None
    if len(cursor) > _MAX_CURSOR or not text.startswith(prefix) or "\0" in text:
        raise bad_cursor()
    return text.removeprefix(prefix)


def number_of(cursor: str, kind: str) -> int:
    """Return the number in a cursor of this kind of list. Raises `InvalidRequest`."""
    position = position_of(cursor, kind)
    if _NUMBER.fullmatch(position) is None:
        raise bad_cursor()
    return int(position)


def bad_cursor() -> InvalidRequest:
    """Return the error for a cursor that no list of ours has given out."""
    return InvalidRequest(
        "The cursor is not one that this list returned; begin without it.", field="cursor"
    )
