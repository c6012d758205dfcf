"""Up to where a stream has been acknowledged without a gap.

Logs such as Kafka's keep one position per partition: everything before it counts as done.
Deliveries are acknowledged in any order, so the position may only follow the oldest one that
is still open. One `Watermark` belongs to one assignment of one partition: after a rebalance
there is a new one, and acknowledgements that still come for the old one go nowhere.
"""

from __future__ import annotations

from collections import deque


class Watermark:
    """The open deliveries of one partition, and the position below them.

    `position` is the next offset to be read after a restart, None until anything was
    acknowledged. `written` is the last position that the broker has confirmed.
    """

    __slots__ = ("_acked", "_open", "newest", "position", "written")

    def __init__(self) -> None:
        self._open: deque[int] = deque()
        self._acked: set[int] = set()
        self.newest = -1
        self.position: int | None = None
        self.written: int | None = None

    def __len__(self) -> int:
        return len(self._open)

    @property
    def moved(self) -> bool:
        """Whether the position should be written again."""
        return self.position != self.written

    def deliver(self, offset: int) -> None:
        """Take note that `offset`, higher than all before it, was handed out."""
        self._open.append(offset)
        self.newest = offset

    def ack(self, offset: int) -> None:
        """Close a delivery; harmless when repeated."""
        waiting = self._open
        if not waiting or offset < waiting[0]:
            return
        self._acked.add(offset)
        while waiting and waiting[0] in self._acked:
            done = waiting.popleft()
            self._acked.discard(done)
            self.position = done + 1
