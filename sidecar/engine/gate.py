"""The gate: whether the service may be called at all.

A service that is down is no reason to undo anything. So a closed gate keeps work where it is:
nothing is claimed, other replicas get the doorbells, and time in `queued` costs no budget.

    CLOSED --ready--> OPEN                after the start, or after `ready` had failed
    CLOSED --ready--> TRIAL               after the breaker: the service is there, but says no
    TRIAL  --a good outcome--> OPEN       until then one call at a time is allowed
    TRIAL  --a bad outcome--> CLOSED
    OPEN, TRIAL --not ready--> CLOSED
    OPEN   --bad outcomes in a row, over different workflows--> CLOSED

Bad are `not_sent` and `not_now`: the service says, or shows, that it cannot take calls. A
time-out or a 5xx is not: it speaks of one request. While closed, `ready` is asked on a jittered
back-off; while open, now and then, and at once when a call could not be sent.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import structlog

from sidecar.engine.failpoints import Site, failpoint
from sidecar.engine.supervision import LongTask
from sidecar.ports import telemetry as metrics
from sidecar.ports.clock import Clock
from sidecar.ports.entropy import Entropy
from sidecar.ports.service import Service
from sidecar.ports.telemetry import Telemetry
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.workflow import WorkflowId

log = structlog.get_logger("sidecar.gate")

UNLIMITED = sys.maxsize
"""What `Gate.limit` is while the gate is open."""

_BAD = frozenset({OutcomeKind.NOT_SENT, OutcomeKind.NOT_NOW})


class GateState(StrEnum):
    """Whether calls are allowed: none, one at a time, all."""

    CLOSED = "closed"
    TRIAL = "trial"
    OPEN = "open"


class GateReason(StrEnum):
    """Why the gate stands as it does."""

    STARTING = "starting"
    """The service has not been ready yet."""
    NOT_READY = "not_ready"
    """`ready` failed."""
    TURNED_AWAY = "turned_away"
    """Too many calls in a row were not sent, or were answered with "not now"."""
    READY = "ready"
    """`ready` succeeded, or a trial did."""


@dataclass(frozen=True, slots=True)
class GateTimes:
    """How the gate behaves; all times in seconds.

    `turned_away` bad outcomes in a row over as many different workflows close it. While closed
    the service is asked after `first_pause`, doubling to `last_pause`; while open every `check`.
    """

    turned_away: int = 10
    first_pause: float = 0.2
    last_pause: float = 5.0
    check: float = 5.0
    jitter: float = 0.2


@dataclass(slots=True)
class GateRules:
    """The decisions of the gate, without I/O. Each method returns whether the state changed."""

    times: GateTimes = field(default_factory=GateTimes)
    state: GateState = GateState.CLOSED
    reason: GateReason = GateReason.STARTING
    _pauses: int = 0
    _in_a_row: set[WorkflowId] = field(default_factory=set)

    def outcome(self, workflow: WorkflowId, kind: OutcomeKind) -> bool:
        """Take the outcome of one call into account."""
        if kind is OutcomeKind.RELEASED or self.state is GateState.CLOSED:
            return False
        if kind not in _BAD:
            self._in_a_row.clear()
            return self.state is GateState.TRIAL and self._open()
        if self.state is GateState.TRIAL:
            return self._close(GateReason.TURNED_AWAY)
        self._in_a_row.add(workflow)
        too_many = len(self._in_a_row) >= self.times.turned_away
        return too_many and self._close(GateReason.TURNED_AWAY)

    def asked(self, *, ready: bool) -> bool:
        """Take the service's answer to `ready` into account."""
        if not ready:
            if self.state is not GateState.CLOSED:
                return self._close(GateReason.NOT_READY)
            # Going on to be down after the breaker is a reason of its own; starting stays starting.
            if self.reason is GateReason.TURNED_AWAY:
                self.reason = GateReason.NOT_READY
            return False
        if self.state is not GateState.CLOSED:
            return False
        if self.reason is GateReason.TURNED_AWAY:
            self.state = GateState.TRIAL
            return True
        return self._open()

    def pause(self, chance: float) -> float:
        """Return how long to wait before `ready` is asked again; `chance` is in [0, 1)."""
        if self.state is GateState.CLOSED:
            seconds = min(
                self.times.first_pause * 2.0 ** min(self._pauses, 32), self.times.last_pause
            )
            self._pauses += 1
        else:
            seconds = self.times.check
        return seconds * (1.0 + self.times.jitter * (2.0 * chance - 1.0))

    def _open(self) -> bool:
        self.state, self.reason = GateState.OPEN, GateReason.READY
        self._pauses = 0
        self._in_a_row.clear()
        return True

    def _close(self, reason: GateReason) -> bool:
        self.state, self.reason = GateState.CLOSED, reason
        self._in_a_row.clear()
        return True


