"""After a commit: ring for what became claimable, tell who ended, set timers for retries.

None of this is owed to correctness. A doorbell that cannot be published is counted and
forgotten: the step is claimable in the store, where an idle sidecar or the leader finds it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import structlog

from sidecar.engine.failpoints import Site, failpoint
from sidecar.engine.supervision import LongTask
from sidecar.errors import QueueError
from sidecar.ports import telemetry as metrics
from sidecar.ports.notices import Notices
from sidecar.ports.queue import Doorbell, Queue
from sidecar.ports.records import Ringable
from sidecar.ports.store import Batch, BatchResult, Moved, Started
from sidecar.ports.telemetry import Telemetry
from sidecar.saga.changes import Changes, Verdict
from sidecar.saga.explain import not_offered
from sidecar.saga.states import StepStatus
from sidecar.saga.workflow import Step, StepKey, Workflow, WorkflowId

log = structlog.get_logger("sidecar.ringing")

DOORBELLS_WAITING_MAX = 50_000
TIMERS_MAX = 50_000
TIMER_SLACK_S = 0.002
LAST_RING_WITHIN_S = 1.0


def changes_of(result: BatchResult) -> list[Changes]:
    """Return all that a batch has changed: what was started and moved, and children of it."""
    asked = [
        one.changes
        for one in (*result.starts, *result.transitions)
        if isinstance(one, Started | Moved) and one.changes is not None
    ]
    return [*asked, *result.children]


class Ringer:
    """Publishes doorbells in the background; `retry(workflow, key)` is called when one is due."""

    def __init__(
        self,
        service: str,
        queue: Queue,
        notices: Notices,
        telemetry: Telemetry,
        retry: Callable[[WorkflowId, StepKey], None],
    ) -> None:
        self._service = service
        self._queue = queue
        self._notices = notices
        self._telemetry = telemetry
        self._retry = retry
        self._doorbells: list[Doorbell] = []
        self._timers: set[asyncio.TimerHandle] = set()
        self._wake = asyncio.Event()
        self._task = LongTask("ringer", self._publish)

    async def start(self) -> None:
        """Start publishing."""
        self._task.start()

    async def stop(self) -> None:
        """Publish what has gathered if the queue takes it within a second, then stop."""
        if not self._task.running:
            return
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        await self._task.stop()
        left, self._doorbells = self._doorbells, []
        if left:
            try:
                async with asyncio.timeout(LAST_RING_WITHIN_S):
                    await self._queue.publish(left)
            except (QueueError, TimeoutError):
                self._telemetry.count(metrics.DOORBELLS_LOST, len(left))
            except Exception:
                # What is stopped after the ringer still has to be.
                self._telemetry.count(metrics.DOORBELLS_LOST, len(left))
                log.exception("ringing_failed", count=len(left))
            else:
                self._telemetry.count(metrics.DOORBELLS_RUNG, len(left))

    def after(self, batch: Batch, result: BatchResult) -> None:
        """Draw the conclusions from one commit."""
        claimed = {(one.workflow, one.key) for one in result.claimed}
        for started in batch.starts:
            self._telemetry.count(metrics.WORKFLOWS_STARTED, definition=started.definition.name)
        self.conclude(changes_of(result), result.now, claimed)

    def conclude(
        self,
        changes: Iterable[Changes],
        now: datetime,
        claimed: Iterable[tuple[WorkflowId, StepKey]] = (),
    ) -> None:
        """Ring, tell and set timers for `changes`; `now` is the store's clock."""
        taken = set(claimed)
        ended: list[WorkflowId] = []
        for change in changes:
            workflow = change.workflow
            if change.verdict is Verdict.LATE:
                self._telemetry.count(metrics.LATE_ANSWERS)
            for step in change.queued:
                if (workflow.id, step.key) not in taken:
                    self._ring(workflow, step, now)
            if change.ended:
                ended.append(workflow.id)
                self._count_end(workflow, now)
        if ended:
            failpoint(Site.BEFORE_NOTICE)
            self._notices.announce(ended=ended)

    def ring(self, doorbells: Iterable[Doorbell]) -> None:
        """Publish these soon."""
        self._doorbells.extend(doorbells)
        excess = len(self._doorbells) - DOORBELLS_WAITING_MAX
        if excess > 0:
            del self._doorbells[:excess]
            self._telemetry.count(metrics.DOORBELLS_LOST, excess)
        self._wake.set()

    def _ring(self, workflow: Workflow, step: Step, now: datetime) -> None:
        delay = (step.due_at - now).total_seconds() if step.due_at else 0.0
        doorbell = Doorbell(workflow.id, step.key, step.service, workflow.trace)
        if delay <= 0:
            self.ring([doorbell])
        elif step.service == self._service and self._may_set_timer:
            others = not_offered(step) is not None
            self._set_timer(delay + TIMER_SLACK_S, doorbell, for_others=others)

    @property
    def _may_set_timer(self) -> bool:
        return self._task.running and len(self._timers) < TIMERS_MAX

    def _set_timer(self, delay: float, doorbell: Doorbell, *, for_others: bool) -> None:
        """Claim a step when it is due; or ring then, if others may offer what is missing here."""

        def due() -> None:
            self._timers.discard(timer)
            failpoint(Site.LOCAL_RETRY)
            if for_others:
                self.ring([doorbell])
            else:
                self._retry(doorbell.workflow, doorbell.key)

        timer = asyncio.get_running_loop().call_later(delay, due)
        self._timers.add(timer)

    def _count_end(self, workflow: Workflow, now: datetime) -> None:
        labels = {"definition": workflow.definition.name, "status": workflow.status.value}
        self._telemetry.count(metrics.WORKFLOWS_ENDED, 1, **labels)
        seconds = (now - workflow.created_at).total_seconds()
        self._telemetry.observe(metrics.WORKFLOW_SECONDS, seconds, **labels)
        failed = [
            str(step.key)
            for step in workflow.steps.values()
            if step.status is StepStatus.COMPENSATION_FAILED
        ]
        if failed:
            log.error("compensation_failed", workflow=workflow.id, steps=failed)

    async def _publish(self) -> None:
        while True:
            while not self._doorbells:
                self._wake.clear()
                await self._wake.wait()
            doorbells, self._doorbells = self._doorbells, []
            try:
                failpoint(Site.BEFORE_RING)
                await self._queue.publish(doorbells)
                failpoint(Site.AFTER_RING)
            except QueueError as error:
                self._telemetry.count(metrics.DOORBELLS_LOST, len(doorbells))
                log.warning("doorbells_lost", count=len(doorbells), error=error.message)
            except asyncio.CancelledError:
                self._doorbells[:0] = doorbells  # rung twice does no harm; `stop` tries once more
                raise
            except Exception:
                # A ringer that died would lose all doorbells to come.
                self._telemetry.count(metrics.DOORBELLS_LOST, len(doorbells))
                log.exception("ringing_failed", count=len(doorbells))
            else:
                self._telemetry.count(metrics.DOORBELLS_RUNG, len(doorbells))


def full_pages(found: Sequence[Ringable], size: int) -> dict[str, Ringable]:
    """Return where the next page of each service begins; after one that was not full, anew."""
    sizes = Counter(one.doorbell.service for one in found)
    ends = {one.doorbell.service: one for one in found}
    return {name: end for name, end in ends.items() if sizes[name] >= size}
