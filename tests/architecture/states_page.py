"""Writes docs/states.md from the transition tables."""

from __future__ import annotations

from pathlib import Path

from sidecar.saga.diagrams import page

PAGE = Path(__file__).parents[2] / "docs" / "states.md"

if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
