"""By which names this API may be asked.

On loopback the API needs no token, since only this machine reaches it. But a page that somebody
looks at here runs on this machine too: its author lets a name of his own point to 127.0.0.1, and
for the browser the API is then of the page's own origin. What gives it away is the name, which
stands in the header Host.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from aiohttp import web

from sidecar.api.rest.problems import MisdirectedHost


@dataclass(frozen=True, slots=True)
class Hosts:
    """The names besides those of loopback, in lower case."""

    names: frozenset[str] = frozenset()

    def check(self, request: web.Request) -> None:
        """Raise `MisdirectedHost` unless the request names a host that is ours, once."""
        given = request.headers.getall("Host", ())
        if len(given) == 1:
            name = _without_port(given[0])
            if name in self.names or _is_loopback(name):
                return
        raise MisdirectedHost(
            "This API is not served under the host that the request names; ask for 127.0.0.1 or "
            "localhost, or add the name to listen.allowed_hosts in the sidecar's configuration.",
            field="Host",
        )


def _without_port(host: str) -> str:
    """The name or address in a Host header, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].rstrip(".").lower()


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
