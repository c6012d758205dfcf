"""Moments as people and programs write them: RFC 3339, with a zone."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_WRITTEN = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE
)


def parse_moment(text: object) -> datetime:
    """Read a moment, as UTC. Raises `ValueError` with a sentence for people."""
    if not isinstance(text, str) or not _WRITTEN.fullmatch(text):
        raise ValueError("must be a time as RFC 3339, like 2030-01-31T12:00:00Z")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError("is not a time that the calendar has") from error
