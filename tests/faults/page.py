"""Makes docs/faults.md: the catalogue, the tests that name its rows, and how they went last."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "faults.md"

_CATALOGUE = Path(__file__).with_name("catalogue.toml")
_RESULT = re.compile(
    r"^\| `(?P<place>[^`]+)` \| (?P<rows>[^|]+) \| (?P<result>[^|]*) \|$", re.MULTILINE
)

HEAD = """# Faults

What GoConductor must survive, by which mechanism, and which tests prove it. The page is made by
`make faults`, which runs the tests named here; the numbers are those that the tests carry.

"""


@dataclass(frozen=True, slots=True)
class Row:
    """One fault. `later` says what a row without a test waits for."""

    number: int
    fault: str
    mechanism: str
    later: str | None = None


def catalogue() -> list[Row]:
    """Return the faults by number."""
    rows = tomllib.loads(_CATALOGUE.read_text(encoding="utf-8"))
    return sorted((Row(int(key), **row) for key, row in rows.items()), key=lambda row: row.number)


def places() -> dict[str, tuple[int, ...]]:
    """Return every test that names faults, as `file::test`, with their numbers."""
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if "mark.fault(" in source:
            file = str(path.relative_to(ROOT))
            found |= {f"{file}::{name}": rows for name, rows in _marked(ast.parse(source))}
    return found


def _marked(tree: ast.Module) -> Iterator[tuple[str, tuple[int, ...]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
                    yield node.name, tuple(ast.literal_eval(one) for one in mark.args)


def last_results(text: str) -> dict[str, str]:
    """Return what an earlier page says of each test."""
    return {found["place"]: found["result"].strip() for found in _RESULT.finditer(text)}


def page(results: Mapping[str, str]) -> str:
    """Return the page; a test without a result has not run yet."""
    tests = places()
    parts = [HEAD, "| | fault | mechanism | tests |\n|---|---|---|---|\n"]
    for row in catalogue():
        proofs = _names(row, tests) or [f"none: {row.later}"]
        parts.append(f"| {row.number} | {row.fault} | {row.mechanism} | {'<br>'.join(proofs)} |\n")
    parts.append("\n## How they went last\n\n| test | faults | result |\n|---|---|---|\n")
    for place, rows in tests.items():
        numbers = ", ".join(map(str, rows))
        parts.append(f"| `{place}` | {numbers} | {results.get(place, 'not run yet')} |\n")
    return "".join(parts)


def _names(row: Row, tests: Mapping[str, Sequence[int]]) -> list[str]:
    return [
        place.rpartition("::")[2].removeprefix("test_").replace("_", " ")
        for place, rows in tests.items()
        if row.number in rows
    ]
