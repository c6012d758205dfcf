"""Writes docs/definition.schema.json from the models of the language."""

from __future__ import annotations

import json
from pathlib import Path

from sidecar.definitions.language import language_schema

PAGE = Path(__file__).parents[2] / "docs" / "definition.schema.json"


def page() -> str:
    """The published schema."""
    return json.dumps(language_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
