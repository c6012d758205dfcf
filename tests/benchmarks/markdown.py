"""Figures as one Markdown table: medians of the repeats, with the least and the most."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tests.benchmarks.costs import DRIVER
from tests.benchmarks.measure import Figures

MEASURED = "measured"
LAYERS = "layers"
SCALE = "scale"
IDLE = "idle"
QUIET_CORES = 0.15
"""Up to so many foreign cores a measurement counts as undisturbed."""
_COLUMNS = (
    "saga", "in flight", "system", "sagas/s", "to naive", "p50 ms", "p99 ms",
    "CPU ms per saga", "of it", "MiB", "foreign cores",
)  # fmt: skip


def table(facts: Mapping[str, str], titles: Mapping[str, str], figures: Sequence[Figures]) -> str:
    """The whole section: the facts, the table, and how quiet it was."""
    cells: dict[tuple[str, int, str], list[Figures]] = {}
    for one in figures:
        cells.setdefault((one.variant, one.concurrency, one.system), []).append(one)
    order = list(titles)
    keys = sorted(cells, key=lambda key: (key[0], key[1], order.index(key[2])))
    rows = [_row(titles[key[2]], cells[key], _naive(cells, key)) for key in keys]
    disturbed = sum(one.foreign_cores > QUIET_CORES for one in figures)
    quiet = f"{disturbed} of {len(figures)} measurements had more than {QUIET_CORES} foreign cores"
    listed = [f"- {name}: {value}" for name, value in {**facts, "disturbed": quiet}.items()]
    return "\n".join([*listed, "", *table_of(_COLUMNS, rows)])


def section(facts: Mapping[str, str], head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table under the facts that a reader needs to make it again."""
    listed = [f"- {name}: {facts[name]}" for name in ("command", "date", "revision", "machine")]
    return "\n".join([*listed, "", *table_of(head, rows)])


def write_into(page: Path, text: str, name: str) -> None:
    """Put the text between its markers. Raises `ValueError` as `page_with` does."""
    whole = page_with(page.read_text(encoding="utf-8"), text, name)
    page.write_text(whole, encoding="utf-8")


def table_of(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [_line(head), _line(["---"] * len(head)), *map(_line, rows)]


def markers(name: str) -> tuple[str, str]:
    """What stands before and after a part of a page that is written by a command."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def page_with(page: str, text: str, name: str = MEASURED) -> str:
    """The page with the text between its markers; ValueError if it has not got both, once."""
    begin, end = markers(name)
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"the page must have {begin} and {end} once each")
    before, _, rest = page.partition(begin)
    between, marker, after = rest.partition(end)
    if not marker:
        raise ValueError(f"{end} must follow {begin}")
    return f"{before}{begin}\n{text or between.strip()}\n{end}{after}"


def spread(values: Sequence[float]) -> str:
    """The median, and the least and the most beside it."""
    middle = _number(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} [{_number(min(values))}..{_number(max(values))}]"


def _naive(
    cells: Mapping[tuple[str, int, str], list[Figures]], key: tuple[str, int, str]
) -> list[Figures]:
    variant, concurrency, system = key
    return cells.get((variant, concurrency, f"{system}-naive"), [])


def _row(title: str, repeats: Sequence[Figures], naive: Sequence[Figures]) -> tuple[str, ...]:
    def over(value: Callable[[Figures], float]) -> str:
        return spread([value(one) for one in repeats])

    ratios = [
        one.sagas_per_second / slow.sagas_per_second
        for one, slow in zip(repeats, naive, strict=False)
    ]
    return (
        repeats[0].variant,
        str(repeats[0].concurrency),
        title,
        over(lambda one: one.sagas_per_second),
        f"x {spread(ratios)}" if ratios else "",
        over(lambda one: one.p50),
        over(lambda one: one.p99),
        over(lambda one: one.cpu_of_all),
        _kinds([one.cpu for one in repeats]),
        _kinds([one.memory for one in repeats]),
        over(lambda one: one.foreign_cores),
    )


def _kinds(repeats: Sequence[Mapping[str, float]]) -> str:
    """Medians by kind of process, the driver's left out."""
    return ", ".join(
        f"{kind} {_number(statistics.median(one[kind] for one in repeats))}"
        for kind in repeats[0]
        if kind != DRIVER
    )


def _number(value: float) -> str:
    """Three digits are all that is meant."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
