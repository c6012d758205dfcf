"""How long the checker takes: `python -m tests.benchmarks.checker`.

Chains, diamonds and wide graphs of 5, 10 and 20 steps; each built of steps that are alike, and of
steps of four kinds, so that no branch can stand for another.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sidecar.definitions.checker import Limits, check
from sidecar.saga.definition import Compensation, Definition, StepDefinition, Template

SIZES = (5, 10, 20)
_UNDO = Compensation("/undo")
KINDS: tuple[dict[str, Any], ...] = (
    {"compensation": _UNDO},
    {"compensation": _UNDO, "when": Template("null", constant=False)},  # type: ignore[arg-type]
    {"no_effect": True},
    {"no_effect": True, "optional": True},
)
BRANCHES = 4


def step(name: str, *after: str, kind: int = 0) -> StepDefinition:
    """A step of one of the kinds."""
    return StepDefinition(name, "svc", f"/{name}", after, **KINDS[kind % len(KINDS)])


def chain(size: int, kinds: int) -> list[StepDefinition]:
    """One after the other."""
    names = [f"s{number}" for number in range(size)]
    before = [(), *((name,) for name in names)]
    return [step(name, *before[place], kind=place % kinds) for place, name in enumerate(names)]


def diamond(size: int, kinds: int) -> list[StepDefinition]:
    """Four branches between a first and a last step."""
    steps = [step("first")]
    ends = ["first"] * BRANCHES
    for number in range(size - 2):
        branch = number % BRANCHES
        name = f"b{branch}_{number // BRANCHES}"
        steps.append(step(name, ends[branch], kind=(number // BRANCHES + branch) % kinds))
        ends[branch] = name
    return [*steps, step("last", *dict.fromkeys(ends))]


def wide(size: int, kinds: int) -> list[StepDefinition]:
    """All at once, but for the last."""
    names = [f"s{number}" for number in range(size - 1)]
    steps = [step(name, kind=place % kinds) for place, name in enumerate(names)]
    return [*steps, step("last", *names)]


SHAPES: tuple[Callable[[int, int], list[StepDefinition]], ...] = (chain, diamond, wide)


def main() -> None:
    """Print one line for each graph."""
    print(f"{'graph':<24}{'steps':>6}{'seconds':>9}{'states':>8}{'moves':>8}  method, verdict")
    for shape in SHAPES:
        for kinds, what in ((1, "all alike"), (len(KINDS), "of four kinds")):
            for size in SIZES:
                definition = Definition("flow", 1, tuple(shape(size, kinds)))
                began = time.perf_counter()
                report = check(definition, limits=Limits(clock=time.perf_counter))
                took = time.perf_counter() - began
                print(
                    f"{f'{shape.__name__}, {what}':<24}{size:>6}{took:>9.2f}{report.states:>8}"
                    f"{report.transitions:>8}  {report.method}, {report.verdict}"
                )


if __name__ == "__main__":
    main()
