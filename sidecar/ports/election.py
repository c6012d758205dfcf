"""The election: which sidecar does the leader's duties.

Winning an election gives a sidecar the right to mint an epoch in the store; it is the epoch,
not the election, that protects the data. So an election may be wrong for a while (two
leaders, or none) without harm.
"""

from __future__ import annotations

from typing import Protocol


class Term(Protocol):
    """One stretch of leadership."""

    def trusted(self) -> bool:
        """Whether this process may still think itself the leader, by its monotonic clock."""
        ...

    async def lost(self) -> None:
        """Return when the term has ended, for whatever reason."""
        ...

    async def resign(self) -> None:
        """Give the leadership up, so that another can have it at once; harmless when repeated."""
        ...


class Election(Protocol):
    """A contest that at most one healthy candidate wins at a time."""

    async def open(self) -> None:
        """Make ready; does not wait for the backend."""
        ...

    async def close(self) -> None:
        """Resign if leading, and let go of everything; harmless when repeated."""
        ...

    async def campaign(self) -> Term:
        """Wait until this candidate is the leader. Keeps trying when the backend is away."""
        ...
