"""Why an answer is an error: problem details (RFC 9457) with a stable code.

What went wrong inside is told to the log, never to a client: no trace, no SQL, no driver's text.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from aiohttp import web

from sidecar.api.rest.encoding import encode
from sidecar.engine.intake import MalformedJson
from sidecar.errors import (
    Conflict,
    DefinitionError,
    GoConductorError,
    InvalidRequest,
    NotFound,
    Overloaded,
    RequestError,
    StartKeyReused,
    StoreDataError,
    StoreError,
    StoreUnavailable,
)

CONTENT_TYPE = "application/problem+json"
NO_STORE = {"Cache-Control": "no-store"}


class UnsupportedMediaType(RequestError):
    """The body is of a type, or in an encoding, that this operation does not read."""

    code = "unsupported_media_type"


class Forbidden(RequestError):
    """A page of another origin must not use this API."""

    code = "forbidden_origin"


class MisdirectedHost(RequestError):
    """The request names a host that this API is not served under."""

    code = "unknown_host"


_STATUS: dict[type[GoConductorError], int] = {
    MalformedJson: 400,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    UnsupportedMediaType: 415,
    MisdirectedHost: 421,
    InvalidRequest: 422,
    StartKeyReused: 422,
    DefinitionError: 422,
    StoreDataError: 422,
    Overloaded: 503,
    StoreUnavailable: 503,
}
"""The status of each error; a subclass has that of its nearest ancestor, anything else is 500."""

_CODES = {
    400: "bad_request",
    404: "no_such_path",
    405: "method_not_allowed",
    413: "too_large",
    431: "headers_too_large",
}

_DETAILS = {
    400: "The request is not valid HTTP, or one of its lines is longer than 8190 bytes.",
    404: "There is no such path; /openapi.json lists all of them.",
    405: "This path does not know that method; the header Allow names those it knows.",
    413: "The request's body is larger than 1 MiB.",
    500: "Something went wrong here; the log of this sidecar says what.",
}

_UNAVAILABLE = (
    "The store did not answer. Whether the request took effect is not known; "
    "repeat it, a start with the same start_key."
)


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    field: str | None = None,
    problems: list[tuple[str, str]] | None = None,
    headers: dict[str, str] | None = None,
) -> web.Response:
    """Return an error as an answer; `problems` are pairs of a path and what is wrong there."""
    body: dict[str, Any] = {
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
    if field is not None:
        body["field"] = field
    if problems is not None:
        body["problems"] = [{"field": path, "message": text} for path, text in problems]
    return web.Response(
        body=encode(body),
        status=status,
        content_type=CONTENT_TYPE,
        headers={**NO_STORE, **(headers or {})},
    )


def of_error(error: GoConductorError) -> web.Response:
    """Return the answer to one of our own errors."""
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)
    headers = {"Retry-After": "1"} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return problem(
        status,
        error.code,
        _detail(error, status),
        field=getattr(error, "field", None),
        problems=error.problems if isinstance(error, DefinitionError) else None,
        headers=headers,
    )


def _detail(error: GoConductorError, status: int) -> str:
    """What a client may read of an error; the store's words may be those of its driver."""
    if isinstance(error, StoreUnavailable):
        return _UNAVAILABLE
    if isinstance(error, StoreDataError):
        return "The store cannot keep what the request holds."
    if status == HTTPStatus.INTERNAL_SERVER_ERROR or isinstance(error, StoreError):
        return _DETAILS[500]
    return error.message


def of_http(status: int, headers: dict[str, str] | None = None) -> web.Response:
    """Return the answer to what HTTP itself forbids: an unknown path, a body too large."""
    phrase = HTTPStatus(status).phrase
    detail = _DETAILS.get(status, f"{phrase}.")
    return problem(
        status, _CODES.get(status, phrase.lower().replace(" ", "_")), detail, headers=headers
    )


def internal() -> web.Response:
    """Return the answer when something unforeseen happened."""
    return problem(500, "internal", _DETAILS[500])


def timed_out() -> web.Response:
    """Return the answer when the request's deadline passed."""
    return problem(503, "timed_out", _UNAVAILABLE, headers={"Retry-After": "1"})
