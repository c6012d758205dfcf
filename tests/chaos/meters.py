"""What sidecars tell of themselves: the counters of their metrics, and what their processes take.

They prove nothing about workflows. They tell whether a fault was felt, and whether doorbells had
a part in the work. `harvest` adds a sidecar's counters to those of the world, where
`Expectations.at_least` finds them: what is new in them, and before the end of its process.

    bells:RESULT                     doorbells by what they led to (`claimed`, `given_up`, ...)
    bells:SIDECAR:RESULT             the same of one sidecar
    lost:SIDECAR, rung:SIDECAR       doorbells that could not be published, and that were
    rebuilt:PART:WHY                 clients of the queue (`member`, `publisher`) replaced
    looks:some, looks:none           looks into the store
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from urllib.request import urlopen

from tests.chaos.sidecars import Sidecar
from tests.chaos.world import World

_SAMPLE = re.compile(r"goconductor_(?P<name>\w+)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class Meter:
    """The counters of one sidecar as they are now. Raises `OSError` if it does not answer."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._samples: list[tuple[str, dict[str, str], float]] = []
        with urlopen(f"http://127.0.0.1:{sidecar.metrics}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if found := _SAMPLE.fullmatch(line):
                    labels = dict(_LABEL.findall(found["labels"] or ""))
                    self._samples.append((found["name"], labels, float(found["value"])))

    def total(self, metric: str, **labels: str) -> int:
        """The sum of a metric over all samples that have these labels."""
        return round(
            sum(
                value
                for name, has, value in self._samples
                if name == metric and labels.items() <= has.items()
            )
        )

    def labelled(self, metric: str, *labels: str) -> Counter[tuple[str, ...]]:
        """The samples of a metric by the values of these labels."""
        found: Counter[tuple[str, ...]] = Counter()
        for name, has, value in self._samples:
            if name == metric:
                found[tuple(has[one] for one in labels)] += round(value)
        return found

    @property
    def heard(self) -> int:
        """Doorbells that led to anything at all."""
        return self.total("doorbells_received_total")

    @property
    def claims(self) -> int:
        """Steps claimed by a doorbell."""
        return self.total("doorbells_received_total", result="claimed")

    @property
    def lost(self) -> int:
        """Doorbells that could not be published."""
        return self.total("doorbells_lost_total")


def harvest(world: World, *names: str) -> None:
    """Add to the world's counters what those of these sidecars (left out: of all) have grown by."""
    for name in names or tuple(world.sidecars):
        sidecar = world.sidecars[name]
        told = _told(sidecar)
        world.counts.update(told - sidecar.harvested)
        sidecar.harvested = told


def begin_test(world: World) -> None:
    """Let what a test must have shown count from now on, in a world that others have harmed."""
    harvest(world)
    world.count_anew()


def _told(sidecar: Sidecar) -> Counter[str]:
    meter, name, counts = Meter(sidecar), sidecar.name, Counter[str]()
    for (result,), number in meter.labelled("doorbells_received_total", "result").items():
        counts[f"bells:{result}"] += number
        counts[f"bells:{name}:{result}"] += number
    counts[f"lost:{name}"] += meter.lost
    counts[f"rung:{name}"] += meter.total("doorbells_rung_total")
    for (part, why), number in meter.labelled("queue_rebuilds_total", "part", "why").items():
        counts[f"rebuilt:{part}:{why}"] += number
    for (found,), number in meter.labelled("looks_total", "found").items():
        counts[f"looks:{found}"] += number
    return counts


def resident_bytes(sidecar: Sidecar) -> int:
    """The memory that a sidecar's process has now."""
    pages = Path(f"/proc/{sidecar.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
