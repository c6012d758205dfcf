"""What one sidecar is made of: its world, and its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from sidecar.definitions.catalogues import Catalogue
from sidecar.engine.duty_times import DutyTimes
from sidecar.engine.receiving import LookInterval
from sidecar.ports.clock import Clock
from sidecar.ports.election import Election
from sidecar.ports.entropy import Entropy
from sidecar.ports.notices import Notices
from sidecar.ports.queue import Queue
from sidecar.ports.service import Service
from sidecar.ports.store import Store
from sidecar.ports.telemetry import Telemetry
from sidecar.saga.pacing import RateLimit


@dataclass(frozen=True, slots=True)
class Ports:
    """The world of one sidecar."""

    store: Store
    queue: Queue
    notices: Notices
    service: Service
    election: Election
    clock: Clock
    entropy: Entropy
    telemetry: Telemetry


@dataclass(frozen=True, slots=True)
class Settings:
    """The numbers of one sidecar; all times in seconds unless they are durations.

    `catalogue` is what its service offers, `rate_limits` how often paths of it may be called.
    """

    concurrency: int = 64
    lease_margin: timedelta = timedelta(seconds=5)
    max_batch: int = 500
    writers: int = 1
    heartbeat_s: float = 5.0
    drain_s: float = 25.0
    look: LookInterval = field(default_factory=LookInterval)
    duties: DutyTimes = field(default_factory=DutyTimes)
    catalogue: Catalogue = field(default_factory=Catalogue)
    rate_limits: Mapping[str, RateLimit] = field(default_factory=dict)
