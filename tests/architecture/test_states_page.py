"""The drawn states are the real ones."""

from __future__ import annotations

from sidecar.saga.diagrams import page
from tests.architecture.states_page import PAGE


def test_the_page_is_what_the_tables_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "run: python -m tests.architecture.states_page"
    )
