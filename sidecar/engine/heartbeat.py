"""Being seen: every sidecar writes that it is alive, so that its leases can be ended if not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from sidecar.engine.failpoints import Site, failpoint
from sidecar.engine.identity import Identity
from sidecar.engine.supervision import LongTask
from sidecar.errors import StoreError
from sidecar.ports.records import SidecarBeat
from sidecar.ports.store import Store

log = structlog.get_logger("sidecar.heartbeat")

LEAVE_WITHIN_S = 2.0


class Heartbeat:
    """Writes `seen_at` every `interval_s` seconds."""

    def __init__(
        self,
        store: Store,
        identity: Identity,
        ready: Callable[[], bool],
        catalogue: Callable[[], int | None] = lambda: None,
        *,
        interval_s: float = 5.0,
    ) -> None:
        self._store = store
        self._identity = identity
        self._ready = ready
        self._catalogue = catalogue
        self._interval_s = interval_s
        self._task = LongTask("heartbeat", self._beat_for_ever)
        self.draining = False

    async def start(self) -> None:
        """Begin to beat."""
        self._task.start()

    async def stop(self) -> None:
        """Stop, and say that this incarnation is gone, if the store hears it in time."""
        if not self._task.running:
            return
        await self._task.stop()
        try:
            async with asyncio.timeout(LEAVE_WITHIN_S):
                failpoint(Site.GOODBYE)
                await self._store.leave(self._identity.incarnation)
        except (StoreError, TimeoutError) as error:
            log.warning("could_not_say_goodbye", error=str(error))
        except Exception:
            # Whoever stops the heart has more to stop.
            log.exception("could_not_say_goodbye")

    async def beat(self) -> None:
        """Write one beat now. Raises `StoreError`."""
        failpoint(Site.HEARTBEAT)
        await self._store.beat(
            SidecarBeat(
                incarnation=self._identity.incarnation,
                namespace=self._identity.namespace,
                service=self._identity.service,
                version=self._identity.version,
                host=self._identity.host,
                ready=self._ready(),
                draining=self.draining,
                catalogue=self._catalogue(),
            )
        )

    async def _beat_for_ever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._interval_s):
                    await self.beat()
            except (StoreError, TimeoutError) as error:
                log.warning("heartbeat_failed", error=str(error) or "no answer in time")
            await asyncio.sleep(self._interval_s)
