"""Chance and ids, injected everywhere so that the simulator can own them."""

from __future__ import annotations

from typing import Protocol

from sidecar.saga.workflow import WorkflowId


class Entropy(Protocol):
    """The only source of randomness."""

    def workflow_id(self) -> WorkflowId:
        """Return a new UUID, version 7 (RFC 9562), so that ids sort by time."""
        ...

    def incarnation(self) -> str:
        """Return a new random name for this process, good for one life."""
        ...

    def chance(self) -> float:
        """Return a number in [0, 1)."""
        ...

    def key(self) -> bytes:
        """Return 32 bytes that nobody can guess."""
        ...
