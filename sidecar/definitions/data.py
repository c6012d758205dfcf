"""What the expressions of one transition read: measured once, converted once, and paid for.

Only what an expression names is handed to the CEL library, and expressions that name the same
share it: a fan-out of a thousand steps that all read one large list converts it once. Of a table
that an item picks one member from, only that member is handed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sidecar.definitions.cost import Measured, measure
from sidecar.definitions.work import Work

Chain = tuple[str, ...]
"""A chain of names, a variable first: `("input", "items")`."""


class Data:
    """Plain data by the names of variables. `work` pays, and may be exchanged for another."""

    def __init__(self, values: Mapping[str, Any], work: Work | None = None) -> None:
        self.work = work or Work()
        self._values = values
        self._measured: dict[Chain, tuple[Any, Measured]] = {}
        self._converted: dict[tuple[Chain, ...], tuple[list[Any], Any]] = {}

    def follow(self, chain: Chain) -> tuple[Any, int]:
        """Follow a chain: the value where it ends, and how many of its names were found."""
        value: Any = self._values
        for depth, name in enumerate(chain):
            if not isinstance(value, Mapping) or name not in value:
                return value, depth
            value = value[name]
        return value, len(chain)

    def measured(self, chain: Chain) -> Measured:
        """How large the value of a chain is; what is not there weighs as null does."""
        value, depth = self.follow(chain)
        value = value if depth == len(chain) else None
        known = self._measured.get(chain)
        if known is None or known[0] is not value:
            known = self._measured[chain] = (value, measure(value, self.work))
        return known[1]

    def picked(self, chain: Chain, key: Chain) -> Chain:
        """Of the object at `chain` only the member that `key` names; the whole, if it is none."""
        value, depth = self.follow(chain)
        name, found = self.follow(key)
        known = depth == len(chain) and found == len(key)
        if known and isinstance(value, Mapping) and isinstance(name, str):
            return (*chain, name)
        return chain

    def converted(
        self, chains: tuple[Chain, ...], convert: Callable[[Mapping[str, Any]], Any]
    ) -> Any:
        """Return what `convert` makes of the data that `chains` name, and of nothing else.

        No chain may begin with another one.
        """
        values = [self.follow(chain)[0] for chain in chains]
        known = self._converted.get(chains)
        if known is None or any(a is not b for a, b in zip(known[0], values, strict=True)):
            self.work.spend(sum(self.measured(chain).converting for chain in chains))
            known = self._converted[chains] = (values, convert(self._only(chains)))
        return known[1]

    def _only(self, chains: tuple[Chain, ...]) -> dict[str, Any]:
        """The data without what no chain leads to."""
        only: dict[str, Any] = {}
        for chain in chains:
            value: Any = self._values
            inside = only
            for depth, name in enumerate(chain, start=1):
                if name not in value:
                    break
                value = value[name]
                if depth == len(chain) or not isinstance(value, Mapping):
                    inside[name] = value
                    break
                inside = inside.setdefault(name, {})
        return only


def outermost(chains: list[Chain]) -> tuple[Chain, ...]:
    """The chains without those that another one contains."""
    kept: list[Chain] = []
    for chain in sorted(set(chains)):
        if not kept or chain[: len(kept[-1])] != kept[-1]:
            kept.append(chain)
    return tuple(kept)
