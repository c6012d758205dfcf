"""How two sidecars race: who is ahead changes from turn to turn, and by how much."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from sidecar.adapters.stores.postgres import PostgresStore

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")

LAG = 12
"""How many round trips somebody is behind at most; what it races takes eight."""

ROUNDS = int(os.environ.get("RACES", "100"))
"""How often each race is run; `make chaos` runs ten thousand."""

long = pytest.mark.timeout(60 + ROUNDS // 10)


async def race(turn: int, one: Awaitable[A], other: Awaitable[B]) -> tuple[A, B]:
    """Let both run at once, now the one a little ahead and now the other."""
    if turn % 2:
        second, first = await asyncio.gather(other, one)
        return first, second
    first, second = await asyncio.gather(one, other)
    return first, second


async def behind(store: PostgresStore, turn: int, work: Callable[[], Awaitable[A]]) -> A:
    """Do what takes one statement so many round trips later, other ones in each turn.

    What it races must be met at each of its statements.
    """
    await _fall_behind(store, turn % LAG)
    return await work()


async def neck_and_neck(
    turn: int,
    one: PostgresStore,
    work: Callable[[], Awaitable[A]],
    other: PostgresStore,
    others: Callable[[], Awaitable[B]],
) -> tuple[A, B]:
    """Race two that take equally long: in every other turn the one is behind, else the other."""

    async def late(store: PostgresStore, is_late: bool, does: Callable[[], Awaitable[C]]) -> C:
        await _fall_behind(store, turn // 2 % LAG if is_late else 0)
        return await does()

    first, second = turn % 2 == 0, turn % 2 == 1
    return await race(turn, late(one, first, work), late(other, second, others))


async def _fall_behind(store: PostgresStore, trips: int) -> None:
    for _ in range(trips):
        await store.ping()
