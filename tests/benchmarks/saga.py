"""The saga that every system runs: three calls, of which the last may be refused.

A measurement counts only if the stub was asked exactly these calls for every saga.
"""

from __future__ import annotations

from dataclasses import dataclass

SERVICES = ("payments", "inventory", "shipping")
"""Each step is another service's; or all are one's, as they are with systems that run a saga inside
one service."""
ONE_SERVICE = ("shop", "shop", "shop")


@dataclass(frozen=True, slots=True)
class Variant:
    """One way for the saga to go: the paths of its three steps, and all calls it takes."""

    name: str
    steps: tuple[str, str, str]
    calls: tuple[str, ...]

    @property
    def last(self) -> str:
        """The path of the third step, the only one that may say no."""
        return self.steps[-1]

    @property
    def undone(self) -> bool:
        """Whether its first two steps are undone in the end."""
        return len(self.calls) > len(self.steps)


COMPLETED = Variant(
    name="completed",
    steps=("/charge", "/reserve", "/ship"),
    calls=("/charge", "/reserve", "/ship"),
)
ROLLED_BACK = Variant(
    name="rolled back",
    steps=("/charge", "/reserve", "/refuse"),
    calls=("/charge", "/reserve", "/refuse", "/undo/reserve", "/undo/charge"),
)
VARIANTS = (COMPLETED, ROLLED_BACK)
