"""Brings letters: what a transition of one workflow means for another, a parent or a child.

A letter is kept in the transaction that it tells of, and forgotten in the one that applies it. The
sidecar that made the first tries at once to make the second; what it does not get done, because it
dies or the store is away, a leader does a little later. Brought twice, a letter does no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog

from sidecar.engine.group_commit import Committer
from sidecar.errors import GoConductorError
from sidecar.ports.store import LetterId, Transition
from sidecar.saga.changes import Changes, Letter

log = structlog.get_logger("sidecar.courier")

BRING_WITHIN_S = 10.0
UNDER_WAY_MAX = 1_000
"""More letters than this at a time are left to the leader."""


class Courier:
    """Brings the letters of what this sidecar commits."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer
        self._under_way: set[asyncio.Task[None]] = set()

    def deliver(self, changes: Iterable[Changes]) -> None:
        """Bring all letters of these transitions, soon."""
        for one in changes:
            for letter in one.letters:
                if len(self._under_way) >= UNDER_WAY_MAX:
                    return
                workflow = one.workflow
                known = LetterId(workflow.id, workflow.revision, letter.to)
                task = asyncio.create_task(self._bring(known, letter))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)

    async def stop(self) -> None:
        """Leave what is under way to the leader."""
        tasks = list(self._under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _bring(self, known: LetterId, letter: Letter) -> None:
        try:
            await self._committer.submit(
                Transition(letter.to, letter.event, letter=known), within=BRING_WITHIN_S
            )
        except GoConductorError as error:
            log.warning("letter_left_to_the_leader", to=letter.to, error=error.message)
        except Exception:
            log.exception("letter_left_to_the_leader", to=letter.to)
