"""Random definitions with everything that the language has, and those who talk to them.

What a step sends names where it comes from: the marks of the steps before it that surely have
one, the statuses of the others, and of an item its element and its index. So a call that came with
anything else is seen.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from sidecar.adapters.services.memory import Act, outcome
from sidecar.saga.outcomes import OutcomeKind

FIRST_ELEMENT = 10
MOST_LINES = 6
SIGNAL = "go"
CHILD = "child"
_OF_CALLS = (
    "service",
    "execute",
    "compensate",
    "timeout",
    "retry",
    "input",
    "callback_timeout",
)
PENDING = Act(outcome(OutcomeKind.PENDING), has_effect=False)
"""The service takes it on, and does it later."""


def lines(draw: random.Random) -> list[int]:
    """The elements of the fan-outs of one workflow."""
    return [FIRST_ELEMENT + index for index in range(draw.randint(0, MOST_LINES))]


def varied(draw: random.Random, steps: list[dict[str, Any]], *, whole: dict[str, Any]) -> None:
    """Let some of these plain calls be something else, or more."""
    unsure: set[str] = set()
    for step in steps:
        if not step.get("pivot"):
            unsure |= _vary(draw, step)
    for step in steps:
        _read(step, unsure)
    if draw.random() < 0.3:
        whole["compensation"] = {"order": draw.choice(("sequential", "parallel"))}
    if draw.random() < 0.25:
        whole["concurrency"] = {
            "key": "${string(input.client % 2)}",
            "limit": draw.choice((1, 1, 2)),
            "release_on_error": draw.random() < 0.5,
        }
    if draw.random() < 0.3:
        whole["output"] = {step["name"]: f"${{steps.{step['name']}.status}}" for step in steps}


def _vary(draw: random.Random, step: dict[str, Any]) -> set[str]:
    """Change one step; return the names of the steps that may have no mark because of that."""
    roll = draw.random()
    if roll < 0.10:
        _wait(draw, step)
    elif roll < 0.24:
        _fan_out(draw, step)
    elif roll < 0.34:
        _child(draw, step)
    if draw.random() < 0.14:
        step["when"] = draw.choice(_CONDITIONS)
    if "wait" not in step and draw.random() < 0.10:
        step["optional"] = True
    if "execute" in step and draw.random() < 0.2:
        _turns(draw, step)
    if "execute" in step and draw.random() < 0.25:
        step["status"] = {"path": "/status", "budget": f"{draw.choice((2, 10))}s"}
    unsure = (
        {step["name"]}
        if {"wait", "for_each", "optional", "when", "workflow"} & step.keys()
        else set()
    )
    if len(step["after"]) > 1 and draw.random() < 0.3:
        step["join"] = "any"
        unsure |= set(step["after"])
    return unsure


_CONDITIONS = (
    "${input.client >= 0}",
    "${input.client < 0}",
    "${input.client % 2 == 0}",
    "${input.lines.size() > 2}",
)


def _wait(draw: random.Random, step: dict[str, Any]) -> None:
    for key in (
        "service",
        "execute",
        "compensate",
        "timeout",
        "retry",
        "input",
        "callback_timeout",
    ):
        step.pop(key, None)
    step["wait"] = draw.choice(
        (
            {"duration": f"{draw.randint(1, 10)}s"},
            {"until": "2030-01-01T00:00:20Z"},
            {"signal": SIGNAL},
            {"signal": SIGNAL, "timeout": f"{draw.choice((2, 20))}s"},
        )
    )


def _fan_out(draw: random.Random, step: dict[str, Any]) -> None:
    step["for_each"] = "${input.lines}"
    step["max_parallel"] = draw.choice((1, 2, 5))
    step["tolerated_failures"] = draw.choice((0, 0, 1, 3))


def _turns(draw: random.Random, step: dict[str, Any]) -> None:
    """Let the calls of a step take turns: with all others, or by what their items say."""
    of_items = "for_each" in step and draw.random() < 0.5
    key = "${string(each.item % 2)}" if of_items else "${string(input.client % 2)}"
    step["concurrency"] = {"key": key, "limit": draw.choice((1, 1, 2))}


def _child(draw: random.Random, step: dict[str, Any]) -> None:
    for key in _OF_CALLS:
        step.pop(key, None)
    step["workflow"] = CHILD
    if draw.random() < 0.3:
        _fan_out(draw, step)


def child(draw: random.Random, services: Sequence[str]) -> dict[str, Any]:
    """What children run: a call or two, at times one that fails."""
    steps = [
        {
            "name": f"c{number}",
            "service": draw.choice(services),
            "execute": f"/do/c{number}",
            "compensate": {
                "path": f"/undo/c{number}",
                "timeout": "2s",
                "retry": {"max_interval": "5s"},
            },
            "timeout": "2s",
            "callback_timeout": "3s",
            "retry": {"max_attempts": 3, "max_interval": "4s"},
        }
        for number in range(draw.choice((1, 2)))
    ]
    whole: dict[str, Any] = {"name": CHILD, "steps": steps, "output": {"mark": "child"}}
    return whole


def _read(step: dict[str, Any], unsure: set[str]) -> None:
    """What a step sends."""
    if "wait" in step:
        return
    earlier = step["after"]
    sent: dict[str, Any] = {
        one: f"${{steps.{one}.{'status' if one in unsure else 'output.mark'}}}" for one in earlier
    }
    if "for_each" in step:
        sent |= {"element": "${each.item}", "index": "${each.index}"}
    step.pop("input", None)
    if sent:
        step["input"] = sent


def misread(body: dict[str, Any], marks: dict[str, str], index: int) -> Sequence[str]:
    """Say which parts of what a step sent are not what they should be."""
    wrong = []
    for name, found in body.items():
        if name == "element":
            expected: Any = FIRST_ELEMENT + index
        elif name == "index":
            expected = index
        elif isinstance(found, str) and "/" not in found:
            continue  # a status: any
        else:
            expected = marks.get(name)
        if found != expected:
            wrong.append(f"{name}: {found}")
    return wrong
