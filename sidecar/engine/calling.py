"""From a claim to an answer, and its settlement.

A call is sent only if it can end before its lease does, measured on the monotonic clock from
before the claim; otherwise the claim is given back as not sent. A definition that cannot be
read is asked for again until then: what is given back is due at once, and would come back at
once. Whatever the service answers is settled, for as long as it takes: if the store is away the
answer waits in memory, and its slot with it, so that intake stops by itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import structlog
from msgspec.structs import replace

from sidecar.definitions.calls import overruled
from sidecar.definitions.catalogues import Catalogue, Target, not_offered, nothing_to_undo
from sidecar.engine.failpoints import Site, failpoint
from sidecar.engine.group_commit import Committer
from sidecar.engine.limiting import Grant, Limiter
from sidecar.engine.slots import Slots
from sidecar.errors import GoConductorError, IllegalTransition, StoreDataError
from sidecar.ports import telemetry as metrics
from sidecar.ports.clock import Clock
from sidecar.ports.entropy import Entropy
from sidecar.ports.service import Call, Service
from sidecar.ports.store import Claimed, Missing, Transition
from sidecar.ports.telemetry import Telemetry
from sidecar.saga.bodies import NOT_OFFERED, error_body, misfit
from sidecar.saga.definition import Definition, JsonText, StepDefinition
from sidecar.saga.events import Answered
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.policy import ALERT_AFTER_TRIES, RetryPolicy
from sidecar.saga.queueing import NOT_CALLED
from sidecar.saga.states import Action
from sidecar.saga.workflow import DefinitionRef, WorkflowId

log = structlog.get_logger("sidecar.calling")

RELEASED = Outcome(OutcomeKind.RELEASED)
NO_CATALOGUE = Catalogue()

WAITED_FOR = 0.8
"""Which part of the time that is left for a call may be spent waiting for its turn."""

TIMER_SLACK_S = 0.002
"""By so much later a moment is waited for: a timer may ring early by its clock's resolution."""

NOT_OFFERED_AGAIN = RetryPolicy()
"""How soon at the earliest a step is due again whose action this sidecar does not offer."""

READ_AGAIN_S = 0.1
READ_AGAIN_MAX_S = 1.0
"""How soon a definition that could not be read is asked for again: at first, and at last."""


@dataclass(frozen=True, slots=True)
class CallingPorts:
    """What calling needs of the world."""

    service: Service
    clock: Clock
    entropy: Entropy
    telemetry: Telemetry


