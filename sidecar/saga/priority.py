"""Priorities: of what waits to be called, which comes first.

One level counts as much as `AGEING` of waiting. So a step of a high priority goes before those of
a low one that wait already, but not for ever: one that has waited long enough goes first, whatever
comes after it, and nobody starves.
"""

from __future__ import annotations

from datetime import datetime, timedelta

HIGHEST = 9
AGEING = timedelta(seconds=10)
"""What one level is worth; PostgreSQL keeps an index in this order."""


def rank(due_at: datetime, priority: int) -> datetime:
    """Return the moment by which a step is put in order among those that are due."""
    return due_at - AGEING * priority
