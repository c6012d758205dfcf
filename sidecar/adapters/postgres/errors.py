"""PostgreSQL's errors, translated once: what they mean for whoever asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg_pool import PoolTimeout, TooManyRequests

from sidecar.errors import (
    SchemaMismatch,
    StoreConflict,
    StoreDataError,
    StoreError,
    StoreUnavailable,
)

DRIVER_ERRORS = (psycopg.Error, TimeoutError, PoolTimeout, OSError, UnicodeError)
"""What the driver and its pool raise, and what `translate` understands."""

_CONFLICTS = frozenset({"40001", "40P01", "55P03"})
_AWAY = ("08", "53", "57", "58", "25006", "25P03", "25P04")
"""With the last two the server has ended a session that was idle in a transaction for too long."""
_DATA = ("22", "23", "54")
"""With the last it is too long or too deep for the server, and will be so the next time."""
_NO_SCHEMA = frozenset({"42P01", "42703", "3F000"})


def translate(error: BaseException) -> StoreError:
    """Return what `error` means."""
    if isinstance(error, TimeoutError | PoolTimeout | TooManyRequests | OSError):
        return StoreUnavailable(f"PostgreSQL did not answer in time: {error}")
    if isinstance(error, UnicodeError):
        return StoreDataError(f"text that is not valid Unicode cannot be stored: {error}")
    state = getattr(error, "sqlstate", None) or ""
    text = str(error).strip().replace("\n", " ") or type(error).__name__
    if state in _CONFLICTS:
        return StoreConflict(text)
    if state in _NO_SCHEMA:
        return SchemaMismatch(f"{text}; run `goconductor migrate`")
    if state.startswith(_AWAY):
        return StoreUnavailable(text)
    if state.startswith(_DATA) or (isinstance(error, psycopg.DataError) and not state):
        return StoreDataError(text)
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and not state:
        return StoreUnavailable(text)
    return StoreError(text)


@contextmanager
def translated() -> Iterator[None]:
    """Raise the `StoreError` family instead of the driver's errors."""
    try:
        yield
    except DRIVER_ERRORS as error:
        raise translate(error) from error
