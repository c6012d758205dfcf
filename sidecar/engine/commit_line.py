"""Those who wait for the next commit, in the order in which they came."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from dataclasses import dataclass
from typing import Any

from sidecar.ports.store import ClaimDue, Start, Transition
from sidecar.saga.workflow import StepKey, WorkflowId

Key = tuple[WorkflowId, StepKey]


@dataclass(slots=True, eq=False)
class Waiting:
    """One member, and whoever waits for what becomes of it.

    `rides` counts the batches in which its workflow was locked, `refusals` those in which it
    stood alone and failed. Without `give_up_at` it waits for ever.
    """

    member: Start | Transition | Key | ClaimDue
    future: asyncio.Future[Any]
    give_up_at: float | None = None
    rides: int = 0
    refusals: int = 0

    @property
    def weight(self) -> int:
        """Bytes of memory that only this member holds: the body of a start."""
        return sys.getsizeof(self.member.input) if isinstance(self.member, Start) else 0

    @property
    def waits_for_lock(self) -> bool:
        """Whether a batch with this member may stand still for somebody else's lock."""
        return isinstance(self.member, Transition) and self.member.wait

    def answer(self, answer: object) -> None:
        """Tell what became of it, if anybody still waits."""
        if not self.future.done():
            self.future.set_result(answer)

    def fail(self, error: Exception) -> None:
        """Tell why nothing became of it, if anybody still waits."""
        if not self.future.done():
            self.future.set_exception(error)


class Line:
    """First come, first served. `weight` is the memory that those in the line hold."""

    def __init__(self) -> None:
        self._members: deque[Waiting] = deque()
        self.weight = 0

    def __len__(self) -> int:
        return len(self._members)

    def add(self, one: Waiting) -> None:
        """Let one more wait."""
        self._members.append(one)
        self.weight += one.weight

    def take(self, most: int) -> list[Waiting]:
        """Return who goes next: up to `most`, without those for whom nobody waits any more.

        One that stood alone and failed goes alone again, so that its fault delays nobody else.
        """
        taken: list[Waiting] = []
        while self._members and len(taken) < most:
            suspect = self._members[0].refusals > 0
            if suspect and taken:
                break
            one = self._members.popleft()
            self.weight -= one.weight
            if not one.future.done():
                taken.append(one)
                if suspect:
                    break
        return taken

    def give_up(self, now: float, error: Exception) -> None:
        """Tell those whose time is over, and let go of all for whom nobody waits any more."""
        for one in self._members:
            if one.give_up_at is not None and one.give_up_at <= now:
                one.fail(error)
        self._members = deque(one for one in self._members if not one.future.done())
        self.weight = sum(one.weight for one in self._members)
