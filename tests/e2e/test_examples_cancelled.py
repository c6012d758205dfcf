"""Every worked definition of docs/examples, cancelled while a service is called or waited for.

However the service answers then, what it did is undone.
"""

from __future__ import annotations

import pytest

from tests.e2e.worked import Running, keeps

pytestmark = [pytest.mark.e2e, pytest.mark.postgres, pytest.mark.timeout(180)]

CANCELLED = ("rolled_back", "cancelled")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("order", "shipping/shipments"),
        ("travel_booking", "hotels/stays"),
        ("money_transfer", "identity/screenings"),
        ("monthly_invoices", "billing/invoices"),
        ("monthly_invoices", "accounts/postings"),
        ("purchase_approval", "purchasing/purchase_orders"),
        ("payment", "payments/captures"),
        ("order_with_payment", "payments/captures"),
        ("order_with_payment", "shipping/shipments"),
        ("scheduled_delivery", "shipping/vans"),
        ("bank_payout", "payments/payouts"),
        ("carrier_quotes", "courier/quotes"),
        ("gift_order", "mail/messages"),
        ("tenant_setup", "billing/subscriptions"),
        ("customer_onboarding", "accounts/accounts"),
    ],
)
@pytest.mark.parametrize("does", ["act", "refuse", "stumble", "never"])
def test_what_is_cancelled_in_the_middle_is_undone(
    here: Running, name: str, place: str, does: str
) -> None:
    cancelled: list[int] = []
    service, _, path = place.partition("/")
    here.services.tell(place, does, once=lambda: bool(cancelled))
    before = len(here.services.calls)
    workflow = here.begin(name)
    assert here.services.wait(
        lambda: any(one.path == f"/{path}" and one.service == service
                    for one in here.services.calls[before:])
    )  # fmt: skip
    status, _ = here.ask("POST", f"/v1/workflows/{workflow}/cancel", b"{}")
    cancelled.append(status)
    assert here.ends(workflow) == CANCELLED
    standing = {one.partition("[")[0] for one in here.services.standing(workflow)}
    assert standing <= keeps(name)
    children = {one.workflow for one in here.services.calls[before:]} - {workflow}
    assert all(here.services.standing(one) == set() for one in children)
