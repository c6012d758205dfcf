"""What rendering may cost: one budget for all that one transition renders.

A transition is decided under its workflow's lock and on the only event loop there is, so what
it takes is bounded before it is done, in units of work of some 5 ns. A budget for each
expression, or for each template, would not do: a definition may hold thousands of them.

What cannot be known beforehand is paid afterwards: it is bounded by something that was paid.
"""

from __future__ import annotations

from sidecar.errors import RenderError

MOST_WORK = 20_000_000
"""What one transition may spend; some 100 ms."""
MOST_FORWARD = 12_000_000
"""What it may spend of that on the inputs of steps: when one of them turns the workflow back,
something is left for the inputs of compensations."""

LIST = 130
"""Of reading JSON: a list, above all for the garbage collector."""
OBJECT = 30
MEMBER = 40
"""Of reading JSON: a name and its value in an object."""
ELEMENT = 3
CHARACTERS = 5
"""Of reading or copying text: so many characters for one unit."""

WEIGH = 5
"""Of looking what reading a body will cost: so many characters for one unit."""
SLOWLY = 10
"""Of reading or writing JSON in the slow way: one character more."""

LOOK = 25
"""Of walking over data in Python: one value."""
CONVERT = 50
"""Of handing data to the CEL library, and of taking it back: one element of a list. A member
of an object counts three times."""
TAKE = 250
"""Of taking one value out of a result that cannot be taken as a whole."""
WRITE = 3
"""Of writing JSON: one character."""
SLOT = 200
"""Of filling one place of a template."""
NODE = 800
"""Of bounding the work of an expression: one node of its tree."""
PLAIN_NODE = 60
"""Of the same where the bound was found beforehand, up to the sizes of what is read."""
EVALUATE = 1_000
"""Of evaluating any expression at all."""


class Work:
    """The budget of one transition."""

    def __init__(self, most: float = MOST_FORWARD) -> None:
        self._most = most
        self._left = most

    @property
    def done(self) -> float:
        """The units of work that were spent."""
        return self._most - self._left

    def spend(self, units: float) -> None:
        """Pay for what is about to be done. Raises `RenderError`; then nothing is paid."""
        if not units <= self._left:  # also for what is not a number
            self._refuse(alone=units > self._most)
        self._left -= units

    def spent(self, units: float) -> None:
        """Pay for what was done. Raises `RenderError` if it was too much."""
        enough = units <= self._left
        self._left = max(0.0, self._left - units)
        if not enough:
            self._refuse(alone=units > self._most)

    def _refuse(self, *, alone: bool) -> None:
        together = "" if alone else ", together with what is rendered at the same time"
        raise RenderError(f"it would take too much time or memory on this data{together}")
