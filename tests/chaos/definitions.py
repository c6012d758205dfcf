"""The workflows of a chaos run. Their times are short, so that recovery takes seconds.

Every step is sent the order's number, how its service is to behave (`book` knows the words), and
the marks of the steps before it, which the checker wants to see again. An input looks like
`{"order": 7, "behave": {"ship": "refuse"}}`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SERVICES = ("payments", "inventory", "shipping")
RETRY = {"initial_interval": "50ms", "max_interval": "500ms"}
TRIES = 6
"""Of an execute. A step that has used them up turns its workflow back."""
COMPLETED = frozenset({"completed"})
ROLLED_BACK = frozenset({"rolled_back"})
ERROR = frozenset({"error"})
_TURNS_BACK = frozenset({"refuse", "fail", "act_and_fail", "later_refuse", "forget"})


@dataclass(frozen=True, slots=True)
class Order:
    """One kind of workflow in a mix: which definition, which services misbehave, where it ends.

    `comes_to` is where, if `behave` alone does not say it; `more` is what else it is started with.
    """

    definition: str
    behave: Mapping[str, str] = field(default_factory=dict)
    weight: int = 1
    comes_to: frozenset[str] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ends(self) -> frozenset[str]:
        """The ends to which it comes if nothing disturbs it."""
        if self.comes_to is not None:
            return self.comes_to
        words = set(self.behave.values())
        if not words & _TURNS_BACK:
            return COMPLETED
        return ERROR if "refuse_undo" in words else ROLLED_BACK

    def input(self, number: int) -> dict[str, Any]:
        """The input of the workflow with this number."""
        return {"order": number, "behave": dict(self.behave), **self.more}


MIX: tuple[Order, ...] = (
    Order("chain", weight=3),
    Order("chain", {"ship": "refuse"}),
    Order("chain", {"charge": "refuse"}),
    Order("diamond", weight=3),
    Order("diamond", {"pack": "refuse"}),
    Order("diamond", {"ship": "refuse"}),
    Order("pivot", weight=2),
    Order("pivot", {"ship": "refuse"}),
)
"""Some two thirds complete."""


def drawn(mix: Sequence[Order], count: int, seed: int) -> list[Order]:
    """Draw so many orders, each kind at least once if there is room for it."""
    draw = random.Random(f"orders {seed}")
    orders = list(mix)[:count]
    orders += draw.choices(mix, [one.weight for one in mix], k=count - len(orders))
    draw.shuffle(orders)
    return orders


def step(name: str, service: str, after: Sequence[str], **more: Any) -> dict[str, Any]:
    """One step, as plain data."""
    return {
        "name": name,
        "service": service,
        "after": list(after),
        "execute": f"/{name}",
        "compensate": {"path": f"/undo/{name}", "timeout": "1s", "retry": RETRY},
        "timeout": "1s",
        "retry": {**RETRY, "max_attempts": TRIES},
        "input": {
            "order": "${input.order}",
            "behave": f'${{input.behave.?{name}.orValue("well")}}',
            "seen": {before: f"${{steps.{before}.output.mark}}" for before in after},
        },
        **more,
    }


DEFINITIONS: tuple[dict[str, Any], ...] = (
    {
        "name": "chain",
        "steps": [
            step("charge", "payments", ()),
            step("reserve", "inventory", ("charge",)),
            step("ship", "shipping", ("reserve",)),
        ],
    },
    {
        "name": "diamond",
        "steps": [
            step("charge", "payments", ()),
            step("reserve", "inventory", ()),
            step("pack", "inventory", ("charge", "reserve")),
            step("ship", "shipping", ("pack",)),
        ],
    },
    {
        "name": "pivot",
        "steps": [
            step("charge", "payments", ()),
            step("reserve", "inventory", ("charge",)),
            step("ship", "shipping", ("reserve",), pivot=True),
            step("tell", "payments", ("ship",), compensate="none"),
        ],
    },
)
