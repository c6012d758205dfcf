"""Spans of time as people write them in documents: `200ms`, `10s`, `5m`, `1h`, `1d`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from pydantic_core import core_schema

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_WRITTEN = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,3}))?(ms|s|m|h|d)", re.ASCII)
_FORM = "write a number and a unit, like 200ms, 10s, 5m, 1h or 1d"

MOST = timedelta(days=3660)
"""The longest span that can be written."""


def parse_duration(written: object) -> timedelta:
    """Read a span of time. Raises `ValueError` with a sentence for people."""
    if isinstance(written, timedelta):
        return written
    if isinstance(written, bool) or not isinstance(written, (int, float, str)):
        raise ValueError(f"must be a span of time; {_FORM}")  # noqa: TRY004 - pydantic reads it
    if not isinstance(written, str):
        raise ValueError(f"must have a unit; {_FORM}")  # noqa: TRY004 - pydantic reads it
    if written.startswith("P"):
        raise ValueError(f"is an ISO 8601 duration, which is not read here; {_FORM}")
    match = _WRITTEN.fullmatch(written)
    if match is None:
        raise ValueError(f"is not a span of time; {_FORM}")
    whole, fraction, unit = match.groups()
    thousandths = int(whole) * 1_000 + int((fraction or "").ljust(3, "0"))
    microseconds = thousandths * _UNITS[unit]
    if microseconds > MOST / timedelta(microseconds=1):
        raise ValueError(f"is longer than {duration_text(MOST)}, the most that can be written")
    return timedelta(microseconds=microseconds)


def duration_text(span: timedelta) -> str:
    """Write a span in the largest unit that needs no fraction (down to milliseconds)."""
    if span % timedelta(milliseconds=1):
        return f"{span / timedelta(milliseconds=1):g}ms"
    milliseconds = span // timedelta(milliseconds=1)
    for unit, size in reversed(_UNITS.items()):
        if milliseconds >= size and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return "0s"


class Between:
    """A pydantic marker: a written span of time from `least` to `most`, both allowed."""

    def __init__(self, least: str, most: str) -> None:
        self.least, self.most = parse_duration(least), parse_duration(most)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{_WRITTEN.pattern}$"}

    def read(self, written: object) -> timedelta:
        """Read and bound one value. Raises `ValueError` with a sentence for people."""
        span = parse_duration(written)
        if not self.least <= span <= self.most:
            raise ValueError(
                f"must be from {duration_text(self.least)} to {duration_text(self.most)}"
            )
        return span
