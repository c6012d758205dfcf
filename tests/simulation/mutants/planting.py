"""Plants a bug: replaces a few words of a function or of an SQL statement.

A function gets another code object, so whoever imported it runs the bug, too; a statement is
replaced in the table that its module looks it up in. Words that are not there any more, or not
only once, are an error: the bug must then be planted anew, or it would prove nothing.
"""

from __future__ import annotations

import importlib
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any


@dataclass(frozen=True, slots=True)
class Edit:
    """Replaces `old` by `new` in a function or a statement.

    `where` names a function like `sidecar.saga.answers:answered`, a statement like
    `sidecar.adapters.postgres.claiming:SQL.due`.
    """

    where: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug, and who must find it.

    Without `tests` the simulation must, `within` so many seeds; with them, at least one of these
    tests must fail. `survives` says why nobody can find it: what else stands in its way.
    `rare` is a bug that takes the simulation more than a moment.
    """

    name: str
    edits: tuple[Edit, ...]
    within: int = 60
    tests: tuple[str, ...] = ()
    survives: str = ""
    rare: bool = False

    @property
    def needs_postgres(self) -> bool:
        """Whether the tests that find it need a real server."""
        return any("test_postgres" in one for one in self.tests)


def simulated(
    name: str, where: str, old: str, new: str, *, within: int = 60, rare: bool = False
) -> Mutant:
    """A bug that the simulation must find."""
    return Mutant(name, (Edit(where, old, new),), within, rare=rare)


def tested(name: str, where: str, old: str, new: str, *tests: str) -> Mutant:
    """A bug that one of these tests must find."""
    return Mutant(name, (Edit(where, old, new),), tests=tests)


def masked(
    name: str, where: str, old: str, new: str, *tests: str, by: str, within: int = 60
) -> Mutant:
    """A bug that changes nothing that matters, and why: neither tests nor simulation find it."""
    return Mutant(name, (Edit(where, old, new),), within, tests=tests, survives=by)


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Run with the bug in place."""
    with ExitStack() as stack:
        for edit in mutant.edits:
            stack.enter_context(_edited(edit))
        yield


@contextmanager
def _edited(edit: Edit) -> Iterator[None]:
    module_name, _, path = edit.where.partition(":")
    module = importlib.import_module(module_name)
    *outer, last = path.split(".")
    found: Any = module
    for name in outer:
        found = getattr(found, name)
    if isinstance(found, dict):
        original = found[last]
        found[last] = _replaced(edit, original)
        try:
            yield
        finally:
            found[last] = original
        return
    function = _function(inspect.getattr_static(found, last))
    # The linecache of a function that is already a mutant shows its original, so edits of one
    # function are made on what the last edit left behind.
    before = _SOURCES.get(edit.where)
    source = _replaced(edit, before or textwrap.dedent(inspect.getsource(function)))
    code, function.__code__ = function.__code__, _compiled(source, module, edit.where, last)
    _SOURCES[edit.where] = source
    try:
        yield
    finally:
        function.__code__ = code
        if before is None:
            del _SOURCES[edit.where]
        else:
            _SOURCES[edit.where] = before


def _replaced(edit: Edit, text: str) -> str:
    times = text.count(edit.old)
    if times != 1:
        raise LookupError(
            f"{edit.where} says {edit.old!r} {times} times, not once: plant the bug anew"
        )
    return text.replace(edit.old, edit.new)


def _compiled(source: str, module: ModuleType, where: str, name: str) -> Any:
    scope: dict[str, Any] = {}
    exec(compile(source, f"<mutant of {where}>", "exec"), module.__dict__, scope)  # noqa: S102
    return _function(scope[name]).__code__


def _function(found: Any) -> FunctionType:
    """What runs behind a property or a decorated function."""
    inner = inspect.unwrap(found.fget if isinstance(found, property) else found)
    if not isinstance(inner, FunctionType):
        raise TypeError(f"{found!r} is no function")
    return inner


_SOURCES: dict[str, str] = {}
