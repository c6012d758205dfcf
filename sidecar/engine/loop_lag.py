"""How late the event loop wakes this process: what everything else here waits for, too."""

from __future__ import annotations

import asyncio

from sidecar.ports import telemetry as metrics
from sidecar.ports.clock import Clock
from sidecar.ports.telemetry import Telemetry

LAG_EVERY_S = 1.0


async def watch_loop(clock: Clock, telemetry: Telemetry) -> None:
    """Measure it every second, for ever."""
    while True:
        before = clock.monotonic()
        await asyncio.sleep(LAG_EVERY_S)
        telemetry.gauge(metrics.LOOP_LAG, max(0.0, clock.monotonic() - before - LAG_EVERY_S))
