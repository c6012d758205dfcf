"""Findings from what was explored: each bad way under the code that says what to do about it."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.definitions.checker.exploring import Explored, Flaw, Method, Way
from sidecar.definitions.checker.report import Finding, finding
from sidecar.definitions.checker.words import drawing, events
from sidecar.definitions.findings import Path
from sidecar.saga.definition import Definition, StepDefinition

_KEYS = {
    "when": ("when",),
    "for_each": ("for_each",),
    "wait": ("wait",),
    "input": ("input",),
    "concurrency": ("concurrency", "key"),
}


class Proof:
    """The findings of one exploration of an abstract definition."""

    def __init__(self, definition: Definition, explored: Explored) -> None:
        self._definition = definition
        self._explored = explored
        self._place = {step.name: number for number, step in enumerate(definition.steps)}

    def findings(self) -> Iterator[Finding]:
        """All of them."""
        yield from self._not_undone()
        for (flaw, name), way in self._ways():
            if flaw is Flaw.STUCK_AHEAD:
                text = f"{name!r} can fail by itself, and the workflow cannot turn back any more"
                yield self._of(way, "GC106", text)
            elif flaw is Flaw.LEFT:
                yield self._of(way, "GC107", self._left(self._definition.by_name[name]))
            elif flaw is Flaw.LIMBO:
                yield self._of(way, "GC108", "the workflow is open, but nothing can happen")
        yield from self._absent()
        if self._explored.method is Method.BOUNDED:
            text = f"the search stopped at {self._explored.transitions} transitions"
            yield finding("GC190", (), text)
        else:
            yield from self._never_done()

    def _ways(self) -> list[tuple[tuple[Flaw, str], Way]]:
        """The bad ways in the order of their steps."""
        ways = self._explored.ways.items()
        return sorted(ways, key=lambda one: (self._place.get(one[0][1], -1), one[0][0]))

    # -- effects that cannot be undone --------------------------------------------------------

    def _not_undone(self) -> Iterator[Finding]:
        ways = {name: way for (flaw, name), way in self._ways() if flaw is Flaw.NOT_UNDONE}
        free: list[str] = []
        for name, way in ways.items():
            code, text = self._reason(name)
            yield self._of(way, code, text)
            if code != "GC105":
                free.append(name)
        if len(free) > 1:
            text = f"{_listed(free)} cannot be undone, and each of them needs the others to succeed"
            yield self._of(ways[free[-1]], "GC103", text, drawn=False)

    def _reason(self, name: str) -> tuple[str, str]:
        definition = self._definition
        if definition.by_name[name].pivot or definition.past_pivot(name):
            return "GC105", f"{name!r} may have been done when an earlier step turns it all back"
        after, before = definition.descendants[name], definition.ancestors[name]
        beside = [
            one.name
            for one in definition.steps
            if one.name not in {name, *after, *before} and can_fail(definition, one)
        ]
        if beside:
            text = f"{name!r} cannot be undone, and {_listed(beside)} beside it can fail"
            return "GC102", text
        later = [one.name for one in definition.steps
                 if one.name in after and can_fail(definition, one)]  # fmt: skip
        if later:
            text = f"{name!r} cannot be undone, and {_listed(later)} after it can fail"
            return "GC101", text
        return "GC104", (
            f"{name!r} cannot be undone, but the workflow turns back if its outcome stays unknown, "
            "or if it is cancelled meanwhile"
        )

    def _left(self, step: StepDefinition) -> str:
        if step.optional:
            return (
                f"{step.name!r} is optional: if its outcome stays unknown, the workflow completes "
                "and whatever it did stays"
            )
        return (
            f"items of {step.name!r} may fail: if the outcome of one stays unknown, the workflow "
            "completes and whatever it did stays"
        )

    # -- outputs that are not there -----------------------------------------------------------

    def _absent(self) -> Iterator[Finding]:
        for absent, moves in self._explored.absent.items():
            role, read = absent.role, absent.read
            way = events(self._definition, moves)
            whose = "its own output" if read == role.step else f"the output of {read!r}"
            if role.key == "compensate":
                path = (*self._path(role.step), "compensate")
                why = "its outcome stays unknown" if read == role.step else f"{read!r} gave none"
                text = f"what undoes {role.step!r} reads {whose}, which is absent if {why}"
                known = self._explored.ways.get((Flaw.NOT_RENDERED, role.step))
                if known is None:
                    yield finding("GC111", path, text, step=role.step, way=way)
                else:
                    yield self._of(known, "GC111", text, path=path)
            elif role.step:
                path = (*self._path(role.step), *_KEYS[role.key])
                text = f"`{role.key}` of {role.step!r} reads {whose}, which is absent on this way"
                yield finding("GC112", path, text, step=role.step, way=way)
            else:
                text = f"`output` reads {whose}, which is absent on this way"
                yield finding("GC113", ("output",), text, way=way)

    def _never_done(self) -> Iterator[Finding]:
        for step in self._definition.steps:
            if step.name not in self._explored.opened:
                constant = step.when is not None and step.when.constant
                why = "its `when` is always false" if constant else "no way leads to it"
                text = f"{step.name!r} is never done: {why}"
                yield finding("GC121", self._path(step.name), text, step=step.name)

    # -- what all share -----------------------------------------------------------------------

    def _path(self, name: str) -> Path:
        return ("steps", self._place[name]) if name else ()

    def _of(
        self, way: Way, code: str, text: str, *, path: Path | None = None, drawn: bool = True
    ) -> Finding:
        return finding(
            code,
            self._path(way.step) if path is None else path,
            text,
            step=way.step or None,
            way=events(self._definition, way.moves) if drawn else (),
            drawing=drawing(self._definition, way) if drawn else "",
        )


def can_fail(definition: Definition, step: StepDefinition) -> bool:
    """Whether a step can turn the workflow back: what is past a pivot is assumed not to."""
    if step.optional or definition.past_pivot(step.name):
        return False
    if step.wait is not None:
        return step.wait.signal is not None and step.wait.timeout is not None
    return step.when is None or not step.when.constant or step.when.source == "true"


def _listed(names: list[str]) -> str:
    shown = [repr(name) for name in names[:3]]
    if len(names) > 3:
        return f"{', '.join(shown)} and {len(names) - 3} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
