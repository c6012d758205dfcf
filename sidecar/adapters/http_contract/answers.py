"""The outcome table: what an HTTP answer to `execute` or `compensate` means.

Two rules for this file. A status that is not a definite no is never taken for one: when in
doubt, it may have happened. And every outcome that is not `done` says why, in a JSON object
`{code, message, status?, detail?}` small enough to be kept in every row and every history.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from sidecar.adapters.http_contract.bodies import BadBody, detail, parsed, printable
from sidecar.saga.definition import JsonText
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.states import Action

_K = OutcomeKind

MAX_MESSAGE = 300
"""How many characters the message of an error has at most."""

MAX_RETRY_AFTER: Mapping[Action, timedelta] = {
    Action.EXECUTE: timedelta(days=7),
    Action.COMPENSATE: timedelta(hours=1),
    Action.STATUS: timedelta(hours=1),
}
"""The longest `Retry-After` believed. The policy's budget bounds that of an execute further; a
compensation has none by default, and what waits to be undone must not wait for days."""

OVERRIDES: Mapping[str, OutcomeKind] = {
    str(kind): kind
    for kind in (
        _K.DONE,
        _K.PENDING,
        _K.REFUSED,
        _K.UNKNOWN,
        _K.BUSY,
        _K.NOT_NOW,
        _K.MISCONFIGURED,
    )
}
"""What `on_status` may name. A status proves that something was sent."""

_SPECIAL: Mapping[Action, Mapping[int, OutcomeKind]] = {
    Action.EXECUTE: {},
    Action.COMPENSATE: {410: _K.DONE, 422: _K.REFUSED},
}
_COMMON: Mapping[int, OutcomeKind] = {
    202: _K.PENDING,
    401: _K.MISCONFIGURED,
    403: _K.MISCONFIGURED,
    404: _K.MISCONFIGURED,
    405: _K.MISCONFIGURED,
    408: _K.UNKNOWN,
    409: _K.BUSY,
    415: _K.MISCONFIGURED,
    425: _K.NOT_NOW,
    429: _K.NOT_NOW,
    501: _K.MISCONFIGURED,
    503: _K.NOT_NOW,
}
_OK = 200
_TOLD: Mapping[str, OutcomeKind] = {
    "succeeded": _K.DONE,
    "refused": _K.REFUSED,
    "pending": _K.BUSY,
}
"""What a service may say of an execute; anything else proves nothing."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer. `bad_body` says that the body could not be read within its bounds."""

    status: int
    body: bytes = b""
    reason: str = ""
    retry_after: str | None = None
    bad_body: BadBody | None = None


def outcome_of(
    action: Action, answer: Answer, now: datetime, on_status: Mapping[int, str] | None = None
) -> Outcome:
    """Return what `answer` means for `action`; `now` is the wall time, for `Retry-After`."""
    if action is Action.STATUS:
        return _told(answer, now)
    status = answer.status
    override = on_status.get(status) if on_status else None
    kind = class_of(action, status) if override is None else OVERRIDES[override]
    if kind is _K.DONE:
        return _done(action, answer)
    if kind is _K.PENDING:
        return Outcome(kind)
    return Outcome(
        kind,
        error=_error_of(answer),
        retry_after=_waiting(action, answer.retry_after, now),
        may_have_effect=kind is _K.UNKNOWN or (kind is _K.NOT_NOW and status >= 500),
    )


def class_of(action: Action, status: int) -> OutcomeKind:
    """Return the class of `status`, of an answer to `execute` or `compensate`."""
    special = _SPECIAL[action].get(status) or _COMMON.get(status)
    if special is not None:
        return special
    if 200 <= status < 300:
        return _K.DONE
    if 300 <= status < 400:
        return _K.MISCONFIGURED
    if 400 <= status < 500 and action is Action.EXECUTE:
        return _K.REFUSED
    return _K.UNKNOWN


def not_sent(code: str, message: str) -> Outcome:
    """Return the outcome of an attempt of which no byte can have reached the service."""
    return Outcome(_K.NOT_SENT, error=error(code, message))


