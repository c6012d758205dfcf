"""What the engine's log says during a run: bugs are complaints, the rest is for the story."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog

EXPECTED = frozenset({"compensation_failed", "compensation_keeps_failing"})
"""Errors that are for a person: whatever else is logged as an error tells of a bug."""

ERRORS = frozenset({"error", "exception", "critical"})


@contextmanager
def listening(
    tell: Callable[[str], None] | None, complain: Callable[[str], None]
) -> Iterator[None]:
    """Listen to the log for the length of a run; `tell` None hears of bugs alone."""

    def hear(_: Any, method: str, event: Any) -> Any:
        name = event.pop("event")
        if tell is not None:
            tell(f"log {name} {event}")
        if method in ERRORS and name not in EXPECTED:
            complain(f"the engine logged {name}: {_cause(event)!r}")
        raise structlog.DropEvent

    _forget_how_to_log()
    level = logging.INFO if tell is not None else logging.ERROR
    before = structlog.get_config()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, hear],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def _forget_how_to_log() -> None:
    """Let all loggers ask how to log: one used under the product's own settings keeps them."""
    for name, module in tuple(sys.modules.items()):
        if name.startswith("sidecar."):
            for value in vars(module).values():
                if isinstance(value, structlog._config.BoundLoggerLazyProxy):
                    vars(value).pop("bind", None)


def _cause(event: dict[str, Any]) -> Any:
    info = event.get("exc_info")
    return sys.exc_info()[1] if info is True else info
