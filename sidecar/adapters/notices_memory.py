"""Notices in this process: the twin for tests, the simulator and trials.

A `NoticeHub` stands for the database and is shared. What is announced in one turn of the
event loop is heard, as one notice, in the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable

import structlog

from sidecar.ports.notices import Notice
from sidecar.saga.workflow import WorkflowId

_log = structlog.get_logger("sidecar.notices")


class NoticeHub:
    """Carries notices between the `MemoryNotices` of one process, by namespace."""

    def __init__(self) -> None:
        self._members: dict[str, list[MemoryNotices]] = {}

    def join(self, namespace: str, member: MemoryNotices) -> None:
        """Let a member hear; harmless when repeated."""
        members = self._members.setdefault(namespace, [])
        if member not in members:
            members.append(member)

    def leave(self, namespace: str, member: MemoryNotices) -> None:
        """Let a member hear no more; harmless when repeated."""
        members = self._members.get(namespace, [])
        if member in members:
            members.remove(member)

    def tell(self, namespace: str, notice: Notice) -> None:
        """Bring a notice to every member of the namespace."""
        for member in tuple(self._members.get(namespace, ())):
            member.hear(notice)


class MemoryNotices:
    """One sidecar's end of a `NoticeHub`."""

    def __init__(self, hub: NoticeHub, *, namespace: str, service: str) -> None:
        self._hub = hub
        self._namespace = namespace
        self._service = service
        self._subscribers: list[Callable[[Notice], None]] = []
        self._services: set[str] = set()
        self._ended: dict[WorkflowId, None] = {}
        self._open = False
        self._due = False

    async def open(self) -> None:
        """See the port."""
        self._open = True
        self._hub.join(self._namespace, self)

    async def close(self) -> None:
        """See the port. What was announced before is still heard by others."""
        if self._due:
            self._send()
        self._open = False
        self._hub.leave(self._namespace, self)

    def announce(self, *, services: Iterable[str] = (), ended: Collection[WorkflowId] = ()) -> None:
        """See the port."""
        self._services.update(services)
        self._ended.update(dict.fromkeys(ended))
        if self._open and not self._due and (self._services or self._ended):
            self._due = True
            asyncio.get_running_loop().call_soon(self._send)

    def subscribe(self, hear: Callable[[Notice], None]) -> Callable[[], None]:
        """See the port."""
        self._subscribers.append(hear)

        def unsubscribe() -> None:
            if hear in self._subscribers:
                self._subscribers.remove(hear)

        return unsubscribe

    def hear(self, notice: Notice) -> None:
        """Pass on what concerns this sidecar: its own service, and every workflow that ended."""
        mine = Notice(notice.services & {self._service}, notice.ended)
        if not mine.services and not mine.ended:
            return
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(mine)
            except Exception:  # noqa: BLE001  (anybody's code: it must not silence the others)
                _log.exception("notices_subscriber_failed")

    def _send(self) -> None:
        if not self._due:
            return
        self._due = False
        notice = Notice(frozenset(self._services), tuple(self._ended))
        self._services.clear()
        self._ended.clear()
        self._hub.tell(self._namespace, notice)
