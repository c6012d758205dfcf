"""Which templates a document holds, and what each of them may see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sidecar.definitions.findings import Path
from sidecar.definitions.templates import LIST, TIME, TRUTH, TemplateCompiler, Visible, Wish
from sidecar.saga.definition import Template

_Found = tuple[Path, Any, Visible, Wish | None]


def compile_templates(
    raw: Mapping[str, Any],
    ancestors: Mapping[str, frozenset[str]] | None,
    compiler: TemplateCompiler,
) -> dict[Path, Template]:
    """Compile all. Without an order (None) every step counts as seen by every other."""
    steps = [step if isinstance(step, dict) else {} for step in raw["steps"]]
    known = frozenset(name for step in steps if isinstance(name := step.get("name"), str))
    compiled: dict[Path, Template] = {}
    for index, step in enumerate(steps):
        name = step.get("name")
        name = name if isinstance(name, str) else f"steps[{index}]"
        before = known if ancestors is None else ancestors.get(name, known)
        for path, value, visible, wish in _of_step(step, ("steps", index), name, before, known):
            compiled[path] = compiler.compile(value, path, visible, wish)
    if raw.get("output") is not None:
        compiled["output",] = compiler.compile(
            raw["output"], ("output",), Visible("", known, known)
        )
    turns = raw.get("concurrency")
    if isinstance(turns, dict) and isinstance(key := turns.get("key"), str):
        nothing = Visible("", frozenset(), known)
        compiled["concurrency", "key"] = compiler.compile(key, ("concurrency", "key"), nothing)
    return compiled


def _of_step(
    step: Mapping[str, Any], path: Path, name: str, before: frozenset[str], known: frozenset[str]
) -> Iterator[_Found]:
    once = Visible(name, before, known)
    item = Visible(name, before, known, each="for_each" in step)
    undo = Visible(name, before | {name}, known, each="for_each" in step)
    if isinstance(when := step.get("when"), (bool, str)):
        yield (*path, "when"), when, once, TRUTH
    if isinstance(items := step.get("for_each"), (list, str)):
        yield (*path, "for_each"), items, once, LIST
    turns = step.get("concurrency")
    if isinstance(turns, dict) and isinstance(key := turns.get("key"), str):
        yield (*path, "concurrency", "key"), key, item, None
    wait = step.get("wait")
    if isinstance(wait, dict) and isinstance(until := wait.get("until"), str):
        yield (*path, "wait", "until"), until, once, TIME
    for holder, where, visible in (
        (step, path, item),
        (step.get("execute"), (*path, "execute"), item),
        (step.get("compensate"), (*path, "compensate"), undo),
    ):
        if isinstance(holder, dict) and holder.get("input") is not None:
            yield (*where, "input"), holder["input"], visible, None
