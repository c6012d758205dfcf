"""How the peers are asked for a saga: all by the same words, at their own path."""

from __future__ import annotations

import json
from typing import Any

from tests.benchmarks.saga import Variant
from tests.benchmarks.system import System


class PeerSystem(System):
    """A system whose service takes the number of an order and the path of its last step."""

    path: str

    def question(self, variant: Variant, order: int) -> tuple[str, bytes]:
        """One saga, answered when it has ended."""
        return self.path, json.dumps({"order": order, "last": variant.last}).encode()

    def ended_well(self, variant: Variant, status: int, answer: Any) -> bool:
        """The service says how it ended."""
        wanted = "compensated" if variant.undone else "done"
        return status == 200 and bool(answer["status"] == wanted)
