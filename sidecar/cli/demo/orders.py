"""The batch of orders, and the trouble that awaits each.

Both follow from the order's number alone, so that every run of the demo shows the same. A refusal
is in the order's own data (an amount over the limit, an item out of stock, an address that
nobody delivers to). A trouble is in the service that meets the order.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

LIMIT = 100_000
"""The most that the demo's payments service charges at once, in cents."""

OUT_OF_STOCK = "sundial"
UNDELIVERABLE = "Atlantis"


class Trouble(StrEnum):
    """How a service misbehaves when it meets an order."""

    FAILS_AFTER_ACTING = "answers 500 after acting"
    SLOW_AFTER_ACTING = "acts, then answers too late"
    RESETS_AFTER_ACTING = "acts, then breaks the connection"
    UNAVAILABLE = "answers 503 at first"
    ALWAYS_FAILS_AFTER_ACTING = "acts, then answers 500 every time"
    ALWAYS_RESETS = "breaks the connection every time, before acting"


@dataclass(frozen=True, slots=True)
class Mishap:
    """One service's trouble with one action for an order."""

    service: str
    action: str
    trouble: Trouble


@dataclass(frozen=True, slots=True)
class Kind:
    """What is special about an order."""

    tells: str
    amount: int | None = None
    item: str | None = None
    address: str | None = None
    mishaps: tuple[Mishap, ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """One order. `amount` is in cents; `tells` says in words what is special about it."""

    id: str
    amount: int
    item: str
    quantity: int
    address: str
    tells: str

    def input(self) -> dict[str, object]:
        """The workflow's input."""
        return {
            "order_id": self.id,
            "amount": self.amount,
            "item": self.item,
            "quantity": self.quantity,
            "address": self.address,
        }


def _troubled(service: str, trouble: Trouble, action: str = "execute") -> tuple[Mishap, ...]:
    return (Mishap(service, action, trouble),)


_SMOOTH = Kind("")
_KINDS = (
    _SMOOTH,
    Kind(
        "payments answers 500 after charging",
        mishaps=_troubled("payments", Trouble.FAILS_AFTER_ACTING),
    ),
    Kind("the amount is over the limit", amount=LIMIT + 20_000),
    Kind(
        "shipping acts, then answers too late",
        mishaps=_troubled("shipping", Trouble.SLOW_AFTER_ACTING),
    ),
    Kind("the item is out of stock", item=OUT_OF_STOCK),
    Kind(
        "inventory answers 503 at first",
        mishaps=_troubled("inventory", Trouble.UNAVAILABLE),
    ),
    Kind("nobody delivers to this address", address=f"1 Temple Hill, {UNDELIVERABLE}"),
    Kind(
        "payments charges, then breaks the connection",
        mishaps=_troubled("payments", Trouble.RESETS_AFTER_ACTING),
    ),
    Kind(
        "shipping acts, then answers 500 every time",
        mishaps=_troubled("shipping", Trouble.ALWAYS_FAILS_AFTER_ACTING),
    ),
    Kind(
        "inventory breaks every connection before acting",
        mishaps=_troubled("inventory", Trouble.ALWAYS_RESETS),
    ),
    Kind(
        "nobody delivers there, and the refund answers 500 after acting",
        address=f"2 Temple Hill, {UNDELIVERABLE}",
        mishaps=_troubled("payments", Trouble.FAILS_AFTER_ACTING, "compensate"),
    ),
    _SMOOTH,
)
_ITEMS = ("lamp", "kettle", "globe", "compass", "atlas")
_STREETS = ("Mill Lane", "Harbour Road", "Station Street", "Orchard Way")


def orders(first: int, count: int) -> list[Order]:
    """The orders numbered `first` and up."""
    return [_order(number) for number in range(first, first + count)]


def trouble_of(service: str, action: str, order_id: str) -> Trouble | None:
    """The trouble that this service has with this action for this order, if any."""
    _, _, digits = order_id.rpartition("-")
    if not digits.isdecimal():
        return None
    for mishap in _kind(int(digits)).mishaps:
        if (mishap.service, mishap.action) == (service, action):
            return mishap.trouble
    return None


def _order(number: int) -> Order:
    kind = _kind(number)
    return Order(
        id=f"order-{number:03}",
        amount=kind.amount or 1_500 + number * 737 % 60_000,
        item=kind.item or _ITEMS[number % len(_ITEMS)],
        quantity=1 + number % 3,
        address=kind.address or f"{number} {_STREETS[number % len(_STREETS)]}",
        tells=kind.tells,
    )


def _kind(number: int) -> Kind:
    return _KINDS[(number - 1) % len(_KINDS)]
