"""Definitions made in code, for all that the machine knows: no document has to be able to say it.

A store keeps a document that names them and compiles it by `compile_any`. Their templates hold one
path each, like `input.lines`, `each.item`, `each.index` or `steps.fan.output`; those without a dot
are the words of `tests.unit.saga.worlds`.
"""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from typing import Any

from sidecar.definitions import compile_stored, render
from sidecar.errors import RenderError
from sidecar.ports.store import Store
from sidecar.saga.definition import (
    Compensation,
    Definition,
    FanOut,
    JsonText,
    Scope,
    StatusCheck,
    StepDefinition,
    Template,
    Wait,
)
from sidecar.saga.policy import RetryPolicy
from tests.unit.saga import worlds

ONE_TRY = RetryPolicy(max_attempts=1, jitter=0)
TWO_TRIES = RetryPolicy(max_attempts=2, initial_interval=timedelta(seconds=1), jitter=0)
CALLBACK_WITHIN = timedelta(seconds=600)

_MADE: dict[str, Definition] = {}


def compile_any(document: JsonText, namespace: str, name: str, version: int) -> Definition:
    """What a store compiles by: a definition made in code, or a document."""
    made = _MADE.get(document)
    if made is None:
        return compile_stored(document, namespace, name, version)
    fields = {one: getattr(made, one) for one in ("steps", "timeout", "output", "order", "central")}
    return Definition(name=name, version=version, namespace=namespace, **fields)


def render_any(template: Template, scope: Scope) -> JsonText:
    """What a store renders by: the templates of definitions made in code, and all others."""
    if template.compiled is not None:
        return render(template, scope)
    head, *path = template.source.split(".")
    if not path:
        return worlds.render(template, scope)
    found: Any
    match head, path:
        case "input", [name]:
            found = json.loads(scope.input).get(name)
        case "each", ["item"] if scope.each is not None:
            return scope.each.item
        case "each", ["index"] if scope.each is not None:
            found = scope.each.index
        case "each", ["odd"] if scope.each is not None:
            if scope.each.index % 2:
                raise RenderError("cannot be rendered")
            return scope.each.item
        case "steps", [name, "status"]:
            found = scope.statuses[name]
        case "steps", [name, "output"]:
            return scope.outputs[name] or JsonText("null")
        case _:
            raise RenderError(f"cannot be rendered: {template.source}")
    return JsonText(json.dumps(found))


def template(source: str) -> Template:
    """A template that is rendered."""
    return Template(JsonText(source), constant=False)


def calls(name: str, *after: str, service: str = "payments", **more: Any) -> StepDefinition:
    """A step that calls a service, with a compensation."""
    chosen: dict[str, Any] = {
        "retry": TWO_TRIES,
        "compensation": Compensation(f"/undo/{name}"),
        "callback_timeout": CALLBACK_WITHIN,
        **more,
    }
    return StepDefinition(name, service, f"/do/{name}", after, **chosen)


def asked(name: str, *after: str, budget: float = 60, **more: Any) -> StepDefinition:
    """A call of one try, whose service can be asked how it went."""
    check = StatusCheck("/status", timedelta(seconds=budget))
    return calls(name, *after, retry=ONE_TRY, status_check=check, **more)


def waits(name: str, *after: str, seconds: float, **more: Any) -> StepDefinition:
    """A step that waits for a span."""
    wait = Wait(duration=timedelta(seconds=seconds))
    return StepDefinition(name, after=after, wait=wait, **more)


def waits_for(
    name: str, *after: str, signal: str = "go", within: float | None = None, **more: Any
) -> StepDefinition:
    """A step that waits for a signal."""
    timeout = None if within is None else timedelta(seconds=within)
    return StepDefinition(name, after=after, wait=Wait(signal=signal, timeout=timeout), **more)


def fans(
    name: str,
    *after: str,
    of: str = "input.lines",
    at_once: int = 2,
    tolerated: int = 0,
    **more: Any,
) -> StepDefinition:
    """A call for each line of the input."""
    fan_out = FanOut(template(of), max_parallel=at_once, tolerated=tolerated)
    return calls(name, *after, fan_out=fan_out, **more)


async def define(
    store: Store,
    *steps: StepDefinition,
    name: str = "order",
    namespace: str = "default",
    **more: Any,
) -> Definition:
    """Store a definition made in code and return it."""
    made = Definition(name, 0, steps, namespace, **more)
    told = hashlib.sha256(repr((steps, sorted(more.items()))).encode()).hexdigest()
    document = JsonText(json.dumps({"made_in_code": told}))
    _MADE[document] = made
    stored, _ = await store.put_definition(namespace, name, document, told)
    return compile_any(stored.document, namespace, name, stored.version)
