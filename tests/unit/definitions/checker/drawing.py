"""Small definitions drawn by chance, with everything that the language has."""

from __future__ import annotations

import json
import random
from datetime import timedelta
from typing import Any

from sidecar.definitions.checker.abstraction import FOR_EVER
from sidecar.saga.definition import (
    Compensation,
    Concurrency,
    Definition,
    FanOut,
    Join,
    JsonText,
    Order,
    StatusCheck,
    StepDefinition,
    Template,
    Wait,
)
from sidecar.saga.policy import RetryPolicy

TRIES = RetryPolicy(max_attempts=2, total_budget=None)


def template(value: Any, *reads: str) -> Template:
    """A template as it is compiled."""
    return Template(JsonText(json.dumps(value)), constant=False, reads=frozenset(reads))


def call(name: str, *after: str, **more: Any) -> StepDefinition:
    """A call that can be undone."""
    fields: dict[str, Any] = {"retry": TRIES, "compensation": Compensation("/undo", retry=FOR_EVER)}
    return StepDefinition(name, "svc", f"/{name}", after, **{**fields, **more})


def flow(*steps: StepDefinition, **more: Any) -> Definition:
    """A definition of these steps."""
    return Definition("flow", 1, steps, **more)


def drawn(draw: random.Random, most: int = 4) -> Definition:
    """A definition of a few steps."""
    names = [f"s{number}" for number in range(draw.randint(1, most))]
    steps: list[StepDefinition] = []
    chain = draw.random() < 0.4
    pivot = draw.choice(names) if chain and draw.random() < 0.6 else None
    for number, name in enumerate(names):
        some = draw.sample(names[:number], draw.randint(0, min(number, 3)))
        after = names[max(0, number - 1) : number] if chain else sorted(some)
        steps.append(_step(draw, name, after, names[:number], pivot=name == pivot))
    order = draw.choice((Order.REVERSE, Order.REVERSE, Order.SEQUENTIAL, Order.PARALLEL))
    timeout = timedelta(hours=1) if draw.random() < 0.2 else None
    return flow(*steps, order=order, timeout=timeout)


def _step(
    draw: random.Random, name: str, after: list[str], earlier: list[str], *, pivot: bool
) -> StepDefinition:
    more: dict[str, Any] = {}
    if len(after) > 1 and draw.random() < 0.5:
        more["join"] = Join.ANY
    if draw.random() < 0.25:
        text = draw.choice(("${input.a}", "${!input.a}", "${input.b}"))
        more["when"] = draw.choice((template(text), Template(JsonText("false"), constant=True)))
    if after and draw.random() < 0.15:
        read = draw.choice(after)
        more["input"] = template({"x": f"${{steps.{read}.output.id}}"}, read)
    if pivot:
        how = draw.choice((None, Compensation("/undo", retry=FOR_EVER)))
        return call(name, *after, pivot=True, compensation=how, **more)
    kind = draw.random()
    if kind < 0.2:
        del earlier
        more.pop("input", None)
        wait = draw.choice(
            (
                Wait(duration=timedelta(seconds=30)),
                Wait(signal="go"),
                Wait(signal="go", timeout=timedelta(seconds=60)),
            )
        )
        return StepDefinition(name, after=tuple(after), wait=wait, no_effect=True, **more)
    more["optional"] = draw.random() < 0.15
    undoing = draw.random()
    if undoing < 0.15:
        more["compensation"] = None
        more["no_effect"] = draw.random() < 0.5
    elif undoing < 0.3:
        read = draw.choice([name, *after])
        body = template({"x": f"${{steps.{read}.output.id}}"}, read)
        more["compensation"] = Compensation("/undo", retry=FOR_EVER, input=body)
    if draw.random() < 0.2:
        more["status_check"] = StatusCheck("/status", timedelta(seconds=1))
    if kind < 0.35:
        items = draw.choice((template("${input.items}"), Template(JsonText("[1]"), constant=True)))
        more["fan_out"] = FanOut(items, draw.choice((1, 2)), draw.choice((0, 0, 1)))
    return call(name, *after, concurrency=_turns(draw, after), **more)


def _turns(draw: random.Random, after: list[str]) -> Concurrency | None:
    if draw.random() >= 0.2:
        return None
    if not after or draw.random() < 0.7:
        return Concurrency(template("${input.account}"))
    read = draw.choice(after)
    return Concurrency(template(f"${{steps.{read}.output.account}}", read))
