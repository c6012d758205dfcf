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

    What it races takes eight, and must be met at each of them.
    """
    for _ in range(turn % 12):
        await store.ping()
    return await work()
