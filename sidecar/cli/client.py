"""Asking a sidecar over REST. Every request has a deadline, from connecting to the last byte."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from sidecar.cli.failure import Failure, Unreachable

DEADLINE = 30.0
"""Seconds that a request may take, beyond what it asks to wait."""

_MAX_ANSWER = 64 * 1024 * 1024
_CHUNK = 64 * 1024

_NEXT = {
    "conflict": "see how it stands: `goconductor show ID`.",
    "not_found": "see what there is: `goconductor list`.",
    "bad_definition": "mend the document and apply it again.",
    "unknown_host": "ask for 127.0.0.1, or add the name to the sidecar's listen.allowed_hosts.",
    "overloaded": "try again in a moment.",
    "store_unavailable": "look at the sidecar's log and at its database.",
    "start_key_reused": "choose another --key, or show the workflow that has this one.",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer; `deprecated` says so of what was started."""

    status: int
    body: Any
    deprecated: str | None = None


class Client:
    """One sidecar's REST API, asked in the name of `actor`. Every failure is a `Failure`."""

    def __init__(self, server: str, namespace: str | None = None, actor: str | None = None) -> None:
        self._parts = _address(server)
        self._server = server.rstrip("/")
        if namespace is not None and not (namespace.isascii() and namespace.isprintable()):
            raise Failure(
                f"{namespace!r} is not the name of a namespace.",
                then="write it like default (--namespace or GOCONDUCTOR_NAMESPACE).",
            )
        if actor is not None and not actor.isprintable():
            raise Failure(
                f"{actor!r} cannot be the name of an actor.",
                then="write it like anna (--actor or GOCONDUCTOR_ACTOR).",
            )
        self._namespace = namespace
        self._actor = actor

    def get(self, *path: str, query: Iterable[tuple[str, str]] = (), wait: float = 0) -> Any:
        """Return what stands at a path; `wait` is how many seconds the query asks to wait."""
        return self._request("GET", path, query, None, None, wait).body

    def post(
        self,
        *path: str,
        query: Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
        content_type: str = "application/json",
        wait: float = 0,
    ) -> Answer:
        """Ask for something to be done."""
        return self._request("POST", path, query, body, content_type, wait)

    def delete(self, *path: str) -> Answer:
        """Ask for something to be deleted."""
        return self._request("DELETE", path, (), None, None, 0)

    def _request(
        self,
        method: str,
        path: tuple[str, ...],
        query: Iterable[tuple[str, str]],
        body: bytes | None,
        content_type: str | None,
        wait: float,
    ) -> Answer:
        target = (
            self._parts.path.rstrip("/") + "/v1/" + "/".join(quote(one, safe="") for one in path)
        )
        if encoded := urlencode(list(query)):
            target += f"?{encoded}"
        headers: dict[str, str | bytes] = {"Accept": "application/json"}
        if body is not None and content_type is not None:
            headers["Content-Type"] = content_type
        if self._namespace is not None:
            headers["GoConductor-Namespace"] = self._namespace
        if self._actor is not None:
            headers["GoConductor-Actor"] = self._actor.encode()
        until = time.monotonic() + DEADLINE + wait
        with self._connected() as connection:
            with suppress(BrokenPipeError, ConnectionResetError):  # refused while it was sent
                connection.request(method, target, body=body, headers=headers)
            _bound(connection, until)
            response = connection.getresponse()
            raw = _read(connection, response, until)
        return replace(
            _answer(response.status, raw), deprecated=response.headers.get("GoConductor-Deprecated")
        )

    @contextmanager
    def _connected(self) -> Iterator[http.client.HTTPConnection]:
        """A connection, closed afterwards; whatever fails on it is told as a `Failure`."""
        kind = (
            http.client.HTTPSConnection
            if self._parts.scheme == "https"
            else http.client.HTTPConnection
        )
        connection = kind(self._parts.hostname or "", self._parts.port, timeout=DEADLINE)
        try:
            yield connection
        except TimeoutError:
            raise Unreachable(
                f"{self._server} did not answer in time.",
                then="whether it did what was asked is not known: `goconductor list` shows it.",
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(
                f"no sidecar can be reached at {self._server}: {error}",
                then="start one (`goconductor demo`), or name another with --server.",
            ) from None
        finally:
            connection.close()


def _address(server: str) -> SplitResult:
    """Read a sidecar's address: a scheme, a host, perhaps a port and a path, and no more."""
    try:
        parts = urlsplit(server)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    known = parts.scheme in {"http", "https"} and parts.hostname and port != 0
    more = parts.username is not None or parts.query or parts.fragment
    if (
        not known
        or more
        or not (parts.path.isascii() and server.isprintable() and " " not in server)
    ):
        raise Failure(
            f"{server!r} is not an address of a sidecar.",
            then="write it like http://127.0.0.1:7400 (--server or GOCONDUCTOR_SERVER).",
        )
    return parts


def _bound(connection: http.client.HTTPConnection, until: float) -> None:
    """Let the next read last only as long as the deadline allows."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    if connection.sock is not None:
        connection.sock.settimeout(left)


def _read(
    connection: http.client.HTTPConnection, response: http.client.HTTPResponse, until: float
) -> bytes:
    """Read the whole answer before the deadline."""
    parts: list[bytes] = []
    size = 0
    while part := response.read1(_CHUNK):
        parts.append(part)
        size += len(part)
        if size > _MAX_ANSWER:
            raise http.client.HTTPException("the answer is too large")
        _bound(connection, until)
    return b"".join(parts)


def _answer(status: int, raw: bytes) -> Answer:
    """The answer, or a `Failure` with what the problem says."""
    try:
        body = json.loads(raw)
    except ValueError:
        raise Failure(
            f"what answers there is not a sidecar (status {status}, and no JSON).",
            then="look at --server or GOCONDUCTOR_SERVER.",
        ) from None
    if status < http.client.BAD_REQUEST:
        return Answer(status, body)
    raise _failure(status, body if isinstance(body, dict) else {})


def _failure(status: int, problem: dict[str, Any]) -> Failure:
    """What a problem says, for people."""
    code = str(problem.get("code", status))
    problems = problem.get("problems")
    if isinstance(problems, list) and problems:
        lines = [f"  {one.get('field') or 'document'}: {one.get('message')}" for one in problems]
        return Failure("the document is not valid:\n" + "\n".join(lines), then=_NEXT.get(code))
    where = f" (field {problem['field']})" if problem.get("field") else ""
    return Failure(f"{problem.get('detail', 'refused')}{where} [{code}]", then=_NEXT.get(code))
