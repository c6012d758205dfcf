"""The page of the planted bugs: how many, who must find them, and which nobody can find, and why.

`python -m tests.simulation.mutants.page docs/mutants.md` writes it; a test holds it to the
catalogue. That each is found as it says is another matter: the hunts are tests themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from tests.simulation.mutants.catalogue import MUTANTS
from tests.simulation.mutants.planting import Mutant

_ROOMS = (
    ("the core: `saga`, `definitions`", ("sidecar.saga", "sidecar.definitions")),
    ("the engine", ("sidecar.engine",)),
    ("the store in memory", ("sidecar.adapters.memory", "sidecar.adapters.stores.memory")),
    ("the store on PostgreSQL", ("sidecar.adapters.postgres", "sidecar.adapters.stores.postgres")),
    ("the rest", ("sidecar",)),
)
_HEAD = """# Planted bugs

Tests that find nothing prove nothing. So bugs are planted on purpose, one at a time, and each names
who must find it: the simulation, within so many seeds, or a test. `make test` hunts all of them,
`make check` those that take a moment; `.venv/bin/python -m tests.simulation.mutants [word …]` tells
what found each. This page is made by `python -m tests.simulation.mutants.page docs/mutants.md`.
"""
_SURVIVORS = """
## Those that nobody finds

They change nothing that matters: something else stands in their way. A hunt that finds one of them
fails, since then that is not so any more.
"""


def page() -> str:
    """The whole page."""
    survivors = [one for one in MUTANTS if one.survives]
    found = len(MUTANTS) - len(survivors)
    told = f"\n{found} of {len(MUTANTS)} are found, {found / len(MUTANTS):.1%}.\n\n"
    counts = [_counted(room, mutants) for room, mutants in _by_room()]
    return (
        f"{_HEAD}{told}"
        f"{_table(('where', 'bugs', 'found by the simulation', 'by a test', 'by nobody'), counts)}"
        f"{_SURVIVORS}\n"
        f"{_table(('bug', 'where', 'what stands in its way'), map(_survivor, survivors))}"
    )


def _by_room() -> list[tuple[str, list[Mutant]]]:
    rooms: dict[str, list[Mutant]] = {name: [] for name, _ in _ROOMS}
    for one in MUTANTS:
        where = one.edits[0].where
        rooms[next(name for name, inside in _ROOMS if where.startswith(inside))].append(one)
    return [(name, mutants) for name, mutants in rooms.items() if mutants]


def _counted(room: str, mutants: list[Mutant]) -> tuple[str, ...]:
    nobody = sum(bool(one.survives) for one in mutants)
    tested = sum(bool(one.tests) and not one.survives for one in mutants)
    numbers = (len(mutants), len(mutants) - nobody - tested, tested, nobody)
    return room, *map(str, numbers)


def _survivor(one: Mutant) -> tuple[str, ...]:
    return one.name, f"`{one.edits[0].where}`", one.survives


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
