"""The one rule for the path of an action, of whoever checks it first.

A definition is refused for what its calls would be refused for later: a compensation that is
found to have no path only when it is due would never run.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

MAX_PATH = 2048
"""The longest path, in characters."""

_PATH = re.compile(r"/(?!/)(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*", re.ASCII)


def path_fault(path: str) -> str | None:
    """Return what is wrong with a path, or None."""
    if len(path) > MAX_PATH:
        return f"a path has at most {MAX_PATH} characters"
    if not _PATH.fullmatch(path):
        return "a path begins with one / and holds only what a URL may hold"
    # Servers differ in how often they decode; a path that is fine however often has no dots.
    plain = path.partition("?")[0]
    while (once := unquote(plain)) != plain:
        plain = once
    if any(part in {".", ".."} for part in re.split(r"[/\\]", plain)):
        return "a path holds no . or .. between slashes"
    return None
