"""Plants the bug that the environment names, for the whole life of a pytest process."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.simulation.mutants.catalogue import BY_NAME
from tests.simulation.mutants.planting import planted

VARIABLE = "MUTANT"


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop() -> Iterator[None]:
    """Run the tests with the bug in place."""
    with planted(BY_NAME[os.environ[VARIABLE]]):
        return (yield)
