"""What a service may say of an attempt that it took on: done, failed, still at it.

All of it may be said again: the same end twice is one. What comes too late is refused, noted in
the workflow's history, and covered by the compensation that is owed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from sidecar.engine.callbacks import Attempt, Tokens
from sidecar.engine.failpoints import Site, failpoint
from sidecar.engine.group_commit import Committer
from sidecar.engine.intake import check_body, storable
from sidecar.errors import Conflict, IllegalTransition, InvalidRequest, NotFound
from sidecar.ports.entropy import Entropy
from sidecar.ports.store import Missing, Store, Transition
from sidecar.saga.bodies import error_body
from sidecar.saga.changes import Verdict
from sidecar.saga.definition import Definition, JsonText
from sidecar.saga.events import Answered, Heartbeat
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.states import Action
from sidecar.saga.workflow import DefinitionRef, Workflow

COMMIT_WITHIN = 20.0
"""Seconds that a callback waits for its commit before it says that it does not know."""

MAX_MESSAGE = 300
MAX_CODE = 64
FAILURES = ("refused", "unknown")


class Tasks:
    """The callbacks of one sidecar. All raise `NotFound`, `Conflict` and `StoreUnavailable`."""

    def __init__(
        self,
        store: Store,
        committer: Committer,
        entropy: Entropy,
        namespace: str,
        tokens: Callable[[], Tokens],
        definition: Callable[[DefinitionRef], Awaitable[Definition]],
    ) -> None:
        self._store = store
        self._committer = committer
        self._entropy = entropy
        self._namespace = namespace
        self._tokens = tokens
        self._definition = definition

    async def complete(self, token: str, output: Any = None) -> None:
        """The attempt is done, with this output. Raises `InvalidRequest`."""
        attempt = self._tokens().read(token)
        text = storable(output, "output")
        if attempt.action is Action.EXECUTE:
            await self._check(attempt, text)
        outcome = Outcome(OutcomeKind.DONE, output=None if output is None else text)
        await self._answer(attempt, outcome)

    async def _check(self, one: Attempt, output: JsonText) -> None:
        """Raise `InvalidRequest` for an output that does not fit; it can be sent again, mended."""
        found = await self._store.get_workflow(self._namespace, one.workflow)
        if found is None:
            raise NotFound("There is no such task: its workflow does not exist any more.")
        defined = (await self._definition(found.definition)).by_name.get(one.key.step)
        check_body(defined.output_check if defined else None, output, "output")

    async def fail(
        self, token: str, message: str, *, outcome: str = "refused", code: str = "failed"
    ) -> None:
        """The attempt failed: `refused` is a definite no, `unknown` may have had an effect.

        Raises `InvalidRequest`.
        """
        attempt = self._tokens().read(token)
        if outcome not in FAILURES:
            raise InvalidRequest(f"outcome must be one of: {', '.join(FAILURES)}.", field="outcome")
        for field, text, most in (("message", message, MAX_MESSAGE), ("code", code, MAX_CODE)):
            if not 0 < len(text) <= most or "\0" in text:
                raise InvalidRequest(
                    f"{field} is 1 to {most} characters, without U+0000.", field=field
                )
            storable(text, field)
        kind = OutcomeKind(outcome)
        body = error_body(code, message)
        unsure = kind is OutcomeKind.UNKNOWN
        await self._answer(attempt, Outcome(kind, error=body, may_have_effect=unsure))

    async def heartbeat(self, token: str) -> datetime | None:
        """The service is still at it: its time begins anew. Return when it will be over."""
        one = self._tokens().read(token)
        workflow = await self._submit(one, Heartbeat(one.key, one.action, one.attempt))
        step = workflow.steps.get(one.key)
        return None if step is None else step.lease_until

    async def fence(self, token: str) -> None:
        """Raise `Conflict` unless the attempt is the newest of its step, and has not ended."""
        one = self._tokens().read(token)
        if not await self._store.is_current(one.workflow, one.key, one.action, one.attempt):
            raise Conflict("The attempt is no longer the current one of its step; do nothing more.")

    async def _answer(self, one: Attempt, outcome: Outcome) -> None:
        event = Answered(
            one.key, one.action, one.attempt, outcome, self._entropy.chance(), actor="service"
        )
        await self._submit(one, event)

    async def _submit(self, one: Attempt, event: Answered | Heartbeat) -> Workflow:
        failpoint(Site.BEFORE_CALLBACK)
        try:
            result = await self._committer.submit(
                Transition(one.workflow, event), within=COMMIT_WITHIN
            )
        except IllegalTransition as error:
            raise Conflict(f"The attempt cannot be answered now: {error.message}.") from error
        failpoint(Site.AFTER_CALLBACK)
        if isinstance(result, Missing | Exception):
            raise NotFound("There is no such task: its workflow does not exist any more.")
        if result.changes.verdict is Verdict.LATE:
            raise Conflict(
                "It comes too late: the attempt had ended. An answer is noted in the history of "
                "the workflow, and changes nothing."
            )
        return result.changes.workflow
