"""Logs: one event is one line, and foreign text stays text."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from sidecar.adapters import logs


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def written(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return what was logged as JSON, an object for each line."""
    return [json.loads(line) for line in capsys.readouterr().err.split("\n")[:-1]]


def test_json_lines_carry_what_is_bound(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(json=True)
    with structlog.contextvars.bound_contextvars(workflow="w1", step="charge", attempt=2):
        structlog.get_logger("x").info("attempt_ended", outcome="done", ok=True, ratio=0.5)
    (line,) = written(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "attempt_ended",
        "level": "info",
        "workflow": "w1",
        "step": "charge",
        "attempt": 2,
        "outcome": "done",
        "ok": True,
        "ratio": 0.5,
    }


@pytest.mark.parametrize("json_lines", [True, False])
def test_foreign_text_neither_breaks_the_line_nor_steers_the_terminal(
    capsys: pytest.CaptureFixture[str], json_lines: bool
) -> None:
    logs.configure(json=json_lines)
    evil = "a\r\nfaked=line \x1b[2J \x9b31m \u2028 \u202e \x7f \x00 end"
    structlog.get_logger("x").info("odd", said=evil, inside={"key": [evil]}, error=ValueError(evil))
    out = capsys.readouterr().err
    assert out.count("\n") == 1
    for character in "\r\x1b\x9b\u2028\u202e\x7f\x00":
        assert character not in out
    assert "faked=line" in out


def test_a_field_is_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(json=True)
    structlog.get_logger("x").info("long", said="x" * 1_000_000, many=list(range(1_000_000)))
    (line,) = written(capsys)
    assert len(line["said"]) == logs.FIELD_MAX + 1
    assert len(line["many"]) == logs.FIELD_MAX + 1


def test_the_level_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(json=True, level="warning")
    log = structlog.get_logger("x")
    log.info("no")
    log.warning("yes")
    assert [line["event"] for line in written(capsys)] == ["yes"]


def test_an_exception_is_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(json=True)
    try:
        int("gone")
    except ValueError:
        structlog.get_logger("x").exception("failed")
    (line,) = written(capsys)
    assert "ValueError: invalid literal" in line["exception"]


def test_what_libraries_log_is_a_line_like_all_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    logs.configure(json=True)
    logging.getLogger("driver.pool").warning("cannot connect to %s:\n\tnobody is there", "db")
    logging.getLogger("driver").error("%d of them", "not a number")
    try:
        int("broken")
    except ValueError:
        logging.getLogger("driver").exception("failed")
    first, second, third = written(capsys)
    assert first.pop("timestamp")
    assert first == {
        "event": "library",
        "level": "warning",
        "library": "driver.pool",
        "said": "cannot connect to db:\\n\\tnobody is there",
    }
    assert (second["level"], second["said"]) == ("error", "%d of them")
    assert "ValueError: invalid literal" in third["exception"]
