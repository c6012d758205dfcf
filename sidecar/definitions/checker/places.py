"""Findings from who waits for a place while it keeps one: that may be for ever.

A workflow keeps its place until all below it has ended. If its definition occurs again below it,
that one waits for a place of the same key, and may wait for the very one that waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sidecar.definitions.checker.report import Finding, finding
from sidecar.saga.definition import Concurrency, Definition


def findings(definition: Definition, children: Mapping[str, Definition]) -> Iterator[Finding]:
    """One for each definition that takes turns and runs itself; `children` are known by name."""
    known = {**children, definition.name: definition}
    below = {name: _runs(one) for name, one in known.items()}
    for name in sorted({definition.name, *_ways(below, definition.name)}):
        turns = known[name].concurrency if name in known else None
        around = _ways(below, name).get(name)
        if turns is None or around is None:
            continue
        for number, step in enumerate(definition.steps):
            child = step.child.definition if step.child else None
            if child == name or (child and name in _ways(below, child)):
                code, text = _told(turns, name, around)
                yield finding(code, ("steps", number, "workflow"), text, step=step.name)
                break


def _told(turns: Concurrency, name: str, around: tuple[str, ...]) -> tuple[str, str]:
    chain = ", which runs ".join(repr(one) for one in around)
    places = "the only place" if turns.limit == 1 else f"one of {turns.limit} places"
    what = f"{name!r} keeps {places} of its key and runs {chain}"
    if turns.key.constant:
        return "GC135", f"{what} again: that one can wait for the place of the first for ever"
    return "GC136", f"{what} again: with the same key that one can wait for the first for ever"


def _runs(definition: Definition) -> tuple[str, ...]:
    """The names of the children of a definition, each once, in their order."""
    return tuple(dict.fromkeys(one.child.definition for one in definition.steps if one.child))


def _ways(below: Mapping[str, tuple[str, ...]], start: str) -> dict[str, tuple[str, ...]]:
    """All that is below a definition, each with a shortest way to it, without the beginning."""
    found: dict[str, tuple[str, ...]] = {}
    generation: list[tuple[str, tuple[str, ...]]] = [(start, ())]
    while generation:
        coming = []
        for name, way in generation:
            for child in below.get(name, ()):
                if child not in found:
                    found[child] = (*way, child)
                    coming.append((child, found[child]))
        generation = coming
    return found
