"""What people who run workflows oversee, beyond the single workflow."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sidecar.engine.bulk import Bulk
from sidecar.engine.commands import Commands
from sidecar.engine.compiled import CompiledDefinitions
from sidecar.engine.debt import DebtBook
from sidecar.engine.queries import Queries
from sidecar.engine.rerunning import Reruns
from sidecar.engine.services import Services
from sidecar.engine.verbs import Verbs
from sidecar.engine.versioning import Versioning
from sidecar.ports.clock import Clock
from sidecar.ports.entropy import Entropy
from sidecar.ports.store import Store
from sidecar.ports.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Oversight:
    """The versions of definitions, what is owed, verbs over many workflows, reruns, services."""

    versions: Versioning
    debt: DebtBook
    bulk: Bulk
    reruns: Reruns
    services: Services

    @classmethod
    def over(
        cls,
        store: Store,
        compiled: CompiledDefinitions,
        commands: Commands,
        queries: Queries,
        verbs: Verbs,
        incarnation: str,
        telemetry: Telemetry,
        clock: Clock,
        entropy: Entropy,
        *,
        silent_after: timedelta,
    ) -> Oversight:
        """All of it, over one store; a sidecar unseen for `silent_after` is none that lives."""
        return cls(
            Versioning(store, compiled),
            DebtBook(store, compiled, clock),
            Bulk(store, verbs, incarnation, entropy, telemetry),
            Reruns(commands, queries),
            Services(store, silent_after),
        )
