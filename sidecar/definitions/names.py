"""Names and paths, and how they may look; each check tells people what to write instead."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from sidecar.saga.paths import path_fault

MAX_NAME = 63
MAX_PATH = 1_024

LATER = "is not supported yet in this version"
"""How a key of the language is refused that this version does not run."""

_NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
_SERVICE = re.compile(r"[a-z][a-z0-9_-]*", re.ASCII)
_PATH = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]*(\?[A-Za-z0-9\-._~!$&'()*+,;=:@%/?]*)?")
_ENCODED = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HIDDEN = re.compile("%(2f|5c|0[0-9a-f]|1[0-9a-f])", re.IGNORECASE)


def check_name(name: str) -> str:
    """A name of a definition or step. Raises `ValueError` with a sentence for people."""
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise ValueError(
            "must begin with a letter a-z and hold only a-z, 0-9 and _ "
            f"(at most {MAX_NAME} characters), like order_processing"
        )
    return name


def check_service(name: str) -> str:
    """A name of a service. Raises `ValueError` with a sentence for people."""
    if not _SERVICE.fullmatch(name) or len(name) > MAX_NAME:
        raise ValueError(
            "must begin with a letter a-z and hold only a-z, 0-9, _ and - "
            f"(at most {MAX_NAME} characters), like payments"
        )
    return name


def check_path(path: str) -> str:
    """A path of a service, never a host. Raises `ValueError` with a sentence for people."""
    if "://" in path or path.startswith("//"):
        raise ValueError("must be a path like /charges; hosts belong to the sidecar's service_url")
    if "${" in path:
        raise ValueError("cannot hold an expression; put what varies into `input`")
    if not path.startswith("/"):
        raise ValueError("must begin with /, like /charges")
    if len(path) > MAX_PATH:
        raise ValueError(f"is too long; at most {MAX_PATH} characters")
    if not _PATH.fullmatch(path) or _ENCODED.search(path):
        raise ValueError(
            "holds a character that a path cannot have (a space, a control character, "
            "#, a backslash, or not ASCII); percent-encode it"
        )
    if _HIDDEN.search(path) or path_fault(path) is not None:
        raise ValueError("must not hold `.`, `..` or encoded slashes; write the path out")
    return path


def _text(pattern: re.Pattern[str], most: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern.pattern}$", "maxLength": most})


Name = Annotated[str, AfterValidator(check_name), _text(_NAME, MAX_NAME)]
ServiceName = Annotated[str, AfterValidator(check_service), _text(_SERVICE, MAX_NAME)]
ServicePath = Annotated[str, AfterValidator(check_path), _text(_PATH, MAX_PATH)]
