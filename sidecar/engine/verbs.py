"""What a person can do to a workflow that runs: each goes through the machine, and is audited.

All of it is harmless when repeated. What is not legal now raises `Conflict`, and changes nothing.
"""

from __future__ import annotations

from typing import Any

from sidecar.engine.failpoints import Site, failpoint
from sidecar.engine.group_commit import Committer
from sidecar.engine.intake import storable
from sidecar.engine.queries import Queries, workflow_id
from sidecar.engine.views import WorkflowView
from sidecar.errors import Conflict, IllegalTransition, InvalidRequest, NotFound, RenderError
from sidecar.ports.entropy import Entropy
from sidecar.ports.store import Missing, Transition
from sidecar.saga.definition import JsonText
from sidecar.saga.events import (
    CancelRequested,
    Event,
    PauseRequested,
    Resolution,
    ResolveRequested,
    ResumeRequested,
    RetryRequested,
    SignalSent,
    SkipRequested,
    TerminateRequested,
    step_of,
)
from sidecar.saga.states import Action
from sidecar.saga.workflow import NO_INDEX, StepKey, Workflow, WorkflowId

COMMIT_WITHIN = 20.0
"""Seconds that a verb waits for its commit before it says that it does not know."""

MAX_REASON = 1_000

SKIPPABLE = (Action.EXECUTE, Action.COMPENSATE)
"""What somebody may go on without."""


class Verbs:
    """The verbs of one sidecar. All raise `NotFound`, `Conflict` and `StoreUnavailable`.

    `reason` is free text that stands in the history; where it is demanded, or too long, they
    raise `InvalidRequest`.
    """

    def __init__(self, committer: Committer, queries: Queries, entropy: Entropy) -> None:
        self._entropy = entropy
        self._committer = committer
        self._queries = queries

    async def cancel(
        self, namespace: str, workflow: str, reason: str = "", actor: str = "api"
    ) -> WorkflowView:
        """Turn a workflow back."""
        event = CancelRequested(checked_reason(reason), actor)
        return await self._apply(namespace, workflow, event, "cancelled")

    async def pause(
        self, namespace: str, workflow: str, reason: str = "", actor: str = "api"
    ) -> WorkflowView:
        """Let nothing more be called, until it is resumed."""
        event = PauseRequested(checked_reason(reason), actor)
        return await self._apply(namespace, workflow, event, "paused")

    async def resume(
        self, namespace: str, workflow: str, reason: str = "", actor: str = "api"
    ) -> WorkflowView:
        """Let a paused workflow go on."""
        event = ResumeRequested(checked_reason(reason), actor)
        return await self._apply(namespace, workflow, event, "resumed")

    async def terminate(
        self, namespace: str, workflow: str, reason: str, actor: str = "api"
    ) -> WorkflowView:
        """Stop a workflow where it stands; nothing is undone."""
        event = TerminateRequested(checked_reason(reason, demanded=True), actor)
        return await self._apply(namespace, workflow, event, "terminated")

    async def retry(
        self,
        namespace: str,
        workflow: str,
        step: str | None = None,
        reason: str = "",
        actor: str = "api",
    ) -> WorkflowView:
        """Try now what waits for its next try, and anew what failed for good: one step, or all."""
        key = None if step is None else step_key(step)
        event = RetryRequested(key, checked_reason(reason), actor)
        return await self._apply(namespace, workflow, event, "retried")

    async def skip(
        self,
        namespace: str,
        workflow: str,
        step: str,
        reason: str,
        output: Any = None,
        action: str = Action.EXECUTE,
        actor: str = "api",
    ) -> WorkflowView:
        """Go on without a step, as if it had passed with this output.

        With `compensate` as the `action`, go on without undoing it.
        """
        if action not in SKIPPABLE:
            known = ", ".join(SKIPPABLE)
            raise InvalidRequest(f"action must be one of: {known}.", field="action")
        if output is not None and action != Action.EXECUTE:
            raise InvalidRequest("Only what counts as passed has an output.", field="output")
        event = SkipRequested(
            step_key(step),
            checked_reason(reason, demanded=True),
            _body(output, "output"),
            actor,
            Action(action),
        )
        return await self._apply(namespace, workflow, event, "skipped")

    async def resolve(
        self,
        namespace: str,
        workflow: str,
        step: str,
        resolution: str,
        reason: str,
        evidence: str,
        output: Any = None,
        actor: str = "api",
    ) -> WorkflowView:
        """Settle a step whose outcome is unknown by what a person found out."""
        try:
            found = Resolution(resolution)
        except ValueError:
            known = ", ".join(Resolution)
            raise InvalidRequest(
                f"resolution must be one of: {known}.", field="resolution"
            ) from None
        if output is not None and found is not Resolution.SUCCEEDED:
            raise InvalidRequest("Only what succeeded has an output.", field="output")
        event = ResolveRequested(
            step_key(step),
            found,
            checked_reason(reason, demanded=True),
            checked_reason(evidence, "evidence", demanded=True),
            _body(output, "output"),
            actor,
        )
        return await self._apply(namespace, workflow, event, "resolved")

    async def signal(
        self,
        namespace: str,
        workflow: str,
        name: str,
        payload: Any = None,
        reason: str = "",
        actor: str = "api",
    ) -> WorkflowView:
        """Send a signal; it is kept until a step waits for it."""
        # So that it is one signal, however often its transaction has to be offered.
        known = self._entropy.workflow_id()
        event = SignalSent(name, storable(payload, "payload"), checked_reason(reason), actor, known)
        return await self._apply(namespace, workflow, event, "signalled")

    async def _apply(self, namespace: str, workflow: str, event: Event, done: str) -> WorkflowView:
        known = workflow_id(workflow)
        found = await self._queries.require(namespace, known)
        _require_item(found, step_of(event))
        await self.decide(known, event, done)
        return await self._queries.get(namespace, known)

    async def decide(self, workflow: WorkflowId, event: Event, done: str) -> None:
        """Have one event decided on, without looking at its workflow before or after.

        `done` is what it does to it, in a word.
        """
        failpoint(Site.BEFORE_VERB)
        try:
            result = await self._committer.submit(
                Transition(workflow=workflow, event=event, wait=True), within=COMMIT_WITHIN
            )
        except IllegalTransition as error:
            raise Conflict(f"The {error.subject} cannot be {done}: it is {error.state}.") from error
        except RenderError as error:
            raise Conflict(f"The workflow cannot be {done}: {error.message}.") from error
        failpoint(Site.AFTER_VERB)
        if isinstance(result, Missing):
            raise _no_such_step(workflow)