def misconfigured(code: str, message: str) -> Outcome:
    """Return the outcome of a request that cannot even be made as it is configured."""
    return Outcome(_K.MISCONFIGURED, error=error(code, message))


def unknown(code: str, message: str) -> Outcome:
    """Return the outcome of an attempt that may have had an effect."""
    return Outcome(_K.UNKNOWN, error=error(code, message), may_have_effect=True)


def error(code: str, message: str, status: int | None = None, kept: Any = None) -> JsonText:
    """Return the JSON object that goes with an outcome; `kept` is what the service said."""
    fields: dict[str, Any] = {"code": code, "message": printable(message)[:MAX_MESSAGE]}
    if status is not None:
        fields["status"] = status
    if kept is not None:
        fields["detail"] = kept
    return JsonText(orjson.dumps(fields).decode())


def outcome_of_status(
    action: Action, status: int, now: datetime, on_status: Mapping[int, str] | None = None
) -> Outcome:
    """Return what an answer means of which nothing but the status could be understood."""
    unread = BadBody("unreadable", "nothing but its status could be read")
    return outcome_of(action, Answer(status, bad_body=unread), now, on_status)


def waiting_time(value: str, now: datetime, most: timedelta) -> timedelta | None:
    """Return what a `Retry-After` of seconds or of an HTTP date asks for, at most `most`.

    None for nonsense.
    """
    text = value.strip()
    if text.isascii() and text.isdigit():
        # Longer digit strings than that are beyond any cap anyway.
        return min(timedelta(seconds=int(text)), most) if len(text) < 10 else most
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return min(max(moment - now, timedelta()), most)
    except (ValueError, TypeError, OverflowError):  # what the parser makes of years and offsets
        return None


def _waiting(action: Action, value: str | None, now: datetime) -> timedelta | None:
    return waiting_time(value, now, MAX_RETRY_AFTER[action]) if value else None


def _done(action: Action, answer: Answer) -> Outcome:
    """A compensation is done whatever its body; an execute's body is an output to be kept."""
    try:
        if answer.bad_body is not None:
            raise answer.bad_body
        return Outcome(_K.DONE, output=parsed(answer.body)[0])
    except BadBody as bad:
        if action is Action.COMPENSATE:
            return Outcome(_K.DONE)
        return Outcome(
            _K.UNUSABLE,
            error=error(bad.code, str(bad), answer.status, detail(answer.body)),
            may_have_effect=True,
        )


def _told(answer: Answer, now: datetime) -> Outcome:
    """What a service says of an execute whose outcome is unknown."""
    waits = _waiting(Action.STATUS, answer.retry_after, now)
    try:
        if answer.bad_body is not None:
            raise answer.bad_body
        said = parsed(answer.body)[1] if answer.status == _OK else None
    except BadBody:
        said = None
    word = said.get("outcome") if isinstance(said, dict) else None
    kind = _TOLD.get(word, _K.UNKNOWN) if isinstance(word, str) else _K.UNKNOWN
    if kind is _K.DONE and isinstance(said, dict):
        output = orjson.dumps(said.get("output")).decode()
        return Outcome(kind, output=JsonText(output))
    if kind is _K.REFUSED:
        return Outcome(kind, error=error("refused", "the service says that it never happened"))
    return Outcome(kind, error=_error_of(answer), retry_after=waits)


def _error_of(answer: Answer) -> JsonText:
    """What the service said went wrong; a problem document (RFC 9457) speaks for itself."""
    kept = None if answer.bad_body is not None else detail(answer.body)
    message = f"the service answered {answer.status} {answer.reason}".rstrip()
    if isinstance(kept, dict):
        said = next((kept[k] for k in ("detail", "title", "message") if kept.get(k)), None)
        if isinstance(said, str):
            message = said
    elif answer.bad_body is not None:
        message = f"{message}; {answer.bad_body}"
    return error(f"http_{answer.status}", message, answer.status, kept)
