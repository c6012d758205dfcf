"""Values with a form of their own: addresses, the service's URL, references to secrets."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr, ValidationInfo

from sidecar.definitions.names import LATER

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?", re.ASCII)
_MAX_SECRET = 64 * 1024
_MAX_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; port 0 lets the system choose one."""

    host: str
    port: int

    def __str__(self) -> str:
        """As it is written in a configuration: `127.0.0.1:7400`, `[::1]:7400`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def split_address(written: str, *, least_port: int = 0) -> Address:
    """Read `host:port`. Raises `ValueError` with a sentence for people."""
    host, colon, port = written.rpartition(":")
    if not colon or not re.fullmatch("[0-9]{1,5}", port, re.ASCII):
        raise ValueError("must be host:port, like 127.0.0.1:7400")
    if not least_port <= int(port) <= _MAX_PORT:
        raise ValueError(f"its port must be from {least_port} to {_MAX_PORT}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError as error:
            raise ValueError(
                "must hold an IPv6 address in its brackets, like [::1]:7400"
            ) from error
    elif not _HOST.fullmatch(host):
        raise ValueError("must begin with a host name or an address, like 127.0.0.1:7400")
    return Address(host, int(port))


def _read_address(value: object) -> object:
    if isinstance(value, str):
        return split_address(value)
    if isinstance(value, Address):
        return value
    raise ValueError('must be host:port in quotes, like "127.0.0.1:7400"')


def _read_host_name(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name.removeprefix("[").removesuffix("]")))
    except ValueError:
        if not _HOST.fullmatch(name):
            raise ValueError(
                "must be a host name without scheme and port, like sagas.example.org"
            ) from None
    return name.lower()


def check_service_url(url: str) -> str:
    """Where the service answers. Raises `ValueError` with a sentence for people."""
    example = "like http://127.0.0.1:8080 or unix:///run/app.sock"
    if not url.isprintable() or " " in url:
        raise ValueError(f"holds a space or a control character; write a URL {example}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"is not a URL; write one {example}") from error
    if parts.scheme not in ("http", "https", "unix"):
        raise ValueError(f"must begin with http://, https:// or unix://, {example}")
    if "@" in parts.netloc:
        raise ValueError("must not hold a password; use service_auth")
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise ValueError("must end before any ? or #; only paths are added to it")
    if parts.scheme == "unix":
        if parts.netloc or not parts.path.startswith("/") or parts.path == "/":
            raise ValueError("must name a socket by its whole path: unix:///run/app.sock")
        return url
    if not host or port == 0:
        raise ValueError(f"must name a host; write a URL {example}")
    return url.rstrip("/")


def check_callback_url(url: str) -> str:
    """Where callbacks are taken: http or https, perhaps a path. Raises `ValueError`."""
    form = "must be like http://127.0.0.1:7400 or https://sagas.example.org/prefix"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(form) from None
    known = parts.scheme in {"http", "https"} and parts.hostname and port != 0
    more = parts.username is not None or parts.query or parts.fragment
    if not known or more or not (url.isascii() and url.isprintable() and " " not in url):
        raise ValueError(form)
    return url.rstrip("/")


def check_server(written: str) -> str:
    """A broker's address. Raises `ValueError` with a sentence for people."""
    split_address(written, least_port=1)
    return written


def resolve_secret(reference: str, env: Mapping[str, str]) -> SecretStr:
    """Read what `env:NAME` or `file:PATH` stands for.

    One line break at the end of a file is not part of the secret. Raises `ValueError` with a
    sentence for people, which never holds the secret.
    """
    kind, _, name = reference.partition(":")
    if kind == "env":
        if not (found := env.get(name, "")):
            raise ValueError(f"the environment variable {name!r} is not set, or empty; set it")
        return SecretStr(found)
    if kind == "file":
        return SecretStr(_read_secret_file(name))
    if kind == "secret":
        raise ValueError(f"`secret:NAME` {LATER}; write env:NAME or file:PATH")
    raise ValueError("must not stand here itself; write env:NAME or file:PATH")


def _read_secret_file(name: str) -> str:
    try:
        raw = Path(name).read_bytes() if Path(name).stat().st_size <= _MAX_SECRET else None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise ValueError(f"the file {name!r} cannot be read: {reason}") from error
    if raw is None:
        raise ValueError(f"the file {name!r} is larger than {_MAX_SECRET // 1024} KiB")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        # The original error shows the bytes.
        raise ValueError(f"the file {name!r} is not UTF-8 text") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ValueError(f"the file {name!r} is empty; write the secret into it")
    return text


def _environment(info: ValidationInfo) -> Mapping[str, str]:
    context: Any = info.context
    return context["env"] if isinstance(context, dict) else {}


def _read_secret(value: object, info: ValidationInfo) -> object:
    if isinstance(value, SecretStr):
        return value
    if not isinstance(value, str):
        raise ValueError("must be env:NAME or file:PATH")  # noqa: TRY004 - pydantic reads it
    return resolve_secret(value, _environment(info))


def _read_header_secret(secret: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[\x20-\x7e]+", secret.get_secret_value()):
        raise ValueError("what it stands for holds a line break or a character that is not ASCII")
    return secret


def _read_dsn(value: object, info: ValidationInfo) -> object:
    if isinstance(value, SecretStr):
        return value
    if isinstance(value, str) and value.partition(":")[0] in ("env", "file", "secret"):
        value = resolve_secret(value, _environment(info)).get_secret_value()
    if not isinstance(value, str) or not re.match(r"postgres(ql)?://|\w+ *=", value):
        raise ValueError("must be like postgresql://user@host/database, env:NAME or file:PATH")
    return SecretStr(value)


def _read_text_or_secret(value: object, info: ValidationInfo) -> object:
    """What may as well be written here itself."""
    if isinstance(value, str) and value.partition(":")[0] not in ("env", "file", "secret"):
        return SecretStr(value)
    return _read_secret(value, info)


def _check_readable(path: Path) -> Path:
    try:
        with path.open("rb"):
            return path
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise ValueError(f"the file {str(path)!r} cannot be read: {reason}") from error


ListenAddress = Annotated[Address, BeforeValidator(_read_address)]
HostName = Annotated[str, AfterValidator(_read_host_name)]
CallbackUrl = Annotated[str, AfterValidator(check_callback_url)]
ServiceUrl = Annotated[str, AfterValidator(check_service_url)]
Server = Annotated[str, AfterValidator(check_server)]
HeaderSecret = Annotated[
    SecretStr, BeforeValidator(_read_secret), AfterValidator(_read_header_secret)
]
Secret = Annotated[SecretStr, BeforeValidator(_read_secret)]
TextOrSecret = Annotated[SecretStr, BeforeValidator(_read_text_or_secret)]
ReadableFile = Annotated[Path, AfterValidator(_check_readable)]
Dsn = Annotated[SecretStr, BeforeValidator(_read_dsn)]
