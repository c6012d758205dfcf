"""What a batch claims: the parts of its one statement that come after what it writes.

Claims never wait for a row. What is due is found by an index in the order of the priorities, what a
doorbell or a timer names by its key; both by one predicate. A batch that is sent again finds what
it claimed the first time under its ticket.
"""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.adapters.postgres.sql import load

SQL = load(__file__)

UNDER_TICKET = ("under_ticket", "none_refused", "held")
"""The parts of a statement that claims nothing, and finds what was claimed."""


def claiming_parts(*, due: bool, named: bool) -> Iterator[str]:
    """Name the parts for claims of what is due, of steps that are named, of both, of neither."""
    if due:
        yield "due"
    if named:
        yield "named"
    if due or named:
        yield "by_both" if due and named else "by_due" if due else "by_name"
    yield "taken" if due or named else "none_taken"
    yield "refused" if named else "none_refused"
    yield "held"
