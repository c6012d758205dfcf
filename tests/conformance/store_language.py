"""Steps of documents that wait, fan out, and are called back or asked; and what answers them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sidecar.ports.store import Moved, TransitionResult
from sidecar.saga.changes import Changes, Verdict
from sidecar.saga.definition import JsonText
from sidecar.saga.events import Answered, SignalSent, SkipRequested
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.states import Action
from sidecar.saga.workflow import StepKey
from tests.conformance.store_play import RETRY_ONCE, call

ONE_TRY = {"max_attempts": 1}
CALLBACK_WITHIN_S = 600


def taken_on() -> Outcome:
    """A 202: the service answers by a callback."""
    return Outcome(OutcomeKind.PENDING)


def busy() -> Outcome:
    """The service is still at work on it."""
    return Outcome(OutcomeKind.BUSY, error=JsonText('{"code":"busy","message":"not yet"}'))


def called_back(name: str, **more: Any) -> dict[str, Any]:
    """A call of one try whose service may take ten minutes to call back."""
    return call(name, callback_timeout=f"{CALLBACK_WITHIN_S}s", retry=ONE_TRY, **more)


def asked(name: str, budget: str = "60s", **more: Any) -> dict[str, Any]:
    """A call of one try, whose service can be asked how it went."""
    return call(name, status={"path": "/status", "budget": budget}, retry=ONE_TRY, **more)


def pause_of(name: str, seconds: int, **more: Any) -> dict[str, Any]:
    """A step that waits for a span."""
    return {"name": name, "wait": {"duration": f"{seconds}s"}, **more}


def signalled(name: str, signal: str = "go", within: str | None = None, **more: Any) -> Any:
    """A step that waits for a signal."""
    wait = {"signal": signal} | ({"timeout": within} if within else {})
    return {"name": name, "wait": wait, **more}


def fan(name: str, at_once: int = 2, **more: Any) -> dict[str, Any]:
    """A call for each line of the input."""
    chosen = {"for_each": "${input.lines}", "max_parallel": at_once, "retry": RETRY_ONCE, **more}
    return call(name, **chosen)


def lines(*elements: object) -> str:
    """An input of these lines."""
    return json.dumps({"lines": elements}, separators=(",", ":"))


def sent(payload: str = "1", name: str = "go", **more: str) -> SignalSent:
    """A signal."""
    return SignalSent(name, JsonText(payload), **more)


def skip(
    step: str, output: str | None = None, index: int = -1, action: Action = Action.EXECUTE
) -> SkipRequested:
    """Somebody goes on without a step."""
    text = None if output is None else JsonText(output)
    return SkipRequested(StepKey(step, index), "not needed", text, "anna", action)


def unwanted(step: str, index: int = -1) -> SkipRequested:
    """Somebody goes on without undoing a step."""
    return skip(step, index=index, action=Action.COMPENSATE)


def done_at(step: str, index: int, attempt: int = 1, action: Action = Action.EXECUTE) -> Answered:
    """A good answer to an item."""
    outcome = Outcome(OutcomeKind.DONE, output=JsonText(f'"{step}{index}"'))
    return Answered(StepKey(step, index), action, attempt, outcome)


def moved(result: TransitionResult) -> Changes:
    """What a transition came to that must have been legal."""
    assert isinstance(result, Moved), result
    return result.changes


def verdict(result: TransitionResult) -> Verdict:
    """Its verdict."""
    return moved(result).verdict


def keys_of(claims: Sequence[Any]) -> list[str]:
    """The keys of claims, by their index."""
    return [str(key) for key in sorted(one.key for one in claims)]
