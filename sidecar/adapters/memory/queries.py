"""What can be asked of the store in memory, and the small writes beside the batches."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from sidecar.adapters.memory.bulk import MemoryBulk
from sidecar.adapters.memory.catalogues import MemoryCatalogues
from sidecar.adapters.memory.checks import check_text
from sidecar.adapters.memory.debts import MemoryDebts
from sidecar.adapters.memory.rates import MemoryRates
from sidecar.adapters.memory.tables import without_bodies, without_items
from sidecar.adapters.memory.versions import MemoryVersions
from sidecar.ports.queue import Doorbell
from sidecar.ports.records import (
    Holder,
    LeaderWork,
    Lease,
    Ringable,
    SidecarBeat,
    SidecarRecord,
    StoredLetter,
    WorkflowFilter,
)
from sidecar.ports.store import Epoch
from sidecar.ports.versions import StoredDefinition
from sidecar.saga.changes import HistoryEvent
from sidecar.saga.definition import JsonText
from sidecar.saga.states import Action, StepStatus, WorkflowStatus
from sidecar.saga.turns import InLine, TurnKey
from sidecar.saga.workflow import DefinitionRef, Step, StepKey, Workflow, WorkflowId

HOLDERS_TOLD = 10
LETTERS_AFTER = timedelta(seconds=2)
"""A letter that waits for so long is a leader's."""

_AHEAD = (WorkflowStatus.QUEUED, WorkflowStatus.IN_PROGRESS)


