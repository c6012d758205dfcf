"""Spans of time: the one short form, and words for everything else."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.definitions.durations import Between, duration_text, parse_duration


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("200ms", 0.2), ("10s", 10), ("5m", 300), ("1h", 3_600), ("1d", 86_400), ("1.5s", 1.5)],
)
def test_the_short_form(written: str, seconds: float) -> None:
    assert parse_duration(written) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("PT10S", "ISO 8601"),
        (10, "unit"),
        (1.5, "unit"),
        ("10", "not a span"),
        ("10 s", "not a span"),
        ("-1s", "not a span"),
        ("1h30m", "not a span"),
        ("1w", "not a span"),
        ("\u0661s", "not a span"),
        ("", "not a span"),
        (True, "span of time"),
        (None, "span of time"),
        ("99999d", "longer"),
    ],
)
def test_everything_else_is_told_the_form(written: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_duration(written)


def test_bounds_are_told() -> None:
    between = Between("1s", "1h")
    assert between.read("1h") == timedelta(hours=1)
    with pytest.raises(ValueError, match="from 1s to 1h"):
        between.read("2h")


@given(st.integers(0, 10**10).map(lambda ms: timedelta(milliseconds=ms)))
def test_what_is_written_reads_back_the_same(span: timedelta) -> None:
    assert parse_duration(duration_text(span)) == span
