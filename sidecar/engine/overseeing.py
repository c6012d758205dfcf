"""What a leader does for those who oversee: it looks again at rollbacks, and tells what is owed.

- `reviews`: has every open rollback of a `central` definition decided on anew, from its state alone
- `debts`: sets the metrics of what is owed
- `catalogues`: tells of services whose replicas do not offer the same
- `bulk`: takes over bulk jobs whose sidecar has gone, and forgets those that ended long ago
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from sidecar.engine.bulk import FORGOTTEN_AFTER, QUIET_FOR
from sidecar.engine.debt import DebtBook, totals
from sidecar.ports import telemetry as metrics
from sidecar.ports.records import LeaderWork
from sidecar.ports.store import Epoch, Store, Transition
from sidecar.ports.telemetry import Telemetry
from sidecar.saga.events import RollbackReviewed
from sidecar.saga.workflow import WorkflowId

log = structlog.get_logger("sidecar.overseeing")

PAGE = 200
MOST_PAGES = 10
"""What one round looks at; the next goes on where it ended."""

JOBS = 10
FORGOTTEN = 10_000
"""How many jobs are taken over, and how many members of old ones forgotten, in one round."""

Apply = Callable[[Epoch, list[Transition]], Awaitable[int]]
"""Commits transitions under an epoch, as all duties do; says how many wrote anything."""


class Overseer:
    """The duties of oversight of one leader."""

    def __init__(
        self,
        store: Store,
        debts: DebtBook,
        telemetry: Telemetry,
        namespace: str,
        *,
        silent_after: timedelta,
        apply: Apply,
        take_bulk: Callable[[str], None] | None = None,
    ) -> None:
        self._store = store
        self._debts = debts
        self._telemetry = telemetry
        self._namespace = namespace
        self._silent_after = silent_after
        self._apply = apply
        self._take_bulk = take_bulk
        self._reviewed_to: WorkflowId | None = None
        self._counts: dict[tuple[str, str], int] = {}
        self._ages: dict[str, float] = {}
        self._differing: set[str] = set()

    @property
    def duties(self) -> dict[str, Callable[[Epoch], Awaitable[int]]]:
        """The duties by their names."""
        return {
            "reviews": self.review,
            "debts": self.tell_debts,
            "catalogues": self.compare_catalogues,
            "bulk": self.look_after_bulk,
        }

    def asked(self, work: LeaderWork) -> dict[str, bool]:
        """Which of them have something to do: also what is not owed any more has to be told."""
        debts = work.debts or bool(self._counts)
        return {"reviews": work.central_rollbacks, "debts": debts, "bulk": work.bulk}

    async def review(self, epoch: Epoch) -> int:
        """Look again at open rollbacks; return how many of them had something to begin."""
        begun = 0
        for _ in range(MOST_PAGES):
            page = await self._store.central_rollbacks(self._namespace, self._reviewed_to, PAGE)
            begun += await self._apply(epoch, [Transition(one, RollbackReviewed()) for one in page])
            if len(page) < PAGE:
                self._reviewed_to = None
                break
            self._reviewed_to = page[-1]
        return begun

    async def tell_debts(self, epoch: Epoch) -> int:
        """Set the gauges of what is owed; those of services that owe nothing any more to zero."""
        del epoch  # nothing is written
        summary = await self._debts.summary(self._namespace)
        self._tell(totals(summary), {one.service: one.oldest_age_s for one in summary.services})
        return 0

    async def compare_catalogues(self, epoch: Epoch) -> int:
        """Tell of each service whether its live replicas have the same catalogue."""
        del epoch  # nothing is written
        found = await self._store.live_versions(self._namespace, self._silent_after)
        differing = {service for service, versions in found.items() if len(versions) > 1}
        for service in sorted(differing - self._differing):
            told = sorted(version or 0 for version in found[service])
            log.warning("catalogues_differ", service=service, versions=told)
        self._tell_differing(differing, offering={one for one in found if found[one] != {None}})
        return 0

    async def look_after_bulk(self, epoch: Epoch) -> int:
        """Work here on jobs that do not get on elsewhere, and forget old ones."""
        quiet = await self._store.quiet_bulk(self._namespace, QUIET_FOR, JOBS)
        if self._take_bulk is not None:
            for job in quiet:
                self._take_bulk(job)
        old = await self._store.forget_bulk(self._namespace, FORGOTTEN_AFTER, epoch, FORGOTTEN)
        return len(quiet) + old

    def stand_down(self) -> None:
        """Tell nothing any more: another leader does."""
        self._reviewed_to = None
        self._tell({}, {})
        self._tell_differing(set(), offering=set())

    def _tell_differing(self, differing: set[str], *, offering: set[str]) -> None:
        for service in differing | self._differing | offering:
            self._telemetry.gauge(
                metrics.CATALOGUES_DIFFER, int(service in differing), service=service
            )
        self._differing = differing

    def _tell(self, counts: dict[tuple[str, str], int], ages: dict[str, float]) -> None:
        for (service, state), count in (dict.fromkeys(self._counts, 0) | counts).items():
            self._telemetry.gauge(metrics.DEBT, count, service=service, state=state)
        for service, age in (dict.fromkeys(self._ages, 0.0) | ages).items():
            self._telemetry.gauge(metrics.DEBT_AGE, age, service=service)
        self._counts, self._ages = counts, ages
