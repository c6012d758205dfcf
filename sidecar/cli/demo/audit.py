"""Compares what the workflows say with what the services' books say.

A completed order has exactly one effect in each book, and nothing undone. A rolled back order has
every effect undone, and none applied twice. Whatever differs is told in a sentence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sidecar.cli.demo.ledger import Entry, Fact

COMPLETED = "completed"
ROLLED_BACK = "rolled_back"


@dataclass(frozen=True, slots=True)
class Ended:
    """How one order ended; `amount` is in cents, `calls` counts requests to services."""

    order: str
    amount: int
    status: str
    reason: str
    calls: int


@dataclass(frozen=True, slots=True)
class Money:
    """What the payments book says of one order, in cents."""

    charged: int
    refunded: int


def differences(ended: Sequence[Ended], books: Mapping[str, Sequence[Entry]]) -> list[str]:
    """Every disagreement between the workflows and the books; none if all balances."""
    found: list[str] = []
    for one in ended:
        if one.status not in {COMPLETED, ROLLED_BACK}:
            found.append(f"{one.order} ended neither completed nor rolled back: {one.status}")
            continue
        for service, book in books.items():
            facts = Counter(entry.fact for entry in book if entry.order == one.order)
            wrong = _wrong(one.status, facts[Fact.APPLIED], facts[Fact.UNDONE])
            if wrong is not None:
                found.append(f"{one.order} is {one.status}, but {service} {wrong}")
    found.extend(_money_differences(ended, books.get("payments", ())))
    return found


def money(order: str, payments: Sequence[Entry]) -> Money:
    """What was charged and refunded for one order."""
    return Money(
        charged=_sum(payments, order, Fact.APPLIED), refunded=_sum(payments, order, Fact.UNDONE)
    )


def _wrong(status: str, applied: int, undone: int) -> str | None:
    if applied > 1:
        return f"applied it {applied} times"
    if status == COMPLETED:
        if applied == 0:
            return "never applied it"
        return "undid it" if undone else None
    if applied != undone:
        return f"applied it {applied} times and undid it {undone} times"
    return None


def _money_differences(ended: Sequence[Ended], payments: Sequence[Entry]) -> list[str]:
    kept = sum((account := money(one.order, payments)).charged - account.refunded for one in ended)
    due = sum(one.amount for one in ended if one.status == COMPLETED)
    if kept == due:
        return []
    return [f"payments keeps {kept / 100:.2f}, and completed orders come to {due / 100:.2f}"]


def _sum(payments: Sequence[Entry], order: str, fact: Fact) -> int:
    return sum(entry.amount for entry in payments if (entry.order, entry.fact) == (order, fact))
