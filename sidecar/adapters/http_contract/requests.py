"""Where a call goes, and with which headers.

The host is the sidecar's own configuration and nothing else: a path, whatever it holds, can
neither change it nor climb out of the configured prefix. Header values come from names that
others chose, so none can begin a new line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, unquote, urlsplit

from sidecar.errors import ConfigError
from sidecar.ports.service import Call
from sidecar.saga.paths import path_fault

IDEMPOTENCY_KEY = "Idempotency-Key"
WORKFLOW = "GoConductor-Workflow"
STEP = "GoConductor-Step"
ACTION = "GoConductor-Action"
ATTEMPT = "GoConductor-Attempt"
DEFINITION = "GoConductor-Definition"
NAMESPACE = "GoConductor-Namespace"
TIMEOUT_MS = "GoConductor-Timeout-Ms"
DEADLINE = "GoConductor-Deadline"
CALLBACK = "GoConductor-Callback"
TRACEPARENT = "traceparent"

STANDING: Mapping[str, str] = {
    "Accept": "application/json, application/problem+json",
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
    "User-Agent": "goconductor",
}
"""What stands in every request, whatever it asks."""

METHODS = frozenset({"DELETE", "PATCH", "POST", "PUT"})
"""The methods an action may be configured with."""

_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Target:
    """A service's address. `origin` begins every URL; `socket` is a unix socket's path."""

    origin: str
    host: str
    port: int
    prefix: str = ""
    socket: str | None = None

    @property
    def tls(self) -> bool:
        """Whether the service is spoken to over TLS."""
        return self.origin.startswith("https:")

    @property
    def authority(self) -> str:
        """What the header `Host` says."""
        scheme, _, authority = self.origin.partition("://")
        return authority.removesuffix({"http": ":80", "https": ":443"}[scheme])


def target(service_url: str) -> Target:
    """Read a `service_url`: `http://host:port[/prefix]`, `https://…` or `unix:///path`.

    Raises `ConfigError` that says what is wrong with it.
    """
    try:
        parts = urlsplit(service_url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"service_url {service_url!r} is not a URL: {error}") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError("service_url holds credentials; put them into service_auth")
    if parts.query or parts.fragment:
        raise ConfigError(f"service_url {service_url!r} has a query or a fragment")
    if parts.scheme == "unix":
        if parts.netloc or not parts.path.startswith("/") or parts.path == "/":
            raise ConfigError("a unix service_url names an absolute path: unix:///run/app.sock")
        return Target("http://localhost", "localhost", 80, socket=unquote(parts.path))
    if parts.scheme not in {"http", "https"}:
        raise ConfigError(f"service_url {service_url!r} begins with http://, https:// or unix://")
    host = parts.hostname
    if not host or re.search(r"[^\w.:%\-]", host):
        raise ConfigError(f"service_url {service_url!r} names no host")
    prefix = parts.path.rstrip("/")
    if prefix and path_fault(prefix) is not None:
        raise ConfigError(f"the path of service_url {service_url!r}: {path_fault(prefix)}")
    port = port or (443 if parts.scheme == "https" else 80)
    literal = f"[{host}]" if ":" in host else host
    return Target(f"{parts.scheme}://{literal}:{port}", host, port, prefix)


def headers(call: Call) -> dict[str, str]:
    """Return the headers that differ from call to call."""
    key = header_value(call.idempotency_key).replace("\\", "\\\\").replace('"', '\\"')
    definition = call.definition
    sent = {
        IDEMPOTENCY_KEY: f'"{key}"',
        WORKFLOW: header_value(call.workflow),
        STEP: header_value(str(call.key)),
        ACTION: call.keyed_action.value,
        ATTEMPT: str(call.attempt),
        DEFINITION: header_value(f"{definition.name}/{definition.version}"),
        NAMESPACE: header_value(definition.namespace),
        TIMEOUT_MS: str(max(1, int(call.timeout * 1000))),
        DEADLINE: rfc3339(call.deadline),
    }
    if call.callback is not None:
        sent[CALLBACK] = header_value(call.callback)
    if call.trace is not None and _TRACE.fullmatch(call.trace):
        sent[TRACEPARENT] = call.trace
    return sent


def header_value(text: str) -> str:
    """Return `text` fit for a header: all but printable ASCII is percent-encoded."""
    if text.isascii() and text.isprintable():
        return text
    return quote(text.encode("utf-8", "replace"), safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}~")


def rfc3339(moment: datetime) -> str:
    """Return `moment` (aware) like `2024-05-06T07:08:09.123Z`."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"
