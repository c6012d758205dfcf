"""What is sent: the service's own input, and what a sidecar or a broken client makes of it."""

from __future__ import annotations

import orjson

from sidecar.adapters.http_contract.bodies import BadBody, parsed
from sidecar.adapters.probe.record import Exchange, Sort
from sidecar.ports.probe import Probed
from sidecar.saga.states import Action

LARGE_BYTES = 256 * 1024
"""The size of a large input: far more than most, a quarter of what an answer may have."""

DEEP_LEVELS = 10_000
"""How deep the deep body nests: enough to exhaust a recursive reader, and no more than 20 kB."""

UNIQUE = "{unique}"
"""What in an input is replaced by a text of its own for every key."""

_MEMBER = "goconductor_probe"
_NOT_JSON = b'{"goconductor_probe": '


def body_of(
    probed: Probed, action: Action, sort: Sort, unique: str, execute: Exchange | None
) -> bytes:
    """Return a body; `execute` is the answer to the execute that is compensated, if any came."""
    if action is Action.COMPENSATE:
        return _undo(probed, sort, unique, execute)
    text = _unique(probed.input, unique)
    match sort:
        case Sort.NOT_JSON:
            return _NOT_JSON
        case Sort.OTHER:
            return _with_member(text, '"another body"')
        case Sort.LARGE:
            return _with_member(text, f'"{"x" * LARGE_BYTES}"')
        case Sort.DEEP:
            return _with_member(text, "[" * DEEP_LEVELS + "]" * DEEP_LEVELS)
        case _:
            return text.encode()


def _undo(probed: Probed, sort: Sort, unique: str, execute: Exchange | None) -> bytes:
    if probed.undo_input is not None:
        return _unique(probed.undo_input, unique).encode()
    known = sort is Sort.INPUT and execute is not None and execute.done
    return orjson.dumps(
        {
            "input": orjson.loads(_unique(probed.input, unique)),
            "output": _output(execute) if known and execute is not None else None,
            "outcome": "succeeded" if known else "unknown",
            "reason": "failed",
        }
    )


def _output(execute: Exchange) -> object:
    """What a sidecar would have kept of the answer."""
    try:
        return parsed(execute.body)[1]
    except BadBody:
        return None


def _unique(text: str, unique: str) -> str:
    return text.replace(UNIQUE, unique)


def _with_member(text: str, value: str) -> bytes:
    """The input with one more member; what is no object becomes a list with one more element."""
    whole = text.strip()
    if not whole.startswith("{"):
        return f"[{whole}, {value}]".encode()
    comma = "," if orjson.loads(whole) else ""
    return f'{whole[:-1]}{comma}"{_MEMBER}":{value}}}'.encode()
