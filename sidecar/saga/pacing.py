"""How often an action may be called: the generic cell rate algorithm, with a line to stand in.

The algorithm is that of ITU-T Recommendation I.371, annex A, and of the ATM Forum's Traffic
Management Specification 4.0 ("virtual scheduling"): a meter is one moment, the theoretical arrival
time of the next call; a call conforms from that moment minus a tolerance on, and moves it on by the
interval between two calls. With `limit` calls `per` span the interval is `per / limit` and the
tolerance `limit - 1` intervals, so an action that has rested may be called `limit` times at once,
and in any span W at most `limit + W / interval` times.

There are two such meters for each action, since a moment may lie far ahead, and whoever was given
it may be late for it:

- `promised` says when whoever asks now has its turn. A turn that is too far off to be waited for is
  kept as a promise, and whoever comes back with it is not put at the end again.
- `called` counts what is really granted. So promises that nobody came for in time do not add up to
  a burst: they are granted one after the other. Whoever comes back too early keeps its turn.

Those that are late, and for whom that takes too long, keep their promise, by which they go before
others that ask together with them, and are told to come back at moments that `late` spaces out by
the same interval: behind others that are late, not behind the whole line.

A limit may change while a line stands. What was granted is then counted by the new interval, so
that as many calls are outstanding as before. If calls may come faster the line of promises is given
up and begins anew: turns that lie behind its new end are not kept, and the others come when due.

All numbers are whole microseconds; moments count from 1970 by the clock of the store. The same
rule is written a second time as one statement for PostgreSQL, and played side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

NEW_PATIENCE_US = 1_000_000
"""How far off the turn of a new call may be to be waited for by the sidecar: longer waits would
take slots from calls that are not limited. One that comes with a promise is waited for longer."""

KEPT_US = 3_600_000_000
"""For how long a promise is kept when nobody comes back with it at the time that was told."""

KEPT_GRANTED_US = 300_000_000
"""For how long one is kept that was granted: the call may not have been made, or the service may
have said "not now", and then the same try has its place still."""

_MICROSECOND = timedelta(microseconds=1)


class RateLimit(NamedTuple):
    """At most `limit` calls `per` span over all replicas; after a rest `limit` of them at once."""

    limit: int
    per: timedelta

    @property
    def interval(self) -> int:
        """Microseconds from one call to the next, rounded up: the limit is never exceeded by it."""
        return -(-(self.per // _MICROSECOND) // self.limit)

    @property
    def tolerance(self) -> int:
        """How many microseconds a call may come before its theoretical time."""
        return self.interval * (self.limit - 1)


class Meter(NamedTuple):
    """The theoretical arrival times of an action: of the next promise, and of the next call.

    `interval` is that of the limit by which they were told last, 0 if none was. `late` is when the
    next one that is late comes back, at the earliest.
    """

    promised: int = 0
    called: int = 0
    interval: int = 0
    late: int = 0


class Asked(NamedTuple):
    """One call that wants its turn: what it was promised earlier, and how long it can wait."""

    promise: int | None
    patience: int


class Turn(NamedTuple):
    """When a call has its turn; it may be made then only if it is `granted`.

    Otherwise it asks again at that moment, by its `promise`. `promised` says that it came with it.
    """

    moment: int
    granted: bool
    promise: int
    promised: bool


def give_turns(
    limit: RateLimit, meter: Meter, asked: Sequence[Asked], now: int
) -> tuple[Meter, list[Turn]]:
    """Give turns to those who ask at the same time, in their order; return the meter after it."""
    interval, tolerance = limit.interval, limit.tolerance
    meter = _told_by(interval, meter, now)
    end = max(meter.promised, now)
    behind = max(now, end - tolerance)
    asked = [one._replace(promise=None) if (one.promise or 0) > behind else one for one in asked]
    promised = end
    promises: list[int] = []
    for one in asked:
        if one.promise is None:
            promises.append(max(now, promised - tolerance))
            promised += interval
        else:
            promises.append(one.promise)
    turns: dict[int, Turn] = {}
    theoretical, called, late = meter.called, meter.called, meter.late
    for at in sorted(range(len(asked)), key=lambda place: (promises[place], place)):
        one, arrival = asked[at], max(promises[at], now)
        moment = max(arrival, theoretical - tolerance)
        theoretical = max(theoretical, arrival) + interval
        longest = NEW_PATIENCE_US if one.promise is None else one.patience
        granted = moment - now <= min(one.patience, longest)
        if granted:
            called = theoretical
        elif one.promise is not None and one.promise <= now:
            moment = max(moment, late)
            late = moment + interval
        turns[at] = Turn(moment, granted, promises[at], one.promise is not None)
    kept = meter.promised if promised == end else promised
    return Meter(kept, called, interval, late), [turns[at] for at in range(len(asked))]


def _told_by(interval: int, meter: Meter, now: int) -> Meter:
    """The meter of a limit that was another when it was read last."""
    if meter.interval in (0, interval):
        return meter
    called = meter.called
    if called > now:
        called = now - (now - called) * interval // meter.interval
    if interval < meter.interval:
        return Meter(0, called, interval)
    return Meter(meter.promised, called, interval, meter.late)