class Caller:
    """Runs one task for each step that this sidecar holds."""

    def __init__(
        self,
        ports: CallingPorts,
        committer: Committer,
        slots: Slots,
        definition: Callable[[DefinitionRef], Awaitable[Definition]],
        limiter: Limiter,
        *,
        catalogue: Catalogue = NO_CATALOGUE,
        lease_margin: timedelta,
        record: Callable[[WorkflowId, Outcome], None],
        may_take_more: Callable[[], bool],
        callback_url: Callable[[Claimed], str],
    ) -> None:
        self._callback_url = callback_url
        self._service = ports.service
        self._clock = ports.clock
        self._entropy = ports.entropy
        self._telemetry = ports.telemetry
        self._committer = committer
        self._slots = slots
        self._definition = definition
        self._limiter = limiter
        self._catalogue = catalogue
        self._margin_s = lease_margin.total_seconds()
        self._record = record
        self._may_take_more = may_take_more
        self._tasks: set[asyncio.Task[None]] = set()
        self._giving_back = False

    def take(self, claimed: Claimed, began: float) -> None:
        """Make the call for `claimed`; `began` is the monotonic time before the claim."""
        self._slots.take()
        task = asyncio.create_task(self._run(claimed, began))
        self._tasks.add(task)
        self._telemetry.gauge(metrics.CALLS_IN_FLIGHT, len(self._tasks))
        task.add_done_callback(self._ended)

    def give_back_from_now_on(self) -> None:
        """Send nothing any more: claims that still come in are released."""
        self._giving_back = True

    async def stop(self) -> None:
        """Abandon what is still under way; the leases guard it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._limiter.stop()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.give_back()
        self._telemetry.gauge(metrics.CALLS_IN_FLIGHT, len(self._tasks))
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("step_abandoned_until_its_lease_ends", exc_info=error)

    async def _run(self, claimed: Claimed, began: float) -> None:
        structlog.contextvars.bind_contextvars(
            workflow=claimed.workflow,
            step=str(claimed.key),
            action=claimed.action.value,
            attempt=claimed.attempt,
        )
        failpoint(Site.AFTER_CLAIM)
        outcome = await self._outcome(claimed, began)
        self._telemetry.count(
            metrics.ATTEMPTS,
            definition=claimed.definition.name,
            step=claimed.key.step,
            action=claimed.action.value,
            outcome=outcome.kind.value,
        )
        if outcome.kind is not OutcomeKind.DONE:
            log.info("attempt_ended", outcome=outcome.kind.value, error=_told(outcome.error))
            if claimed.action is Action.COMPENSATE and claimed.tries + 1 >= ALERT_AFTER_TRIES:
                log.error("compensation_keeps_failing", tries=claimed.tries + 1)
        event = Answered(
            claimed.key, claimed.action, claimed.attempt, outcome, self._entropy.chance()
        )
        if outcome.kind in NOT_CALLED:
            await self._give_back(claimed, event, began)
        else:
            await self._settle(claimed, event)

    async def _outcome(self, claimed: Claimed, began: float) -> Outcome:
        definition = await self._read_definition(claimed, began)
        if definition is None:
            return RELEASED
        call = self._call(claimed, definition)
        if isinstance(call, Call) and self._limiter.limits(call.path):
            held = await self._wait_for_turn(claimed, call.path, began)
            if held is not None:
                return held
            call = self._call(claimed, definition)  # its deadline counts from now on
        if self._giving_back or self._clock.monotonic() - began > self._margin_s:
            return RELEASED
        if isinstance(call, Outcome):
            return call
        executes = claimed.action is not Action.COMPENSATE
        failpoint(Site.BEFORE_CALL if executes else Site.BEFORE_COMPENSATE_CALL)
        before = self._clock.monotonic()
        outcome = _checked(definition, claimed, await self._service.call(call))
        failpoint(Site.AFTER_CALL if executes else Site.AFTER_COMPENSATE_CALL)
        self._telemetry.observe(
            metrics.CALL_SECONDS, self._clock.monotonic() - before, action=claimed.action.value
        )
        self._record(claimed.workflow, outcome)
        return outcome

    async def _wait_for_turn(self, claimed: Claimed, path: str, began: float) -> Outcome | None:
        """Wait until the rate limit lets the call begin, which is None, or say how to go on.

        A store that does not answer is asked again until it is too late for the call.
        """
        pause = READ_AGAIN_S
        while not self._giving_back:
            left = self._margin_s - (self._clock.monotonic() - began)
            if left <= 0:
                break
            failpoint(Site.BEFORE_RATE_GRANT)
            try:
                grant = await self._limiter.ask(claimed, path, left * WAITED_FOR)
            except GoConductorError as error:
                log.warning("turn_not_given", path=path, error=error.message)
                await asyncio.sleep(min(left, pause * (0.5 + self._entropy.chance())))
                pause = min(pause * 2, READ_AGAIN_MAX_S)
                continue
            if not grant.granted:
                return Outcome(OutcomeKind.HELD, retry_after=timedelta(seconds=grant.wait_s))
            if await self._begins_in_time(grant):
                failpoint(Site.AFTER_RATE_GRANT)
                return None
        return RELEASED

    async def _begins_in_time(self, grant: Grant) -> bool:
        wait = grant.begins - self._clock.monotonic()
        if wait > 0:
            await asyncio.sleep(wait + TIMER_SLACK_S)
        return self._clock.monotonic() <= grant.ends

    async def _read_definition(self, claimed: Claimed, began: float) -> Definition | None:
        """Return the definition, or None once it is too late for the call, or time to go."""
        pause = READ_AGAIN_S
        while True:
            try:
                return await self._definition(claimed.definition)
            except GoConductorError as error:
                log.warning("definition_unavailable", error=error.message)
            except Exception:
                log.exception("definition_unavailable")
            too_late = self._clock.monotonic() + pause - began > self._margin_s
            if too_late or self._giving_back or not self._may_take_more():
                return None
            await asyncio.sleep(pause * (0.5 + self._entropy.chance()))
            pause = min(pause * 2, READ_AGAIN_MAX_S)

    def _call(self, claimed: Claimed, definition: Definition) -> Call | Outcome:
        """The call; or what comes of it where this sidecar's service offers no such action."""
        defined = definition.by_name[claimed.key.step]
        target = _target(defined, claimed)
        if not target.path:
            found = self._offered(defined, claimed.action, target)
            if found is None:
                return self._not_offered(defined, claimed)
            target = found
        body = claimed.input
        if claimed.action is Action.COMPENSATE:
            body = claimed.compensation_input or compensation_body(claimed)
        callback = None if claimed.action is Action.STATUS else self._callback_url(claimed)
        timeout = claimed.call_ms / 1000
        return Call(
            workflow=claimed.workflow,
            definition=claimed.definition,
            key=claimed.key,
            action=claimed.action,
            attempt=claimed.attempt,
            path=target.path,
            body=body,
            timeout=timeout,
            deadline=self._clock.now() + timedelta(seconds=timeout),
            method=target.method,
            on_status=dict(target.on_status) if target.on_status else None,
            trace=claimed.trace,
            callback=callback,
            origin=claimed.origin,
        )

    def _offered(self, step: StepDefinition, action: Action, own: Target) -> Target | None:
        """Where the catalogue of this sidecar lets it go.

        Of the statuses of which the definition itself speaks, what it says wins.
        """
        plan = self._catalogue.actions.get(step.action)
        found = None if plan is None else plan.target(action)
        if found is None or not own.on_status:
            return found
        return found._replace(on_status=overruled(found.on_status, own.on_status))

    def _not_offered(self, step: StepDefinition, claimed: Claimed) -> Outcome:
        """What a call comes to of which nobody here knows where it goes: nothing was sent.

        Other replicas may know, while a deploy is under way or soon. Whoever does not know is done
        at once and would claim it at once again, before those who are at work: so there is a pause,
        longer each time, however the step is tried.
        """
        plan = self._catalogue.actions.get(step.action)
        if claimed.action is Action.COMPENSATE and nothing_to_undo(step, plan):
            said = f"the catalogue of {step.service} says `compensate: none` of {step.action}"
            return Outcome(OutcomeKind.DONE, output=error_body("nothing_to_undo", said))
        pause = NOT_OFFERED_AGAIN.delay(claimed.attempt, self._entropy.chance())
        error = error_body(NOT_OFFERED, not_offered(step, claimed.action, plan))
        return Outcome(OutcomeKind.NOT_SENT, error=error, retry_after=pause)

    async def _give_back(self, claimed: Claimed, event: Answered, began: float) -> None:
        """Let others have the step first. Once its lease is over, that need not be told."""
        lease_end = began + claimed.call_ms / 1000 + self._margin_s
        within = max(0.0, lease_end - self._clock.monotonic())
        try:
            failpoint(Site.BEFORE_GIVE_BACK)
            await self._committer.submit(Transition(claimed.workflow, event), within=within)
        except GoConductorError as error:
            log.warning("left_to_its_lease", error=error.message)

    async def _settle(self, claimed: Claimed, event: Answered) -> None:
        # Nothing was sent by who is away, or does not offer it: others are to have what comes next.
        more = self._may_take_more() and event.outcome.kind is not OutcomeKind.NOT_SENT
        transition = Transition(claimed.workflow, event, claim_next=more)
        try:
            failpoint(Site.BEFORE_SETTLE)
            answer = await self._committer.submit(transition)
        except StoreDataError as error:
            # The message says it all; the trace would only show our own transaction.
            log.error("answer_cannot_be_stored", error=error.message)  # noqa: TRY400
            kept = error_body("answer_cannot_be_stored", "the store refused the answer's data")
            unusable = Outcome(OutcomeKind.UNUSABLE, error=kept, may_have_effect=True)
            await self._committer.submit(
                replace(transition, event=replace(event, outcome=unusable))
            )
        else:
            if isinstance(answer, Missing):
                log.error("settled_workflow_is_missing", answer=answer.value)
        failpoint(Site.AFTER_SETTLE)


