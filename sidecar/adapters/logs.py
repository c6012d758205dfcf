"""Logs: one line an event, as JSON or for a console.

Workflow, step, action and attempt are bound as context variables where a step is run, so that
every line written on its behalf carries them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import orjson
import structlog

FIELD_MAX = 2_000
"""How many characters a field has at most."""

_MAY_HAVE_LINES = frozenset({"exception"})
"""Fields of our own making whose line breaks stay; JSON escapes them, a console shows them."""


def configure(*, json: bool, level: str = "info") -> None:
    """Set up structlog for this process: JSON lines, or columns with colours on a terminal."""
    renderer: Any
    if json:
        renderer = structlog.processors.JSONRenderer(serializer=_dumps)
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            bounded,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[Libraries()])


class Libraries(logging.Handler):
    """Hands on what libraries log by Python's own means, so that it is a line like all others."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record again."""
        log = structlog.get_logger("sidecar.libraries")
        tell = log.error if record.levelno >= logging.ERROR else log.warning
        try:
            said = record.getMessage()
        except (TypeError, ValueError):
            said = str(record.msg)  # a library's message that does not fit its values
        tell("library", library=record.name, said=said, exc_info=record.exc_info)


def bounded(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Cut long fields, and keep foreign text from breaking the line or steering a terminal."""
    for name, value in event.items():
        if name in _MAY_HAVE_LINES or isinstance(value, (bool, int, float)) or value is None:
            continue
        event[name] = _safe(value if isinstance(value, str) else str(value))
    return event


def _safe(text: str) -> str:
    """Return `text` on one line: what is not printable is written as its escape."""
    cut = text if len(text) <= FIELD_MAX else f"{text[:FIELD_MAX]}…"
    if cut.isprintable():
        return cut
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in cut
    )


def _dumps(event: Any, **_options: Any) -> str:
    return orjson.dumps(event, default=str).decode()