class MemoryQueries(MemoryVersions, MemoryCatalogues, MemoryDebts, MemoryBulk, MemoryRates):
    """The part of the store that is not `commit`."""

    # -- definitions --------------------------------------------------------------------------

    async def put_definition(
        self, namespace: str, name: str, document: JsonText, digest: str
    ) -> tuple[StoredDefinition, bool]:
        """Keep a definition, which is current from now on; True if it is new."""
        self.check_open()
        check_text(document)
        versions = self.tables.definitions.setdefault((namespace, name), [])
        for stored in self.tables.versions(namespace, name):
            if stored.hash == digest:
                self.tables.registered(stored)
                return stored, False
        number, now = len(versions) + 1, self.clock.now()
        stored = StoredDefinition(namespace, name, number, digest, document, now)
        versions.append(stored)
        self.tables.registered(stored)
        return stored, True

    async def get_definition(
        self, namespace: str, name: str, version: int | None = None
    ) -> StoredDefinition | None:
        """Return a version, or the current one."""
        self.check_open()
        if version is None:
            return self.tables.latest(namespace, name)
        return self.tables.definition(DefinitionRef(namespace, name, version))

    async def get_key(self, namespace: str, name: str, suggested: bytes) -> bytes:
        """Return a key that all sidecars of a namespace share; the first suggestion is kept."""
        self.check_open()
        return self.tables.keys.setdefault((namespace, name), suggested)

    async def list_definitions(
        self, namespace: str, after: str | None, limit: int
    ) -> Sequence[StoredDefinition]:
        """Return the current version of each name, by name."""
        self.check_open()
        names = sorted(
            name
            for within, name in self.tables.definitions
            if within == namespace and (after is None or name > after)
        )
        latest = (self.tables.latest(namespace, name) for name in names)
        return [one for one in latest if one is not None][:limit]

    # -- workflows ----------------------------------------------------------------------------

    async def get_workflow(self, namespace: str, workflow: WorkflowId) -> Workflow | None:
        """Return one workflow."""
        self.check_open()
        row = self.tables.rows.get(workflow)
        if row is None or row.namespace != namespace:
            return None
        return without_items(row.workflow)

    async def list_items(
        self, workflow: WorkflowId, step: str, after_index: int, limit: int
    ) -> Sequence[Step]:
        """Return the items of a fan-out, by their index."""
        self.check_open()
        row = self.tables.rows.get(workflow)
        plain = row.workflow.steps.get(StepKey(step)) if row else None
        if row is None or plain is None or plain.fan is None:
            return []
        fan = plain.fan
        found = []
        for index in range(after_index + 1, min(fan.total, after_index + 1 + limit)):
            key = StepKey(step, index)
            item = row.workflow.steps.get(key, Step(key, ""))
            if item.input is None:
                item = replace(item, input=row.workflow.elements[key])
            found.append(item)
        return found

    async def is_current(
        self, workflow: WorkflowId, step: StepKey, action: Action, attempt: int
    ) -> bool:
        """Whether this is the newest attempt of its step and action, and has not ended."""
        self.check_open()
        row = self.tables.rows.get(workflow)
        found = row.workflow.steps.get(step) if row else None
        if found is None or not found.leased or found.action is not action:
            return False
        return found.run.attempt == attempt

    async def list_workflows(self, namespace: str, wanted: WorkflowFilter) -> Sequence[Workflow]:
        """Return workflows without their steps and bodies, newest first."""
        self.check_open()
        found = [
            known
            for known, row in self.tables.rows.items()
            if row.namespace == namespace and _matches(row.workflow, wanted)
        ]
        page = sorted(found, reverse=True)[: wanted.limit]
        return [without_bodies(self.tables.rows[known].workflow) for known in page]

    async def list_events(
        self, workflow: WorkflowId, after_seq: int, limit: int
    ) -> Sequence[HistoryEvent]:
        """Return a workflow's history in its order."""
        self.check_open()
        row = self.tables.rows.get(workflow)
        history = row.history if row is not None else ()
        return [event for event in history if event.seq > after_seq][:limit]

    async def statuses(
        self, workflows: Sequence[WorkflowId]
    ) -> Mapping[WorkflowId, WorkflowStatus]:
        """Return the statuses of those that exist."""
        self.check_open()
        rows = self.tables.rows
        return {known: rows[known].workflow.status for known in workflows if known in rows}

    # -- sidecars -----------------------------------------------------------------------------

    async def beat(self, beat: SidecarBeat) -> None:
        """Write that a sidecar is alive."""
        self.check_open()
        now = self.clock.now()
        known = self.tables.sidecars.get(beat.incarnation)
        started_at = known.started_at if known is not None else now
        self.tables.sidecars[beat.incarnation] = SidecarRecord(beat, started_at, now)

    async def leave(self, incarnation: str) -> None:
        """Write that a sidecar has gone for good and holds no lease any more."""
        self.check_open()
        if incarnation in self.tables.sidecars:
            self.tables.gone.add(incarnation)

    async def list_sidecars(
        self, namespace: str, seen_within: timedelta | None = None
    ) -> Sequence[SidecarRecord]:
        """Return the sidecars known, or those seen within so long, by service."""
        self.check_open()
        since = None if seen_within is None else self.clock.now() - seen_within
        found = [one for one in self._present(namespace) if since is None or one.seen_at >= since]
        return sorted(found, key=lambda one: (one.beat.service, one.started_at))

    def _present(self, namespace: str) -> list[SidecarRecord]:
        return [
            one
            for incarnation, one in self.tables.sidecars.items()
            if one.beat.namespace == namespace and incarnation not in self.tables.gone
        ]

    # -- the leader ---------------------------------------------------------------------------

    async def mint_epoch(self, namespace: str, holder: str) -> Epoch:
        """Begin a term: return the next epoch; all earlier ones are void from now on."""
        self.check_open()
        check_text(holder)
        number = self.tables.epochs.get(namespace, 0) + 1
        self.tables.epochs[namespace] = number
        return Epoch(number)

    async def leader_work(
        self, namespace: str, unseen_for: timedelta, due_for: timedelta | None
    ) -> LeaderWork:
        """Tell which of the leader's questions would find anything."""
        return LeaderWork(
            bool(await self.ended_leases(namespace, unseen_for, 1)),
            bool(await self.due_timers(namespace, 1)),
            bool(await self.waiting_letters(namespace, LETTERS_AFTER, 1)),
            bool(await self.free_turns(namespace, 1)),
            bool(await self.overdue_workflows(namespace, 1)),
            due_for is not None
            and bool(await self.ringable_steps(namespace, unseen_for, due_for, 1)),
            central_rollbacks=bool(await self.central_rollbacks(namespace, None, 1)),
            debts=bool(await self.list_debts(namespace, None, None, 1)),
            bulk=bool(await self.quiet_bulk(namespace, unseen_for, 1))
            or self.has_old_bulk(namespace),
        )

    async def ended_leases(
        self, namespace: str, unseen_for: timedelta, limit: int
    ) -> Sequence[Lease]:
        """Return leases that have ended, and those of sidecars unseen for so long or gone."""
        self.check_open()
        now = self.clock.now()
        found = []
        for row, step in self.tables.open_steps(namespace):
            if step.lease_until is None or (step.awaiting and row.workflow.paused):
                continue
            holder = row.holders.get(step.key)
            owner = holder.incarnation if holder and not step.awaiting else ""
            sidecar = self.tables.sidecars.get(owner)
            silent = sidecar is not None and sidecar.seen_at < now - unseen_for
            if step.lease_until < now or silent or owner in self.tables.gone:
                attempt = step.run.attempt
                lease = Lease(row.workflow.id, step.key, step.action, attempt, step.lease_until)
                found.append(lease)
        found.sort(key=lambda lease: lease.lease_until)
        return found[:limit]

    async def due_timers(self, namespace: str, limit: int) -> Sequence[tuple[WorkflowId, StepKey]]:
        """Return steps that have waited long enough."""
        self.check_open()
        now = self.clock.now()
        found = [
            (step.due_at, row.workflow.id, step.key)
            for row, step in self.tables.open_steps(namespace)
            if step.status is StepStatus.WAITING
            and step.due_at is not None
            and step.due_at <= now
            and not row.workflow.paused
        ]
        return [(known, key) for _, known, key in sorted(found)[:limit]]

    async def waiting_letters(
        self, namespace: str, older_than: timedelta, limit: int
    ) -> Sequence[StoredLetter]:
        """Return letters that nobody has brought for so long, the oldest first."""
        self.check_open()
        before = self.clock.now() - older_than
        rows = self.tables.rows
        found = [
            (sent_at, StoredLetter(known.sender, known.revision, letter))
            for known, (sent_at, letter) in self.tables.letters.items()
            if sent_at <= before and rows[known.sender].namespace == namespace
        ]
        return [one for _, one in sorted(found, key=lambda pair: pair[0])[:limit]]

    async def next_turns(
        self, turns: Sequence[TurnKey], limit: int, *, without: Collection[WorkflowId] = ()
    ) -> Sequence[tuple[TurnKey, InLine]]:
        """Return those that can be admitted now, key by key."""
        self.check_open()
        found = [(turn, one) for turn in turns for one in self._next(turn, without)]
        return found[:limit]

    def _next(self, turn: TurnKey, without: Collection[WorkflowId]) -> Iterator[InLine]:
        """As many as the first of those that wait says, up to one that finds no place."""
        waiting = [o for o in self.tables.waiting_for(turn) if o.who.workflow not in without]
        placed = len(self.tables.placed(turn))
        free = waiting[0].limit - placed if waiting else 0
        for ahead, one in enumerate(waiting[: max(0, free)]):
            if placed + ahead >= one.limit:
                return
            yield one.who

    async def free_turns(
        self, namespace: str, limit: int, after: TurnKey | None = None
    ) -> Sequence[TurnKey]:
        """Return keys for which somebody waits although there is a place, a page at a time."""
        self.check_open()
        keys = sorted((t for t in self.tables.turns if t.namespace == namespace), key=_by_index)
        later = (turn for turn in keys if after is None or _by_index(turn) > _by_index(after))
        return [turn for turn in later if any(True for _ in self._next(turn, ()))][:limit]

    async def turn_holders(self, turn: TurnKey) -> Sequence[Holder]:
        """Return some of those that have the places, those first that have had one for longest."""
        self.check_open()
        some = [one.who for one in self.tables.placed(turn)[:HOLDERS_TOLD]]
        found = [(one, self.tables.rows[one.workflow].workflow) for one in some]
        return [Holder(who, workflow.status, workflow.paused) for who, workflow in found]

    async def overdue_workflows(self, namespace: str, limit: int) -> Sequence[WorkflowId]:
        """Return workflows in progress whose deadline has passed."""
        self.check_open()
        now = self.clock.now()
        found = [
            (row.workflow.deadline_at, known)
            for known, row in self.tables.rows.items()
            if row.namespace == namespace
            and row.workflow.status in _AHEAD
            and not row.workflow.paused
            and row.workflow.deadline_at is not None
            and row.workflow.deadline_at <= now
        ]
        return [known for _, known in sorted(found)[:limit]]

    async def ringable_steps(
        self,
        namespace: str,
        unseen_for: timedelta,
        due_for: timedelta,
        limit: int,
        after: Mapping[str, Ringable] | None = None,
    ) -> Sequence[Ringable]:
        """Return steps that have been claimable for so long, of each service a page."""
        self.check_open()
        now = self.clock.now()
        live = {
            one.beat.service
            for one in self._present(namespace)
            if one.beat.ready and not one.beat.draining and one.seen_at > now - unseen_for
        }
        found = [
            Ringable(
                Doorbell(row.workflow.id, step.key, step.service, row.workflow.trace),
                step.due_at,
                row.rank(step),
            )
            for row, step in self.tables.open_steps(namespace)
            if step.service in live
            and row.claimable(step)
            and step.due_at is not None
            and step.due_at <= now - due_for
        ]
        ended = {service: _place(one) for service, one in (after or {}).items()}
        pages: dict[str, list[Ringable]] = {}
        for one in sorted(found, key=_place):
            service = one.doorbell.service
            page = pages.setdefault(service, [])
            if len(page) < limit and (service not in ended or _place(one) > ended[service]):
                page.append(one)
        return sorted((one for page in pages.values() for one in page), key=_place)

    async def forget_sidecars(self, namespace: str, unseen_for: timedelta, epoch: Epoch) -> int:
        """Delete what is known of sidecars unseen for so long; return how many."""
        self.check_open()
        self.check_epoch(namespace, epoch)
        before = self.clock.now() - unseen_for
        silent = [
            incarnation
            for incarnation, one in self.tables.sidecars.items()
            if one.beat.namespace == namespace and one.seen_at < before
        ]
        for incarnation in silent:
            del self.tables.sidecars[incarnation]
            self.tables.gone.discard(incarnation)
        return len(silent)


def _place(one: Ringable) -> tuple[datetime, WorkflowId, StepKey]:
    """Where a step stands among those to ring for."""
    return one.rank, one.doorbell.workflow, one.doorbell.key


def _matches(workflow: Workflow, wanted: WorkflowFilter) -> bool:
    ref = workflow.definition
    return (
        (not wanted.status or workflow.status in wanted.status)
        and (wanted.definition is None or ref.name == wanted.definition)
        and (wanted.after is None or workflow.id < wanted.after)
        and wanted.labels.items() <= workflow.labels.items()
    )


def _by_index(turn: TurnKey) -> tuple[str, str, str]:
    """Where a key stands among all, page after page."""
    return turn.definition, turn.step, turn.key
