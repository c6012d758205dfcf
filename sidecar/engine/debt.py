"""What is owed, as people and metrics see it: by service, by age, and one by one.

`owed` is everything that is; `overdue` is the part that is older than a threshold, `failed` the
part that could not be undone and waits for a person. Counting ends at a limit: the answer says so,
and what was counted are then the oldest.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sidecar.engine.compiled import CompiledDefinitions
from sidecar.engine.cursors import bad_cursor, cursor_of, position_of
from sidecar.engine.queries import DEFAULT_PAGE, Page, workflow_id
from sidecar.engine.views import shown_index
from sidecar.errors import DefinitionError, NotFound
from sidecar.ports.clock import Clock
from sidecar.ports.debts import Debt, DebtPlace
from sidecar.ports.store import Store
from sidecar.saga.definition import MOST_ITEMS, JsonText
from sidecar.saga.workflow import DefinitionRef, StepKey

COUNT_UP_TO = 20_000
OVERDUE_AFTER = timedelta(hours=1)
_MOST_LOOKS = 10


@dataclass(frozen=True, slots=True)
class ServiceDebt:
    """What is owed by one service, in calls; with an empty name, what is owed by children."""

    service: str
    owed: int
    overdue: int
    failed: int
    oldest_at: datetime
    oldest_age_s: float


@dataclass(frozen=True, slots=True)
class DebtSummary:
    """What is owed by each service; with `more` there is more than was counted."""

    services: tuple[ServiceDebt, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class DebtView:
    """One effect that is owed its undoing; `index` is that of an item of a fan-out.

    `service` is None for a child, whose own steps are told one by one once it is turned back.
    """

    workflow: str
    definition: str
    version: int
    workflow_status: str
    step: str
    index: int | None
    service: str | None
    status: str
    since: datetime
    age_s: float
    tries: int
    next_attempt_at: datetime | None
    error: JsonText | None


class DebtBook:
    """Queries about what is owed. All raise `StoreUnavailable`."""

    def __init__(self, store: Store, compiled: CompiledDefinitions, clock: Clock) -> None:
        self._store = store
        self._compiled = compiled
        self._clock = clock

    async def summary(self, namespace: str, older_than: timedelta = OVERDUE_AFTER) -> DebtSummary:
        """Count what is owed, by service."""
        counted = await self._store.debt_totals(namespace, older_than, COUNT_UP_TO)
        found: dict[str, ServiceDebt] = {}
        for one in counted.totals:
            if not await self._is_owed(one.definition, one.step):
                continue
            age = self._age(one.oldest)
            before = found.get(one.service, ServiceDebt(one.service, 0, 0, 0, one.oldest, age))
            found[one.service] = ServiceDebt(
                one.service,
                before.owed + one.count,
                before.overdue + one.overdue,
                before.failed + (one.count if one.failed else 0),
                min(before.oldest_at, one.oldest),
                max(before.oldest_age_s, age),
            )
        return DebtSummary(tuple(found[name] for name in sorted(found)), counted.more)

    async def list(
        self,
        namespace: str,
        *,
        service: str | None = None,
        cursor: str | None = None,
        limit: int = DEFAULT_PAGE,
    ) -> Page[DebtView]:
        """Return what is owed one by one, the oldest first. Raises `InvalidRequest`.

        A page may hold less than `limit` and still have a next one.
        """
        after = None if cursor is None else _place(position_of(cursor, "o"))
        items: list[DebtView] = []
        for _ in range(_MOST_LOOKS):
            found = await self._store.list_debts(namespace, service, after, limit + 1)
            for one in found[:limit]:
                if len(items) == limit:
                    return Page(tuple(items), _cursor(after))
                if await self._is_owed(one.definition, one.place.key.step):
                    items.append(self._view(one))
                after = one.place
            if len(found) <= limit:
                return Page(tuple(items))
        return Page(tuple(items), _cursor(after))

    async def _is_owed(self, ref: DefinitionRef, step: str) -> bool:
        try:
            definition = self._compiled.kept(ref) or await self._compiled.get(ref)
        except (DefinitionError, NotFound):
            return True  # better told too often than hidden
        return not definition.by_name[step].no_effect

    def _age(self, since: datetime) -> float:
        return max(0.0, (self._clock.now() - since).total_seconds())

    def _view(self, one: Debt) -> DebtView:
        place = one.place
        return DebtView(
            workflow=place.workflow,
            definition=one.definition.name,
            version=one.definition.version,
            workflow_status=one.workflow_status,
            step=place.key.step,
            index=shown_index(place.key.index),
            service=one.service or None,
            status=one.status,
            since=place.since,
            age_s=self._age(place.since),
            tries=one.tries,
            next_attempt_at=one.due_at,
            error=one.error,
        )


def totals(summary: DebtSummary) -> dict[tuple[str, str], int]:
    """Return the counts by service and state, as the metric tells them."""
    return {
        (one.service, state): count
        for one in summary.services
        for state, count in (
            ("owed", one.owed),
            ("overdue", one.overdue),
            ("failed", one.failed),
        )
    }


def _cursor(place: DebtPlace | None) -> str | None:
    if place is None:
        return None
    key = place.key
    return cursor_of("o", f"{place.since.isoformat()} {place.workflow} {key.step} {key.index}")


def _place(position: str) -> DebtPlace:
    """The place in a cursor. Raises `InvalidRequest`."""
    try:
        since, workflow, step, index = position.split(" ")
        moment = datetime.fromisoformat(since)
        key = StepKey(step, int(index))
        known = workflow_id(workflow)
    except (ValueError, NotFound):
        raise bad_cursor() from None
    if moment.tzinfo is None or not -1 <= key.index < MOST_ITEMS:
        raise bad_cursor()
    return DebtPlace(moment, known, key)
