"""Remembers how the tests of each fault went, when `FAULTS_RECORD` names a file for it.

A test is known by where it is written: the same test of a conformance suite runs once for every
adapter, and it passed only if it passed for all of them.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VARIABLE = "FAULTS_RECORD"

_PLACES: dict[str, str] = {}
_RESULTS: dict[str, list[str]] = defaultdict(list)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Note where each test of a fault is written."""
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("fault"):
            file = Path(item.function.__code__.co_filename).relative_to(ROOT)
            _PLACES[item.nodeid] = f"{file}::{item.originalname}"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note how a test went; what goes wrong around it counts too."""
    place = _PLACES.get(report.nodeid)
    if place is not None and (report.when == "call" or not report.passed):
        _RESULTS[place].append(report.outcome)


def pytest_sessionfinish() -> None:
    """Write what was noted."""
    file = os.environ.get(VARIABLE)
    if file:
        Path(file).write_text(json.dumps(_RESULTS, indent=1), encoding="utf-8")
