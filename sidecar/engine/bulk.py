"""A verb over many workflows: a durable job that chooses them and takes them one after the other.

    begin ──▶ running ──all had their turn──▶ done
                 └──────somebody stops it────▶ stopped

The sidecar that took the job works on it in small batches, each of them one or two commits of the
committer, beside all else that it does. After each batch it keeps what became of every workflow. If
it goes, another takes the job over: what the last batch had done and nobody had kept is done again,
which is harmless, since verbs are the same when they are repeated (a signal is told by its id).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson
import structlog

from sidecar.engine.cursors import cursor_of, number_of, position_of
from sidecar.engine.failpoints import Site, failpoint
from sidecar.engine.intake import storable
from sidecar.engine.queries import DEFAULT_PAGE, Page, workflow_id
from sidecar.engine.verbs import Verbs, checked_reason
from sidecar.errors import InvalidRequest, NotFound, RequestError, StoreConflict, StoreUnavailable
from sidecar.ports import telemetry as metrics
from sidecar.ports.bulk import (
    BulkFilter,
    BulkJob,
    BulkMember,
    BulkResult,
    BulkStatus,
    NewBulkJob,
    Selection,
)
from sidecar.ports.entropy import Entropy
from sidecar.ports.store import Store
from sidecar.ports.telemetry import Telemetry
from sidecar.saga.definition import JsonText
from sidecar.saga.events import (
    CancelRequested,
    Event,
    PauseRequested,
    ResumeRequested,
    RetryRequested,
    SignalSent,
    TerminateRequested,
)

log = structlog.get_logger("sidecar.bulk")

MOST = 100_000
"""How many workflows one job may take."""
AT_ONCE = 100
SHOWN = 20
"""How many ids a dry run tells."""
QUIET_FOR = timedelta(seconds=20)
"""A job that has not got on for so long is taken over."""
FORGOTTEN_AFTER = timedelta(days=7)
PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class _Verb:
    """What is done, as a word, and the event that does it."""

    done: str
    event: Callable[[str, Mapping[str, Any], str], Event]
    needs_reason: bool = False


def _signal(job: str, said: Mapping[str, Any], actor: str) -> Event:
    payload = JsonText(orjson.dumps(said["payload"]).decode())
    return SignalSent(said["signal"], payload, said["reason"], actor, id=f"bulk:{job}")


_VERBS: dict[str, _Verb] = {
    "cancel": _Verb("cancelled", lambda _, said, actor: CancelRequested(said["reason"], actor)),
    "pause": _Verb("paused", lambda _, said, actor: PauseRequested(said["reason"], actor)),
    "resume": _Verb("resumed", lambda _, said, actor: ResumeRequested(said["reason"], actor)),
    "retry": _Verb("retried", lambda _, said, actor: RetryRequested(None, said["reason"], actor)),
    "terminate": _Verb(
        "terminated",
        lambda _, said, actor: TerminateRequested(said["reason"], actor),
        needs_reason=True,
    ),
    "signal": _Verb("signalled", _signal),
}

VERBS = tuple(_VERBS)


@dataclass(frozen=True, slots=True)
class BulkRequest:
    """What somebody wants done to many workflows; `signal` and `payload` are those of a signal."""

    verb: str
    filter: BulkFilter
    reason: str = ""
    signal: str | None = None
    payload: Any = None
    limit: int = MOST
    actor: str = "api"


class Bulk:
    """The jobs of one sidecar, and those that it works on. All raise `StoreUnavailable`."""

    def __init__(
        self, store: Store, verbs: Verbs, incarnation: str, entropy: Entropy, telemetry: Telemetry
    ) -> None:
        self._store = store
        self._verbs = verbs
        self._me = incarnation
        self._entropy = entropy
        self._telemetry = telemetry
        self._running: dict[str, asyncio.Task[None]] = {}

    # -- asking -------------------------------------------------------------------------------

    async def dry_run(self, namespace: str, asked: BulkRequest) -> Selection:
        """Tell what a job would choose now. Raises `InvalidRequest`."""
        _checked(asked)
        return await self._store.select_bulk(namespace, asked.filter, asked.limit, SHOWN)

    async def begin(self, namespace: str, asked: BulkRequest) -> BulkJob:
        """Begin a job, and work on it here. Raises `InvalidRequest`."""
        arguments = _checked(asked)
        job = await self._store.begin_bulk(
            NewBulkJob(
                id=self._entropy.workflow_id(),
                namespace=namespace,
                verb=asked.verb,
                arguments=arguments,
                filter=asked.filter,
                written=_written(asked.filter),
                actor=asked.actor,
                holder=self._me,
                limit=asked.limit,
            )
        )
        failpoint(Site.AFTER_BULK_BEGAN)
        log.info("bulk_began", job=job.id, verb=job.verb, selected=job.selected, actor=job.actor)
        self.work_on(job.id)
        return job

    async def get(self, namespace: str, job: str) -> BulkJob:
        """Return a job. Raises `NotFound`."""
        return _known(await self._store.get_bulk(namespace, _job_id(job)))

    async def list(
        self, namespace: str, *, cursor: str | None = None, limit: int = DEFAULT_PAGE
    ) -> Page[BulkJob]:
        """Return jobs, the newest first. Raises `InvalidRequest`."""
        before = None if cursor is None else _job_id(position_of(cursor, "b"))
        found = await self._store.list_bulk(namespace, before, limit + 1)
        items = tuple(found[:limit])
        return Page(items, cursor_of("b", items[-1].id) if len(found) > limit else None)

    async def members(
        self,
        job: BulkJob,
        *,
        result: BulkResult | None = None,
        cursor: str | None = None,
        limit: int = DEFAULT_PAGE,
    ) -> Page[BulkMember]:
        """Return the workflows of a job in their order. Raises `InvalidRequest`."""
        after = 0 if cursor is None else number_of(cursor, "m")
        found = await self._store.bulk_members(job.id, after, limit + 1, result)
        items = tuple(found[:limit])
        more = len(found) > limit
        return Page(items, cursor_of("m", str(items[-1].number)) if more else None)

    async def stop_job(self, namespace: str, job: str) -> BulkJob:
        """Let no more workflows have their turn; harmless when repeated. Raises `NotFound`."""
        return _known(await self._store.stop_bulk(namespace, _job_id(job)))

    # -- working ------------------------------------------------------------------------------

    def work_on(self, job: str) -> None:
        """Work on a job here until it ends or is another's; harmless when repeated."""
        if job not in self._running:
            task = asyncio.create_task(self._work(job), name=f"bulk {job}")
            self._running[job] = task
            task.add_done_callback(lambda _: self._running.pop(job, None))

    async def stop(self) -> None:
        """Leave all jobs to others."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, known: str) -> None:
        while True:
            try:
                job = await self._store.take_bulk(known, self._me, QUIET_FOR)
                while job is not None and await self._do_some(job):
                    pass
            except (StoreUnavailable, StoreConflict) as error:
                log.warning("bulk_waits", job=known, error=error.message)
            except Exception:
                log.exception("bulk_failed", job=known)
            else:
                return
            await asyncio.sleep(PAUSE_S)

    async def _do_some(self, job: BulkJob) -> bool:
        """Give the next workflows of a job their turn; return whether there may be more."""
        members = await self._store.next_bulk(job.id, self._me, AT_ONCE)
        if members is None:
            return False
        results = await asyncio.gather(*(self._do(job, one) for one in members))
        failpoint(Site.BEFORE_BULK_RECORD)
        status = await self._store.record_bulk(job.id, self._me, results)
        for one in results:
            if one.result is not None:
                self._telemetry.count(metrics.BULK, verb=job.verb, result=one.result.value)
        if status is BulkStatus.DONE:
            log.info("bulk_done", job=job.id, verb=job.verb)
        return status is BulkStatus.RUNNING

    async def _do(self, job: BulkJob, member: BulkMember) -> BulkMember:
        """Do it to one workflow. Raises what says nothing about it."""
        verb = _VERBS[job.verb]
        event = verb.event(job.id, json.loads(job.arguments), job.actor)
        result, detail = BulkResult.DONE, None
        try:
            await self._verbs.decide(member.workflow, event, verb.done)
        except StoreUnavailable:
            raise
        except RequestError as error:
            result, detail = BulkResult.REFUSED, error.message
        except Exception as error:
            log.exception("bulk_member_failed", job=job.id, workflow=member.workflow)
            result, detail = BulkResult.FAILED, type(error).__name__
        return BulkMember(member.number, member.workflow, result, detail)


def _checked(asked: BulkRequest) -> JsonText:
    """The arguments of a verb, to be kept. Raises `InvalidRequest`."""
    verb = _VERBS.get(asked.verb)
    if verb is None:
        raise InvalidRequest(f"verb must be one of: {', '.join(VERBS)}.", field="verb")
    if asked.filter == BulkFilter():
        raise InvalidRequest(
            "filter must name something; it would choose everything.", field="filter"
        )
    if not 1 <= asked.limit <= MOST:
        raise InvalidRequest(f"limit must be a whole number from 1 to {MOST}.", field="limit")
    if asked.verb == "signal" and not asked.signal:
        raise InvalidRequest("signal must name the signal.", field="signal")
    if asked.verb != "signal" and (asked.signal is not None or asked.payload is not None):
        raise InvalidRequest("signal and payload belong to the verb signal.", field="signal")
    reason = checked_reason(asked.reason, demanded=verb.needs_reason)
    said = {"reason": reason, "signal": asked.signal, "payload": asked.payload}
    return storable({name: said[name] for name in _ARGUMENTS[asked.verb == "signal"]}, "payload")


_ARGUMENTS = {False: ("reason",), True: ("reason", "signal", "payload")}


def _written(wanted: BulkFilter) -> JsonText:
    """A filter as it is shown: what it does not ask for is left out."""
    given: dict[str, Any] = {
        "status": sorted(wanted.status),
        "definition": wanted.definition,
        "version": wanted.version,
        "labels": dict(wanted.labels),
        "created_before": _moment(wanted.created_before),
        "created_after": _moment(wanted.created_after),
    }
    return storable({name: value for name, value in given.items() if value}, "filter")


def _moment(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _job_id(text: str) -> str:
    try:
        return workflow_id(text)
    except NotFound:
        raise NotFound("There is no such job: an id is a UUID.", field="job") from None


def _known(job: BulkJob | None) -> BulkJob:
    if job is None:
        raise NotFound("There is no such job.", field="job")
    return job
