"""The election's twin in memory: a booth shared by all candidates of one process.

The booth can be made to err, as real elections do: `grant_again` lets a second leader in while
the first still trusts its term, `depose` takes a term away without a word.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Booth:
    """Where candidates stand in line."""

    def __init__(self) -> None:
        self._line: deque[asyncio.Future[MemoryTerm]] = deque()
        self.holder: MemoryTerm | None = None

    async def next_term(self) -> MemoryTerm:
        """Wait for the next term that falls vacant."""
        if self.holder is None:
            self.holder = MemoryTerm(self)
            return self.holder
        turn: asyncio.Future[MemoryTerm] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.vacate(turn.result())
            raise

    def vacate(self, term: MemoryTerm) -> None:
        """End a term; whoever is next in line begins theirs."""
        term.end()
        if self.holder is term:
            self.holder = None
            self._call_next()

    def grant_again(self) -> None:
        """Let the next candidate lead although the present leader does not know of it."""
        self.holder = None
        self._call_next()

    def depose(self) -> None:
        """End the present term."""
        if self.holder is not None:
            self.vacate(self.holder)

    def _call_next(self) -> None:
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                self.holder = MemoryTerm(self)
                turn.set_result(self.holder)
                return


class MemoryTerm:
    """A term that lasts until it is resigned or taken away."""

    def __init__(self, booth: Booth) -> None:
        self._booth = booth
        self._ended = asyncio.Event()

    def trusted(self) -> bool:
        """Whether the term has not ended."""
        return not self._ended.is_set()

    async def lost(self) -> None:
        """Wait for the end of the term."""
        await self._ended.wait()

    async def resign(self) -> None:
        """Let the next candidate lead."""
        self._booth.vacate(self)

    def end(self) -> None:
        """Mark the term as ended."""
        self._ended.set()


class MemoryElection:
    """One candidate at a booth."""

    def __init__(self, booth: Booth) -> None:
        self._booth = booth
        self._term: MemoryTerm | None = None

    async def open(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        """Resign if leading."""
        if self._term is not None:
            await self._term.resign()

    async def campaign(self) -> MemoryTerm:
        """Wait to be the leader."""
        self._term = await self._booth.next_term()
        return self._term
