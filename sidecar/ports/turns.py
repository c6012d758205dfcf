"""The part of the store that tells who waits for a place, and who has one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from sidecar.ports.records import Holder
from sidecar.saga.turns import InLine, TurnKey
from sidecar.saga.workflow import WorkflowId


class Lines(Protocol):
    """Those who take turns, key by key. All raise `StoreUnavailable`."""

    async def next_turns(
        self, turns: Sequence[TurnKey], limit: int, *, without: Collection[WorkflowId] = ()
    ) -> Sequence[tuple[TurnKey, InLine]]:
        """Return those that can be admitted now: key by key, in the order in which they were given.

        Of each key the most urgent and then the oldest come first, up to the first for whom there
        is no place by its own limit. Those `without` are passed over, as if they did not wait.
        `limit` bounds all together: the keys from the last one told on may then have more.
        """
        ...

    async def free_turns(
        self, namespace: str, limit: int, after: TurnKey | None = None
    ) -> Sequence[TurnKey]:
        """Return keys for which somebody waits although there is a place, a page at a time.

        The next page comes `after` the last key of this one.
        """
        ...

    async def turn_holders(self, turn: TurnKey) -> Sequence[Holder]:
        """Return some of those that have the places, those first that have had one for longest."""
        ...
