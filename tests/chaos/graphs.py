"""What a definition demands of its workflows, read from its document and from nothing else.

An item of a fan-out is called `STEP[INDEX]` wherever a step has a name: `plain` gives its step.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.patience import Patience

_GIVEN = re.compile(r"\$\{steps\.([a-z0-9_]+)\.output\.mark\}")


def _undone_by(step: Mapping[str, Any]) -> Any:
    """What undoes a step: as it says itself, or else as the catalogue said at registration."""
    own = step.get("compensate")
    offered = own in (None, "from_catalogue") and "pinned" in step
    return step["pinned"].get("compensate") if offered else own


def plain(name: str) -> str:
    """The step of an item; a step itself."""
    return name.partition("[")[0]


@dataclass(frozen=True, slots=True)
class FanOut:
    """How many items may be under way at a time, and how many may fail."""

    parallel: int = 10
    tolerated: int = 0


@dataclass(frozen=True, slots=True)
class Graph:
    """Each step's predecessors, which steps can be undone, and what else is said of them.

    `any_of` want one predecessor only; what is in `optional` may fail; what is in `unsure` may
    never happen; `waits` call nobody, nor do `children`. `shown` are the steps whose marks a step
    is sent, where these are not just its predecessors; `gives` is the step whose mark the whole
    gives.
    """

    after: Mapping[str, tuple[str, ...]]
    undoable: frozenset[str]
    pivots: frozenset[str] = frozenset()
    any_of: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    unsure: frozenset[str] = frozenset()
    waits: frozenset[str] = frozenset()
    children: frozenset[str] = frozenset()
    fans: Mapping[str, FanOut] = field(default_factory=dict)
    shown: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    gives: str | None = None
    keeps_in_error: bool = True
    """Whether one that takes turns keeps its place in `error`."""
    limits: Mapping[str, int] = field(default_factory=dict)
    """Of the steps that take turns, how many of a key may be under way."""
    patience: Patience = field(default_factory=Patience)

    @property
    def calls(self) -> frozenset[str]:
        """The steps that a service is asked to do."""
        return frozenset(self.after) - self.waits - self.children

    def descendants(self, step: str) -> frozenset[str]:
        """All steps that come after this one."""
        found = {one for one, before in self.after.items() if step in before}
        return frozenset(found.union(*(self.descendants(one) for one in found)))

    def awaiting(self, step: str) -> frozenset[str]:
        """All steps that wait for this one, whatever else they might begin by."""
        found = {
            one for one, before in self.after.items() if step in before and one not in self.any_of
        }
        return frozenset(found.union(*(self.awaiting(one) for one in found)))

    def sees(self, step: str) -> tuple[str, ...]:
        """The steps whose marks this one is sent."""
        return self.shown.get(step, self.after.get(step, ()))

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Graph:
        """Read a registered definition; without `after` a step comes after the one above."""
        after: dict[str, tuple[str, ...]] = {}
        shown: dict[str, tuple[str, ...]] = {}
        above: tuple[str, ...] = ()
        steps = document["steps"]
        for step in steps:
            after[step["name"]] = tuple(step.get("after") or ()) if "after" in step else above
            above = (step["name"],)
            sent = step.get("input")
            if isinstance(sent, dict) and isinstance(sent.get("seen"), dict):
                shown[step["name"]] = tuple(sent["seen"])
        output = document.get("output")
        given = _GIVEN.fullmatch(output.get("mark", "")) if isinstance(output, dict) else None
        turns = document.get("concurrency") or {}

        def named(wanted: Any) -> frozenset[str]:
            return frozenset(one["name"] for one in steps if wanted(one))

        return cls(
            after,
            named(lambda one: _undone_by(one) != "none" and "wait" not in one),
            pivots=named(lambda one: one.get("pivot")),
            any_of=named(lambda one: one.get("join") == "any"),
            optional=named(lambda one: one.get("optional")),
            unsure=named(lambda one: one.get("optional") or "when" in one),
            waits=named(lambda one: "wait" in one),
            children=named(lambda one: "workflow" in one),
            fans={
                one["name"]: FanOut(one.get("max_parallel", 10), one.get("tolerated_failures", 0))
                for one in steps
                if "for_each" in one
            },
            shown=shown,
            gives=given[1] if given else None,
            keeps_in_error=not turns.get("release_on_error", False),
            limits={
                one["name"]: one["concurrency"].get("limit", 1)
                for one in steps
                if "concurrency" in one
            },
            patience=Patience.read(document),
        )
