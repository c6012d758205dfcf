"""The gate: whether the local service may be called at all.

A service that is down for an hour must cause no rollback. While the gate is closed nothing is
claimed, so no try is spent and no budget runs; steps wait in the store, where other replicas
find them.

    closed ──service says ready──▶ trying ──an answer──▶ open
      ▲                              │                    │
      └──────not ready, no answer────┴──10 bad in a row───┘

It starts closed, until the service was ready once. In `trying` work is taken again; the first
outcome decides.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog

from sidecar.ports import telemetry as metrics
from sidecar.ports.clock import Clock
from sidecar.ports.entropy import Entropy
from sidecar.ports.service import Service
from sidecar.ports.telemetry import Telemetry
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.workflow import WorkflowId

log = structlog.get_logger("sidecar.gate")

TRIP_AFTER = 10
PROBE_FIRST_S = 0.2
PROBE_LAST_S = 5.0
CHECK_EVERY_S = 5.0

_BAD = frozenset({OutcomeKind.NOT_SENT, OutcomeKind.NOT_NOW})


class Breaker:
    """Counts bad outcomes in a row over different workflows. Pure."""

    def __init__(self, trip_after: int = TRIP_AFTER) -> None:
        self._trip_after = trip_after
        self._bad: set[WorkflowId] = set()
        self._trying = False

    def trying(self) -> None:
        """The service says that it is ready: one bad outcome is now enough to trip."""
        self._bad.clear()
        self._trying = True

    def trips(self, workflow: WorkflowId, outcome: Outcome) -> bool:
        """Take one outcome into account; whether the gate must close."""
        if outcome.kind is OutcomeKind.RELEASED:
            return False
        if outcome.kind not in _BAD:
            self._bad.clear()
            self._trying = False
            return False
        self._bad.add(workflow)
        return self._trying or len(self._bad) >= self._trip_after


class Changed(Protocol):
    """Is told when the gate opens or closes."""

    def __call__(self, *, is_open: bool, reason: str) -> None:
        """Act on it; must not wait."""
        ...


class Gate:
    """The gate of one sidecar."""

    def __init__(
        self,
        service: Service,
        *,
        clock: Clock,
        entropy: Entropy,
        telemetry: Telemetry,
        on_change: Changed,
    ) -> None:
        self._service = service
        self._clock = clock
        self._entropy = entropy
        self._telemetry = telemetry
        self._on_change = on_change
        self._breaker = Breaker()
        self._opened = asyncio.Event()
        self._closed = asyncio.Event()
        self._closed.set()
        self._ever_open = False
        self._tripped = False
        self._task: asyncio.Task[None] | None = None
        self.reason = "service_not_ready_yet"

    @property
    def is_open(self) -> bool:
        """Whether the service may be called."""
        return self._opened.is_set()

    async def wait_open(self) -> None:
        """Wait until the service may be called."""
        await self._opened.wait()

    async def start(self) -> None:
        """Begin to ask the service."""
        if self._task is None:
            self._task = asyncio.create_task(self._watch(), name="gate")

    async def stop(self) -> None:
        """Stop asking."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def record(self, workflow: WorkflowId, outcome: Outcome) -> None:
        """Tell the gate what a call came to."""
        if self._breaker.trips(workflow, outcome) and self.is_open:
            self._tripped = True
            self._shut(f"service_answers_{outcome.kind.value}")

    async def _watch(self) -> None:
        while True:
            await self._until_ready()
            self._open()
            await self._until_not_ready()

    async def _until_ready(self) -> None:
        pause = PROBE_FIRST_S
        if self._tripped:
            # The service called itself ready while it turned work away: give it a moment.
            await self._sleep(pause)
            pause *= 2
        while not await self._service.ready():
            await self._sleep(pause)
            pause = min(pause * 2, PROBE_LAST_S)

    async def _until_not_ready(self) -> None:
        while self.is_open:
            try:
                async with asyncio.timeout(CHECK_EVERY_S):
                    await self._closed.wait()
            except TimeoutError:
                if self.is_open and not await self._service.ready():
                    self._shut("service_not_ready")

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds * (0.75 + 0.5 * self._entropy.chance()))

    def _open(self) -> None:
        if self._ever_open:
            self._breaker.trying()
        self._ever_open = True
        self._tripped = False
        self._change(is_open=True, reason="ready")

    def _shut(self, reason: str) -> None:
        self._change(is_open=False, reason=reason)

    def _change(self, *, is_open: bool, reason: str) -> None:
        self._telemetry.gauge(metrics.GATE_OPEN, 1 if is_open else 0)
        self.reason = reason
        if is_open:
            self._closed.clear()
            self._opened.set()
        else:
            self._opened.clear()
            self._closed.set()
        self._on_change(is_open=is_open, reason=reason)
