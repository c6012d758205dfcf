"""Every fault by itself, and every two together."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from sidecar.definitions.simulator.faults import Fault, every_fault
from sidecar.definitions.simulator.running import Run, Scenario, simulate
from sidecar.definitions.simulator.samples import Samples
from sidecar.saga.definition import Definition

MOST_RUNS = 5_000


@dataclass(frozen=True, slots=True)
class Matrix:
    """The runs, the one without a fault first; `left_out` is how many there was no room for."""

    runs: tuple[Run, ...]
    left_out: int = 0

    @property
    def keeps_the_promise(self) -> bool:
        """Whether each of them ended all done, all undone, or in `error` for a person."""
        return all(run.keeps_the_promise for run in self.runs) and not self.left_out


def every_run(
    definition: Definition, scenario: Scenario, *, pairs: bool = False, most: int = MOST_RUNS
) -> Matrix:
    """Run a scenario once for every fault, and, if wanted, for every two of different steps."""
    samples = Samples(definition, scenario.outputs, scenario.input)
    plans = list(_plans(definition, scenario, pairs=pairs))
    runs = [
        simulate(definition, dataclasses.replace(scenario, faults=faults), samples)
        for faults in plans[:most]
    ]
    return Matrix(tuple(runs), max(0, len(plans) - most))


def _plans(
    definition: Definition, scenario: Scenario, *, pairs: bool
) -> Iterator[tuple[Fault, ...]]:
    always = scenario.faults
    single = [one for one in every_fault(definition) if one not in always]
    yield always
    yield from ((*always, one) for one in single)
    if pairs:
        for one, other in itertools.combinations(single, 2):
            if one.step != other.step:
                yield (*always, one, other)