class GateListener(Protocol):
    """Hears that the gate opened or closed; must neither wait nor raise."""

    def __call__(self, *, is_open: bool, reason: str) -> None:
        """`reason` is a stable word of `GateReason`."""
        ...


class Gate:
    """Asks the service whether it is ready, listens to how calls go, and says what is allowed.

    It starts closed, and opens once the service was ready.
    """

    def __init__(
        self,
        service: Service,
        *,
        clock: Clock,
        entropy: Entropy,
        telemetry: Telemetry,
        on_change: GateListener | None = None,
        times: GateTimes | None = None,
    ) -> None:
        self._service = service
        self._clock = clock
        self._entropy = entropy
        self._telemetry = telemetry
        self._listeners: list[GateListener] = [on_change] if on_change is not None else []
        self._rules = GateRules(times or GateTimes())
        self._since = clock.monotonic()
        self._open = asyncio.Event()
        self._ask_now = asyncio.Event()
        self._task = LongTask("gate", self.run)

    @property
    def is_open(self) -> bool:
        """Whether at least one call is allowed."""
        return self._open.is_set()

    @property
    def limit(self) -> int:
        """How many calls may be in flight: none, one (a trial), or `UNLIMITED`."""
        match self._rules.state:
            case GateState.CLOSED:
                return 0
            case GateState.TRIAL:
                return 1
            case GateState.OPEN:
                return UNLIMITED

    @property
    def state(self) -> GateState:
        """Where the gate stands."""
        return self._rules.state

    @property
    def reason(self) -> GateReason:
        """Why it stands there."""
        return self._rules.reason

    @property
    def seconds_in_state(self) -> float:
        """How long the gate has stood where it stands."""
        return self._clock.monotonic() - self._since

    async def wait_open(self) -> None:
        """Wait until at least one call is allowed."""
        await self._open.wait()

    def listen(self, listener: GateListener) -> None:
        """Tell `listener` from now on when the gate opens or closes."""
        self._listeners.append(listener)

    def record(self, workflow: WorkflowId, outcome: Outcome) -> None:
        """Take the outcome of one call into account; cheap, called for every call."""
        before = self._rules.state
        if self._rules.outcome(workflow, outcome.kind):
            self._changed(before)
        if outcome.kind is OutcomeKind.NOT_SENT or before is not self._rules.state:
            self._ask_now.set()

    async def start(self) -> None:
        """Start to ask the service; harmless when repeated."""
        if not self._task.running:
            self._telemetry.gauge(metrics.GATE_OPEN, 0)
            self._task.start()

    async def stop(self) -> None:
        """Stop asking; the gate stays as it is. Harmless when repeated."""
        await self._task.stop()

    async def run(self) -> None:
        """Ask the service for ever, as often as the state of the gate calls for."""
        while True:
            ready = await self._ask()
            before = self._rules.state
            if self._rules.asked(ready=ready):
                self._changed(before)
            await self._pause()

    async def _ask(self) -> bool:
        try:
            failpoint(Site.GATE_PROBE)
            return await self._service.ready()
        except Exception:
            # A gate that died would stay as it is for ever; what cannot say yes is not ready.
            log.exception("ready_raised")
            return False

    async def _pause(self) -> None:
        """Wait for the next time to ask; an open gate asks at once when a call was not sent.

        A gate that is closed, or that closes meanwhile, keeps to its back-off.
        """
        self._ask_now.clear()
        if self._rules.state is not GateState.CLOSED:
            try:
                async with asyncio.timeout(self._rules.pause(self._entropy.chance())):
                    await self._ask_now.wait()
            except TimeoutError:
                return
        if self._rules.state is GateState.CLOSED:
            await asyncio.sleep(self._rules.pause(self._entropy.chance()))

    def _changed(self, before: GateState) -> None:
        self._since = self._clock.monotonic()
        state, reason = self._rules.state, self._rules.reason
        if state is GateState.CLOSED:
            self._open.clear()
        else:
            self._open.set()
        was_open, is_open = before is not GateState.CLOSED, state is not GateState.CLOSED
        self._telemetry.fact(f"gate.{state}", reason=str(reason))
        if was_open is not is_open:
            self._telemetry.gauge(metrics.GATE_OPEN, int(is_open))
            for listener in self._listeners:
                try:
                    failpoint(Site.GATE_CHANGED)
                    listener(is_open=is_open, reason=str(reason))
                except Exception:
                    # Whoever brought an outcome has an answer in hand, which must be settled.
                    log.exception("gate_change_not_heard", is_open=is_open)
