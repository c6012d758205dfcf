"""The tree drawn on top of sidecar/errors.py is that of the classes, and each class is whole."""

from __future__ import annotations

import inspect
import re

from sidecar import errors

DRAWN = re.compile(r"^( {4,})([A-Z]\w+)$")
Tree = dict[str, str | None]


def _drawn() -> Tree:
    """Child → parent, read from the indented lines of the module's docstring."""
    tree: Tree = {}
    branch: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = DRAWN.match(line)
        if found is None:
            continue
        indent, name = len(found.group(1)), found.group(2)
        while branch and branch[-1][0] >= indent:
            branch.pop()
        tree[name] = branch[-1][1] if branch else None
        branch.append((indent, name))
    return tree


def _classes() -> list[type[Exception]]:
    return [
        member
        for _, member in inspect.getmembers(errors, inspect.isclass)
        if member.__module__ == errors.__name__ and issubclass(member, Exception)
    ]


def _real() -> Tree:
    ours = {member.__name__ for member in _classes()}
    return {
        member.__name__: next((b.__name__ for b in member.__bases__ if b.__name__ in ours), None)
        for member in _classes()
    }


def test_the_drawing_is_the_tree() -> None:
    assert _drawn() == _real()


def test_there_is_one_root() -> None:
    assert [name for name, parent in _real().items() if parent is None] == ["GoConductorError"]


def test_each_error_says_what_happened_in_a_sentence() -> None:
    silent = [member.__name__ for member in _classes() if not member.__dict__.get("__doc__")]
    assert not silent, f"no docstring, so no default message: {silent}"


def test_each_error_says_whether_to_retry() -> None:
    mute = [
        member.__name__ for member in _classes() if type(getattr(member, "retry", 0)) is not bool
    ]
    assert not mute, f"`retry` is not a bool: {mute}"


def test_each_error_has_a_stable_code_of_its_own() -> None:
    codes = {member.__name__: getattr(member, "code", None) for member in _classes()}
    assert all(isinstance(code, str) and code for code in codes.values()), codes
    assert len(set(codes.values())) == len(codes), codes
