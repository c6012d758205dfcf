"""The rule of rate limits: the bound holds whatever happens, and a long line costs what it must."""

from __future__ import annotations

import heapq
import random
from datetime import timedelta
from itertools import combinations

import pytest

from sidecar.saga.pacing import Asked, Meter, RateLimit, Turn, give_turns

SECOND = 1_000_000
TEN = RateLimit(10, timedelta(seconds=1))


@pytest.mark.parametrize("seed", range(60))
def test_no_span_holds_more_calls_than_the_limit_and_its_pace(seed: int) -> None:
    """However many ask, come back early or late, or never."""
    draw = random.Random(f"pace {seed}")
    limit = RateLimit(draw.randint(1, 8), timedelta(milliseconds=draw.randint(10, 3000)))
    meter, now = Meter(), SECOND
    away: list[int] = []
    granted: list[int] = []
    for _ in range(60):
        back = [away.pop(draw.randrange(len(away))) for _ in range(draw.randint(0, len(away)))]
        asked = [Asked(one, draw.choice((0, SECOND, 4 * SECOND))) for one in back]
        asked += [Asked(None, draw.choice((0, SECOND))) for _ in range(draw.randint(0, 6))]
        meter, turns = give_turns(limit, meter, asked, now)
        assert all(one.moment >= now for one in turns)
        granted += [one.moment for one in turns if one.granted]
        away += [one.promise for one in turns if not one.granted and draw.random() < 0.9]
        now += draw.choice((0, 1_000, SECOND // 3, 5 * SECOND))
    for (first, one), (last, other) in combinations(enumerate(sorted(granted)), 2):
        assert last - first + 1 <= limit.limit + (other - one) / limit.interval


def test_a_long_line_is_called_in_its_order_and_each_asks_twice_at_most() -> None:
    """And it is over as soon as the limit allows."""
    many, slots = 3_000, 64
    meter, now = Meter(), 1
    due: list[tuple[int, int, int | None]] = [(now, number, None) for number in range(many)]
    asks = [0] * many
    called: list[tuple[int, int]] = []
    while due:
        now = max(now, due[0][0])
        together = [heapq.heappop(due) for _ in range(min(slots, len(due))) if due[0][0] <= now]
        asked = [Asked(promise, 4 * SECOND) for _, _, promise in together]
        meter, turns = give_turns(TEN, meter, asked, now)
        for (_, number, _), turn in zip(together, turns, strict=True):
            asks[number] += 1
            _settle(turn, number, called, due)
    assert [number for _, number in sorted(called)] == list(range(many))
    assert max(asks) == 2
    assert max(called)[0] <= (many - TEN.limit + 1) * TEN.interval


def _settle(
    turn: Turn,
    number: int,
    called: list[tuple[int, int]],
    due: list[tuple[int, int, int | None]],
) -> None:
    if turn.granted:
        called.append((turn.moment, number))
    else:
        heapq.heappush(due, (turn.moment, number, turn.promise))


def test_an_interval_is_rounded_up_so_that_the_limit_is_never_exceeded() -> None:
    assert RateLimit(3, timedelta(seconds=1)).interval == 333_334
    assert RateLimit(1, timedelta(milliseconds=1)).interval == 1_000


def test_a_limit_that_flaps_while_replicas_differ_forgets_nothing_that_was_called() -> None:
    slow = RateLimit(1, timedelta(seconds=10))
    meter, _ = give_turns(TEN, Meter(), [Asked(None, 0)] * 10, SECOND)
    for limit in (slow, TEN) * 5:
        meter, _ = give_turns(limit, meter, [], SECOND)
    _, (turn,) = give_turns(TEN, meter, [Asked(None, 0)], SECOND)
    assert (turn.moment, turn.granted) == (SECOND + TEN.interval, False)


def test_after_an_outage_those_that_are_late_do_not_come_behind_the_whole_line() -> None:
    """And nothing is left unused by it, nor is asked for without end."""
    many, slots, outage = 3_000, 64, (60 * SECOND, 120 * SECOND)
    meter, now = Meter(), 1
    due: list[tuple[int, int, int | None]] = [(now, number, None) for number in range(many)]
    asks = [0] * many
    called: list[tuple[int, int]] = []
    while due:
        now = max(now, due[0][0])
        if outage[0] <= now < outage[1]:
            now = outage[1]
        together = [heapq.heappop(due) for _ in range(min(slots, len(due))) if due[0][0] <= now]
        asked = [Asked(promise, 4 * SECOND) for _, _, promise in together]
        meter, turns = give_turns(TEN, meter, asked, now)
        for (_, number, _), turn in zip(together, turns, strict=True):
            asks[number] += 1
            _settle(turn, number, called, due)
    missed = range(610, 1_200)
    done = {number: moment for moment, number in called}
    assert max(done.values()) <= outage[1] - outage[0] + many * TEN.interval
    assert sum(done[number] for number in missed) / len(missed) <= outage[1] + 2 * (
        outage[1] - outage[0]
    )
    assert sum(asks) <= 4 * many
