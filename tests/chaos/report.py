"""What is said of a run that went wrong: everything that its reader will want to see first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from tests.chaos.expectations import Violation
from tests.chaos.ledger import Ledger
from tests.chaos.rows import Rows
from tests.chaos.sidecars import Sidecar

_VIOLATIONS = 40
_WORKFLOWS = 3
_TAIL_LINES = 15
_LINE_LENGTH = 400


class ChaosError(AssertionError):
    """The run went wrong; its text is the report."""


class Told(Protocol):
    """What a report looks at."""

    sidecars: dict[str, Sidecar]
    ledger: Ledger

    def rows(self) -> Rows: ...

    def tally(self) -> Mapping[str, int]: ...


def report(seed: int, what: str, found: Sequence[Violation], world: Told) -> ChaosError:
    """Tell the seed, what is wrong, the first workflows at fault, and the ends of all logs."""
    lines = [f"seed {seed}: {what}"]
    lines += [str(one) for one in found[:_VIOLATIONS]]
    if len(found) > _VIOLATIONS:
        lines.append(f"... and {len(found) - _VIOLATIONS} more")
    try:
        lines.append(f"what happened: {dict(sorted(world.tally().items()))}")
        lines += _workflows(found, world)
    except Exception as error:  # noqa: BLE001  (a database that is away must not hide the rest)
        lines.append(f"the tables could not be read: {error}")
    for name, sidecar in world.sidecars.items():
        lines.append(f"--- {name}{'' if sidecar.alive else ' (not running)'}")
        lines += [line[:_LINE_LENGTH] for line in sidecar.tail(_TAIL_LINES).splitlines()]
    lines += ["--- ledger", world.ledger.tail()]
    return ChaosError("\n".join(lines))


def _workflows(found: Sequence[Violation], world: Told) -> Iterator[str]:
    rows, entries = world.rows(), world.ledger.entries()
    wanted = list(dict.fromkeys(one.workflow for one in found if one.workflow))[:_WORKFLOWS]
    for workflow in wanted:
        yield from (f"--- {row}" for row in rows.workflows if row.id == workflow)
        yield from (str(row) for row in rows.steps if row.workflow == workflow)
        for event in rows.events:
            if event.workflow == workflow:
                moved = f"{event.before} -> {event.after} ({event.cause})"
                which = f"{event.kind} {event.step or ''} {event.action or ''}"
                yield f"{event.seq:4} {event.time:.3f} {which} {event.attempt or ''} {moved}"
        for entry in entries:
            if entry.workflow == workflow:
                told = f"{entry.fact} own {entry.own} told {entry.status} fault {entry.fault}"
                yield f"     {entry.wall:.3f} {entry.step} {entry.action} {entry.attempt} {told}"
