"""What must hold between the steps: names, order, no cycle, nothing beside a pivot.

Works on what could be read of each step, so that a slip elsewhere in the document does not
hide what is wrong here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sidecar.definitions.findings import Findings, Path

_DRAWN = 12
MAX_EDGES = 20_000
"""How many names all `after` lists may hold together."""


@dataclass(frozen=True, slots=True)
class Vertex:
    """A step as the graph sees it; `index` is its place in the document."""

    index: int
    name: str
    after: tuple[str, ...]
    pivot: bool = False
    any: bool = False

    @property
    def path(self) -> Path:
        """Where the step stands."""
        return ("steps", self.index)


def vertices(steps: Sequence[object]) -> list[Vertex]:
    """Read what can be read; a step without a name is left out.

    `after` left out means the step above; what is not a name there is left out as well.
    """
    found: list[Vertex] = []
    above: tuple[str, ...] = ()
    for index, step in enumerate(steps):
        if not isinstance(step, dict) or not isinstance(name := step.get("name"), str):
            above = ()
            continue
        after = above
        if isinstance(given := step.get("after"), list):
            after = tuple(one for one in given if isinstance(one, str))
        found.append(
            Vertex(index, name, after, step.get("pivot") is True, step.get("join") == "any")
        )
        above = (name,)
    return found


def check_graph(steps: Sequence[object], findings: Findings) -> Mapping[str, frozenset[str]] | None:
    """Check the graph; return the ancestors of each step, or None if there is no order."""
    found = vertices(steps)
    edges = sum(len(one.after) for one in found)
    if edges > MAX_EDGES:
        findings.add(("steps",), f"holds {edges} names in `after`; at most {MAX_EDGES}")
        return None
    before = len(findings.found)
    _check_names(found, steps, findings)
    if len(findings.found) > before:
        return None
    order = _order(found, findings)
    if order is None:
        return None
    by_name = {one.name: one for one in found}
    ancestors: dict[str, frozenset[str]] = {}
    for name in order:
        after = by_name[name].after
        ancestors[name] = frozenset(after).union(*(ancestors[one] for one in after))
    _check_joins(found, findings)
    _check_pivots(found, ancestors, findings)
    if any(one.any for one in found) and any(one.pivot for one in found):
        _check_open_ends([by_name[name] for name in order], ancestors, findings)
    return ancestors


def _check_names(found: Sequence[Vertex], steps: Sequence[object], findings: Findings) -> None:
    first: dict[str, Vertex] = {}
    for one in found:
        if one.name in first:
            findings.add(
                (*one.path, "name"),
                f"{one.name!r} is also the name of steps[{first[one.name].index}]; "
                "give each step its own name",
            )
        first.setdefault(one.name, one)
    for one in found:
        step = steps[one.index]
        given = step.get("after") if isinstance(step, dict) else None
        seen: set[str] = set()
        for place, name in enumerate(given if isinstance(given, list) else ()):
            path = (*one.path, "after", place)
            if not isinstance(name, str):
                continue
            if name == one.name:
                findings.add(path, "a step cannot come after itself; leave it out")
            elif name not in first:
                findings.add_unknown(path, "there is no step", name, first)
            elif name in seen:
                findings.add(path, f"{name!r} is named twice; once is enough")
            seen.add(name)


def _order(found: Sequence[Vertex], findings: Findings) -> list[str] | None:
    """The names, each after all it waits for; None, with the cycle told, if there is one."""
    missing = {one.name: len(one.after) for one in found}
    successors: dict[str, list[str]] = {one.name: [] for one in found}
    for one in found:
        for name in one.after:
            successors[name].append(one.name)
    order = [one.name for one in found if not one.after]
    for name in order:
        for successor in successors[name]:
            missing[successor] -= 1
            if missing[successor] == 0:
                order.append(successor)
    if len(order) == len(found):
        return order
    done = set(order)
    stuck = {one.name: one for one in found if one.name not in done}
    # Every stuck step waits for a stuck step, so going back must meet one twice.
    trail = [next(iter(stuck))]
    while True:
        name = next(one for one in stuck[trail[-1]].after if one in stuck)
        if name in trail:
            break
        trail.append(name)
    cycle = list(reversed([*trail[trail.index(name) :], name]))
    drawn = " -> ".join(cycle if len(cycle) <= _DRAWN else [*cycle[: _DRAWN - 2], "...", cycle[-1]])
    findings.add(
        (*stuck[name].path, "after"),
        f"the steps wait for each other in a circle: {drawn}; take one of them out of `after`",
    )
    return None


def _check_pivots(
    found: Sequence[Vertex], ancestors: Mapping[str, frozenset[str]], findings: Findings
) -> None:
    for pivot in (one for one in found if one.pivot):
        for other in found:
            if other.name == pivot.name or other.name in ancestors[pivot.name]:
                continue
            if pivot.name not in ancestors[other.name]:
                findings.add(
                    (*pivot.path, "pivot"),
                    f"{pivot.name!r} is a pivot, but {other.name!r} runs beside it; put one of "
                    "them into `after` of the other, so that every step precedes or follows it",
                )
                break


def _check_joins(found: Sequence[Vertex], findings: Findings) -> None:
    for one in found:
        if one.any and len(one.after) < 2:
            findings.add(
                (*one.path, "join"),
                "`any` is a choice between steps; name two or more in `after`",
            )


def _check_open_ends(
    order: Sequence[Vertex], ancestors: Mapping[str, frozenset[str]], findings: Findings
) -> None:
    """Past a `join: any` a step may still run, and so also beside a pivot that comes later."""
    over: dict[str, frozenset[str]] = {}
    for one in order:
        each = [over[name] | {name} for name in one.after]
        none: frozenset[str] = frozenset()
        over[one.name] = (
            none.union(*each) if not (one.any and each) else each[0].intersection(*each[1:])
        )
        running = sorted(ancestors[one.name] - over[one.name])
        if one.pivot and running:
            findings.add(
                (*one.path, "pivot"),
                f"{one.name!r} is a pivot, but {running[0]!r} may still run when it begins, "
                f"since not all joins before it are `all`; put {running[0]!r} into its `after`",
            )