def _target(step: StepDefinition, claimed: Claimed) -> Target:
    """Where the definition lets the call go; without a path the catalogue says that."""
    match claimed.action:
        case Action.EXECUTE:
            return Target(step.path, step.method, step.on_status)
        case Action.STATUS:
            if step.status_check is None:
                raise IllegalTransition(f"step {claimed.key}", "without a status path", "ask")
            return Target(step.status_check.path, "GET")
        case Action.COMPENSATE:
            undo = step.compensation
            if undo is None:
                raise IllegalTransition(f"step {claimed.key}", "without compensation", "compensate")
            return Target(undo.path, undo.method, undo.on_status)


def _checked(definition: Definition, claimed: Claimed, outcome: Outcome) -> Outcome:
    """The outcome, or that its output is not what the definition promises to later steps."""
    check = definition.by_name[claimed.key.step].output_check
    done = outcome.kind is OutcomeKind.DONE and claimed.action is not Action.COMPENSATE
    if check is None or not done:
        return outcome
    error = misfit(check, outcome.output, "output")
    if error is None:
        return outcome
    return Outcome(OutcomeKind.UNUSABLE, error=error, may_have_effect=True)


def _told(error: JsonText | None) -> str | None:
    """Return what the log says of an error: not the body that came with it."""
    if error is None:
        return None
    try:
        found = json.loads(error)
        return f"{found['code']}: {found['message']}"
    except (ValueError, TypeError, KeyError):
        return "not an error object"  # the answer counts all the same


def compensation_body(claimed: Claimed) -> JsonText:
    """Return what `compensate` gets when its step renders nothing of its own."""
    outcome = json.dumps("succeeded" if claimed.succeeded else "unknown")
    reason = json.dumps(claimed.reason.value if claimed.reason else None)
    return JsonText(
        f'{{"input":{claimed.input},"output":{claimed.output or "null"},'
        f'"outcome":{outcome},"reason":{reason}}}'
    )
