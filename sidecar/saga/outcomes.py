"""What a call of a service came to, as the sidecar that made it tells the machine.

The classes are those of the HTTP contract (`docs/contract.md`), but nothing here knows HTTP.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum

from msgspec import Struct

from sidecar.saga.definition import JsonText


class OutcomeKind(StrEnum):
    """The class of an answer."""

    DONE = "done"
    REFUSED = "refused"
    """A definite no. For a compensation: a definite failure, for a person."""
    UNKNOWN = "unknown"
    """It may have happened: time-out, broken connection, 5xx."""
    UNUSABLE = "unusable"
    """It happened, but what it answered cannot be kept; trying again cannot help."""
    PENDING = "pending"
    """Taken on; the service answers by a callback."""
    BUSY = "busy"
    """The same key is still being worked on; no try is spent."""
    NOT_NOW = "not_now"
    """The service asks for time; no try is spent."""
    NOT_SENT = "not_sent"
    """Nothing reached the service; no try is spent."""
    MISCONFIGURED = "misconfigured"
    """The request was not understood at all: no effect; a deploy usually mends it."""
    RELEASED = "released"
    """The sidecar gave the claim back before sending anything."""
    HELD = "held"
    """So it did, until the action may be called again by its rate limit (`retry_after`)."""


class Outcome(Struct, frozen=True):
    """One answer.

    `output` is the JSON result of `done` (None: no body). `error` is a JSON object with at
    least `code` and `message` for everything else. `retry_after` is what the service asked
    for. `may_have_effect` says whether the attempt may have changed something; it is true for
    `unknown` and `unusable`, may be true for `not_now` (a 503), and false otherwise.
    """

    kind: OutcomeKind
    output: JsonText | None = None
    error: JsonText | None = None
    retry_after: timedelta | None = None
    may_have_effect: bool = False
