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
            _bounded,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")


def _bounded(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Cut long fields, and keep control characters of foreign text from breaking the line."""
    for name, value in event.items():
        if isinstance(value, str) and name != "exception":
            text = value if len(value) <= FIELD_MAX else value[:FIELD_MAX] + "…"
            event[name] = "".join(one if one >= " " else repr(one)[1:-1] for one in text)
    return event


def _dumps(event: Any, **_options: Any) -> str:
    return orjson.dumps(event, default=str).decode()
