"""Priorities in some of the worlds: they decide who of those that wait is called first.

A draw of its own: the worlds without priorities stay what they were.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from sidecar.saga.priority import HIGHEST

SHARE_URGENT = 0.15


def give_priorities(seed: int, documents: Iterable[dict[str, Any]]) -> bool:
    """Let some definitions, and some of their calls, be more urgent; say whether any may be."""
    draw = random.Random(f"urgency {seed}")
    if draw.random() >= SHARE_URGENT:
        return False
    for document in documents:
        document["priority"] = draw.randint(0, HIGHEST)
        for step in document["steps"]:
            if "execute" in step and draw.random() < 0.4:
                step["priority"] = draw.randint(0, HIGHEST)
    return True