def step_key(text: str) -> StepKey:
    """Return the key of `charge`, or of an item like `charge[3]`. Raises `NotFound`."""
    name, bracket, rest = text.partition("[")
    if not bracket:
        return StepKey(name)
    index = rest.removesuffix("]")
    if not (rest.endswith("]") and index.isascii() and index.isdigit() and len(index) < 7):
        raise NotFound("There is no such step; write an item like charge[3].", field="step")
    return StepKey(name, int(index))


def _require_item(workflow: Workflow, key: StepKey | None) -> None:
    """Raise `NotFound` for an item that its step has not. Steps are looked up by the machine."""
    if key is None or key.index == NO_INDEX:
        return
    step = workflow.steps.get(StepKey(key.step))
    if step is None or step.fan is None or key.index >= step.fan.total:
        raise _no_such_step(workflow.id)


def _no_such_step(workflow: str) -> NotFound:
    return NotFound(f"There is no such step of workflow {workflow}.", field="step")


def _body(value: Any, field: str) -> JsonText | None:
    return None if value is None else storable(value, field)


def checked_reason(text: str, field: str = "reason", *, demanded: bool = False) -> str:
    """Return a text that a person gave. Raises `InvalidRequest`."""
    if demanded and not text.strip():
        raise InvalidRequest(f"{field} must say why; it stands in the history.", field=field)
    if len(text) > MAX_REASON:
        raise InvalidRequest(f"{field} is at most {MAX_REASON} characters.", field=field)
    storable(text, field)
    return text
