"""What people do for workflows that wait for them, while whoever they ask may die of it.

A person looks until a step stands where it needs help, says what is to be done, and says it again
until somebody has answered. What is found out of a step is the truth of the ledger: a resolution
that was not true would be the person's fault, and nobody could tell it from one of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.chaos.definitions import COMPLETED, ROLLED_BACK, Order, step
from tests.chaos.looking import in_tree, status
from tests.chaos.rotations import PATIENT
from tests.chaos.world import World

_WITHIN_S = 120.0
_LOOKS_EVERY_S = 0.25
_WHY = {"reason": "somebody has looked at it"}

_CLOSE = step("close", "shipping", ("work",), retry=PATIENT)
HELPED: dict[str, Any] = {
    "name": "helped",
    "steps": [
        step("open", "inventory", (), retry=PATIENT),
        step("work", "payments", ("open",), retry=PATIENT, callback_timeout="10m"),
        {**_CLOSE, "input": {**_CLOSE["input"], "seen": {}}},
    ],
}
"""Its middle may be held up for longer than anybody waits; its end is shown nothing of it."""


@dataclass(frozen=True, slots=True)
class Help:
    """What is started, which step of its tree stands where, and what is then said to its workflow.

    `found_out` tells more, by the ledger.
    """

    order: Order
    step: str
    stands: str
    verb: str
    body: Mapping[str, Any] | None = None
    found_out: Callable[[World, str], Mapping[str, Any]] | None = None


def _mark(world: World, workflow: str) -> Mapping[str, Any]:
    """The output of what had its effect and never said so."""
    marks = [
        one.mark
        for one in world.ledger.entries()
        if (one.workflow, one.step) == (workflow, "work") and one.mark is not None
    ]
    return {"output": {"mark": marks[-1]}}


def _resolved(resolution: str) -> Mapping[str, Any]:
    return {**_WHY, "resolution": resolution, "evidence": "the books of the service"}


_STUCK = "compensation_failed"
_FORGETS = {"work": "forget"}
_ONCE = Order("family", {"stick": "refuse_once", "close": "refuse"})
_BADLY = Order("family", {"label": "undo_badly", "close": "refuse"})
HELPS = (
    Help(_ONCE, "stick", _STUCK, "retry"),
    Help(_ONCE, "stick", _STUCK, "steps/stick/retry"),
    Help(_BADLY, "label", _STUCK, "steps/label/resolve", _resolved("compensated")),
    Help(Order("helped", _FORGETS, comes_to=COMPLETED), "work", "waiting", "steps/work/skip", _WHY),
    Help(
        Order("helped", {**_FORGETS, "close": "refuse"}), "work", "waiting", "steps/work/skip", _WHY
    ),
    Help(
        Order("helped", _FORGETS, comes_to=COMPLETED),
        "work",
        "waiting",
        "steps/work/resolve",
        _resolved("succeeded"),
        _mark,
    ),
    Help(
        Order("helped", {"work": "promise"}, comes_to=ROLLED_BACK),
        "work",
        "waiting",
        "steps/work/resolve",
        _resolved("no_effect"),
    ),
)


def help_on(world: World, help_: Help, at: str) -> None:
    """Start it, and help it on; who is asked first may die of it."""
    root = world.start(help_.order)
    if root is None:
        return
    first: list[str] = [at]

    def goes_on() -> bool:
        """Whether it needs nobody any more."""
        for workflow, stands in in_tree(world, root, help_.step):
            if stands == help_.stands:
                body = {**(help_.body or _WHY)}
                if help_.found_out is not None:
                    body |= help_.found_out(world, workflow)
                asked = first.pop() if first else None
                told = world.tell(workflow, help_.verb, body, at=asked, insist_s=0)
                world.counts[f"{help_.verb.rpartition('/')[2]}:{told}"] += 1
        return status(world, root) in COMPLETED | ROLLED_BACK

    world.wait_until(
        goes_on,
        within_s=_WITHIN_S,
        what=f"{help_} has helped {root} to its end",
        every_s=_LOOKS_EVERY_S,
    )
