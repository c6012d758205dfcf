"""One suite per port: classes of tests that each adapter binds with fixtures of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

# The suites are not named test_*, so pytest has to be told to explain their assertions.
pytest.register_assert_rewrite(
    *(f"{__name__}.{path.stem}" for path in Path(__file__).parent.glob("[a-z]*.py"))
)
