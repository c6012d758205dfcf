"""How often limited paths were called, by the ledger, whose lines have one clock.

What a sidecar may do with a turn it may do up to a second after it; and a service on a busy machine
writes a line later than it was asked. Both make calls seem closer together than they were promised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tests.chaos.book import Entry
from tests.chaos.expectations import Rate, Rule, Violation

_TURN_IS_GOOD_FOR_S = 1.0
_WRITTEN_WITHIN_S = 1.0


def of_rates(entries: Sequence[Entry], rates: Mapping[str, Rate]) -> Iterator[Violation]:
    """In no span of time a path is called more often than a rest before it and the span allow."""
    for path, rate in rates.items():
        times = sorted(one.at for one in entries if one.path == path and not one.later)
        often = rate.limit / rate.per_s
        most = rate.limit + (_TURN_IS_GOOD_FOR_S + _WRITTEN_WITHIN_S) * often
        # The fullest span that ends with a call began where calls were furthest behind.
        least = float("inf")
        for number, at in enumerate(times):
            least = min(least, number - at * often)
            if number + 1 - at * often - least > most:
                text = f"{path} was called too often: {number + 1} times until then, and {rate}"
                yield Violation(Rule.RATE, text)
                break
