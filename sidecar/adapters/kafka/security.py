"""How a client of Kafka proves who it is and knows whom it speaks to: TLS and SASL.

The files are read once, at the start; whoever changes a certificate starts the sidecar again.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar.errors import ConfigError


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """What the configuration says of it. Secrets stay out of its text.

    `cafile` left out: the system's authorities. `certfile` and `keyfile` are our own
    certificate, for brokers that ask for one; `password` opens the key's file.
    """

    protocol: str
    cafile: Path | None = None
    certfile: Path | None = None
    keyfile: Path | None = None
    key_password: str | None = field(default=None, repr=False)
    mechanism: str | None = None
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    def client_options(self) -> dict[str, Any]:
        """Return the driver's arguments. Raises `ConfigError` for files that are not usable."""
        options: dict[str, Any] = {"security_protocol": self.protocol}
        if self.protocol.endswith("SSL"):
            options["ssl_context"] = self._context()
        if self.protocol.startswith("SASL"):
            options |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        return options

    def _context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.cafile)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"queue.ssl_cafile: {self.cafile} holds no certificates in PEM ({_why(error)})"
            ) from error
        if self.certfile is None:
            return context
        try:
            # Always a password: without one the library would ask for it at the terminal.
            context.load_cert_chain(self.certfile, self.keyfile, self.key_password or "")
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"queue.ssl_certfile: {self.certfile} and {self.keyfile or 'the key in it'} are "
                "not a certificate and its key in PEM, or queue.ssl_password does not open the "
                f"key ({_why(error)})"
            ) from error
        return context


def _why(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or type(error).__name__
