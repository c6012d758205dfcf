"""What expressions see of a workflow's steps, looked up only where it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from sidecar.saga.workflow import Step

Of = TypeVar("Of")


class Plain(Mapping[str, Of]):
    """Something of each plain step, as it is at that moment."""

    def __init__(
        self, names: Mapping[str, Any], named: Callable[[str], Step], of: Callable[[Step], Of]
    ) -> None:
        self._names = names
        self._named = named
        self._of = of

    def __getitem__(self, name: str) -> Of:
        if name not in self._names:
            raise KeyError(name)
        return self._of(self._named(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Own(Mapping[str, Of]):
    """The same, with something else for one step: what an item sees of itself."""

    def __init__(self, others: Mapping[str, Of], name: str, own: Of) -> None:
        self._others = others
        self._name = name
        self._own = own

    def __getitem__(self, name: str) -> Of:
        return self._own if name == self._name else self._others[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._others)

    def __len__(self) -> int:
        return len(self._others)
