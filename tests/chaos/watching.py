"""A thread that looks at a world while it runs: who has died, who leads, who has a place.

It is what an orchestrator would be. With `supervise` a sidecar that ended is started again at
once, without the failpoints that it had. Each end that nobody asked for is remembered with its
exit status, and the world's verdict speaks of it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

import psycopg

from tests.chaos.expectations import Exit
from tests.chaos.rows import Crowd, LeaderSample, read_crowds, read_leader
from tests.chaos.sidecars import FAILPOINTS, Sidecar

_EVERY_S = 0.05


class Watch:
    """Looks until it is closed. `lock` is held while a sidecar's process is exchanged."""

    def __init__(
        self, sidecars: Mapping[str, Sidecar], dsn: str, counts: Counter[str], *, supervise: bool
    ) -> None:
        self.lock = threading.RLock()
        self.leaders: list[LeaderSample] = []
        self.exits: list[Exit] = []
        self._crowds: dict[tuple[str, str, str], Crowd] = {}
        self._sidecars = sidecars
        self._dsn = dsn
        self._counts = counts
        self._supervise = supervise
        self._closed = threading.Event()
        self._failed: BaseException | None = None
        self._connection: psycopg.Connection[Any] | None = None
        self._thread = threading.Thread(target=self._run, name="chaos-watch", daemon=True)
        self._thread.start()

    @property
    def crowds(self) -> list[Crowd]:
        """The most that were seen of each key at a moment."""
        return list(self._crowds.values())

    def close(self) -> None:
        """End it, and raise what ended it before its time."""
        self._closed.set()
        self._thread.join()
        if self._connection is not None:
            self._connection.close()
        if self._failed is not None:
            raise self._failed

    def revive(self, sidecar: Sidecar) -> None:
        """Start a sidecar again, without its failpoints."""
        with self.lock:
            sidecar.environment.pop(FAILPOINTS, None)
            sidecar.start()
            self._counts["restarts"] += 1

    def _run(self) -> None:
        try:
            while not self._closed.wait(_EVERY_S):
                self._look_after()
                self._look_at_postgres()
        except BaseException as error:  # noqa: BLE001  (told by close, which a test always calls)
            self._failed = error

    def _look_after(self) -> None:
        for sidecar in self._sidecars.values():
            with self.lock:
                if sidecar.alive or not sidecar.wanted:
                    continue
                self.exits.append(Exit(sidecar.name, sidecar.process.wait()))
                sidecar.wanted = False
                if self._supervise and not self._closed.is_set():
                    self.revive(sidecar)

    def _look_at_postgres(self) -> None:
        """Take samples; a server that is away has none to give."""
        try:
            if self._connection is None:
                self._connection = psycopg.connect(self._dsn, autocommit=True, connect_timeout=1)
            sample = read_leader(self._connection)
            crowds = read_crowds(self._connection)
        except psycopg.OperationalError:
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            return
        if sample is not None and (not self.leaders or self.leaders[-1] != sample):
            self.leaders.append(sample)
        for crowd in crowds:
            key = (crowd.definition, crowd.step, crowd.turn)
            if key not in self._crowds or self._crowds[key].number < crowd.number:
                self._crowds[key] = crowd
