"""What handlers read from a request, checked; faults are refused with the name of the field."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import timedelta
from typing import TypeVar
from urllib.parse import urlsplit

from aiohttp import web
from pydantic import BaseModel, ValidationError

from sidecar.api.rest.problems import Forbidden, UnsupportedMediaType
from sidecar.definitions.durations import parse_duration
from sidecar.definitions.findings import sentence, unknown_name, written
from sidecar.engine.intake import checked_actor, read_json
from sidecar.engine.queries import DEFAULT_PAGE, MAX_PAGE
from sidecar.errors import InvalidRequest
from sidecar.saga.states import WorkflowStatus

B = TypeVar("B", bound=BaseModel)

NAMESPACE_HEADER = "GoConductor-Namespace"
ACTOR_HEADER = "GoConductor-Actor"
LONGEST_WAIT = timedelta(seconds=60)

_MAY_REPEAT = ("label", "status")
_MAX_VERSION = 2**31
_NUMBER = re.compile(r"[0-9]{1,10}")


def check_origin(request: web.Request) -> None:
    """Raise `Forbidden` if a page of another origin makes a browser send this.

    On loopback the API needs no token, so any page that a developer looks at could otherwise
    start and cancel workflows.
    """
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("Host"):
        raise Forbidden("A page of another origin must not use this API.", field="Origin")


def namespace(request: web.Request, served: str) -> str:
    """Return the namespace that the request speaks of; only the one served is known here."""
    wanted = request.headers.get(NAMESPACE_HEADER, served)
    if wanted != served:
        raise InvalidRequest(
            f"This sidecar serves the namespace {served} only; ask a sidecar of the other.",
            field=NAMESPACE_HEADER,
        )
    return wanted


async def body(request: web.Request, media_types: Collection[str]) -> bytes:
    """Return the body, if it is of one of these types and not compressed.

    Raises `UnsupportedMediaType`, and `HTTPRequestEntityTooLarge` beyond the application's limit.
    """
    if request.content_type not in media_types:
        raise UnsupportedMediaType(
            f"The body must be {' or '.join(sorted(media_types))}.", field="Content-Type"
        )
    if "Content-Encoding" in request.headers:
        raise UnsupportedMediaType("The body must not be compressed.", field="Content-Encoding")
    return await request.read()


async def json_request(request: web.Request, model: type[B], *, may_be_empty: bool = False) -> B:
    """Return the body as `model`; one that may be empty is then an object without fields.

    Raises `InvalidRequest` and what `body` raises.
    """
    if may_be_empty and not request.body_exists:
        value: object = {}
    else:
        raw = await body(request, ("application/json",))
        value = {} if may_be_empty and not raw else read_json(raw)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = written(first["loc"])
        if first["type"] == "extra_forbidden":
            text = unknown_name("there is no field", path, model.model_fields or ("none",))
        else:
            text = f"{path or 'the body'} {sentence(first)}"
        raise InvalidRequest(f"{text[:1].upper()}{text[1:]}.", field=path or None) from None


def actor(request: web.Request) -> str:
    """Return the name of whoever acts: what the header says, until there are tokens."""
    given = request.headers.getall(ACTOR_HEADER, ("api",))
    try:
        return checked_actor(given[0] if len(given) == 1 else "")
    except InvalidRequest as error:
        raise InvalidRequest(error.message, field=ACTOR_HEADER) from None


def only(request: web.Request, *known: str) -> None:
    """Raise `InvalidRequest` for a query parameter that is not known here, or given too often."""
    for name in request.query:
        if name not in known:
            text = unknown_name("There is no parameter", name, known or ("none",))
            raise InvalidRequest(f"{text}.", field=written((name,)))
        if name not in _MAY_REPEAT and len(request.query.getall(name)) > 1:
            raise InvalidRequest(f"{name} is given twice; keep one.", field=name)


def wait_seconds(request: web.Request) -> float:
    """Return how long to wait (`30s`, `500ms`, `2m`; more than 60 s is 60 s); 0: not at all."""
    text = request.query.get("wait")
    if text is None:
        return 0.0
    try:
        return min(parse_duration(text), LONGEST_WAIT).total_seconds()
    except ValueError as error:
        raise InvalidRequest(f"wait {error}.", field="wait") from None


def limit(request: web.Request) -> int:
    """Return how many items a page shall hold."""
    text = request.query.get("limit")
    return DEFAULT_PAGE if text is None else number(text, "limit", MAX_PAGE)


def number(text: str, field: str, most: int = _MAX_VERSION - 1) -> int:
    """Return a whole number from 1 to `most`. Raises `InvalidRequest`."""
    if _NUMBER.fullmatch(text) and 1 <= int(text) <= most:
        return int(text)
    raise InvalidRequest(f"{field} must be a whole number from 1 to {most}.", field=field)


def statuses(request: web.Request) -> frozenset[WorkflowStatus]:
    """Return the statuses asked for: `status` repeated, or separated by commas."""
    words = [word for part in request.query.getall("status", ()) for word in part.split(",")]
    try:
        return frozenset(WorkflowStatus(word.strip()) for word in words if word.strip())
    except ValueError:
        known = ", ".join(WorkflowStatus)
        raise InvalidRequest(f"status must be one of: {known}.", field="status") from None


def labels(request: web.Request) -> dict[str, str]:
    """Return the labels asked for: `label=name:value`, repeated for several (all must match)."""
    found: dict[str, str] = {}
    for part in request.query.getall("label", ()):
        name, colon, value = part.partition(":")
        if not (name and colon) or not part.isprintable():
            raise InvalidRequest("label must be written name:value.", field="label")
        if found.get(name, value) != value:
            raise InvalidRequest(f"label {name} is given twice.", field="label")
        found[name] = value
    return found


def flag(request: web.Request, field: str) -> bool:
    """Return a parameter that is `true` or `false`; left out it is false."""
    found = request.query.get(field, "false")
    if found not in ("true", "false"):
        raise InvalidRequest(f"{field} must be true or false.", field=field)
    return found == "true"


def text(request: web.Request, field: str) -> str | None:
    """Return a parameter that may be any printable text."""
    found = request.query.get(field)
    if found is not None and not found.isprintable():
        raise InvalidRequest(f"{field} must be printable text.", field=field)
    return found
