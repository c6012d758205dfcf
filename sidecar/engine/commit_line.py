"""Those who wait for the next commit, in the order in which they came."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from sidecar.ports.store import Batch, ClaimDue, Start, Transition
from sidecar.saga.workflow import StepKey, WorkflowId

Key = tuple[WorkflowId, StepKey]

RIDES_BEFORE_WAITING = 3
REST_S = 0.02
REST_MAX_S = 1.0


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

    def ride_again(self) -> float:
        """Make it ready for another batch; return for how many seconds it rests before.

        From the third ride on it stands still for its workflow's row. One that takes a turn rests,
        too: for the lock of its key it never stands still, and would go from batch to batch.
        """
        self.rides += 1
        late = self.rides - RIDES_BEFORE_WAITING
        if late < 0 or not isinstance(self.member, Transition):
            return 0.0
        self.member = replace(self.member, wait=True)
        return 0.0 if self.member.turn is None else min(REST_S * 2.0**late, REST_MAX_S)

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


def without_waiting(batch: Batch) -> Batch:
    """The same members under the same ticket: what is locked still is told, and not waited for."""
    if not any(one.wait for one in batch.transitions):
        return batch
    return replace(batch, transitions=tuple(replace(o, wait=False) for o in batch.transitions))


def claiming_nothing_for(batch: Batch, members: Sequence[Waiting]) -> Batch:
    """The same batch, but starts that nobody waits for any more claim nothing: their slot is gone.

    What an earlier try of it has claimed is found by its ticket.
    """
    gone = {
        one.member.id
        for one in members
        if isinstance(one.member, Start) and one.member.claim_next and one.future.done()
    }
    if not gone:
        return batch
    return replace(
        batch,
        starts=tuple(
            replace(one, claim_next=False) if one.id in gone else one for one in batch.starts
        ),
    )
