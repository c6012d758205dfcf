"""Hunts bugs and tells what found each: `python -m tests.simulation.mutants [word …]`."""

from __future__ import annotations

import sys
import time

from tests.simulation.mutants.catalogue import MUTANTS
from tests.simulation.mutants.hunting import hunt
from tests.simulation.mutants.planting import Mutant


def main(words: list[str]) -> int:
    """Hunt the bugs whose names hold all of `words`; 1 unless each is found, or masked."""
    chosen = [one for one in MUTANTS if all(word in one.name for word in words)]
    killed = wrong = 0
    for mutant in chosen:
        began = time.monotonic()
        found = hunt(mutant)
        killed += found is not None
        wrong += (found is None) is not bool(mutant.survives)
        print(f"{mutant.name}\n    in      {', '.join(one.where for one in mutant.edits)}")
        print(f"    {_told(mutant, found)}   ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"{killed} of {len(chosen)} killed; {wrong} not as they should be")
    return 1 if wrong or not chosen else 0


def _told(mutant: Mutant, found: str | None) -> str:
    if found is not None:
        return f"killed  {found[:300]}"
    return f"lives   {mutant.survives or 'and should not'}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
