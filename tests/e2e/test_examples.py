"""Every worked definition of docs/examples, run by real sidecars: forward, back, and its own point.

What the services did is read from their ledger, not only from the status of the workflow.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from tests.e2e.worked import ACTOR, DOCUMENTS, PAPERS, Running, keeps

pytestmark = [pytest.mark.e2e, pytest.mark.postgres, pytest.mark.timeout(180)]

FAILED = ("rolled_back", "failed")
TIMED_OUT = ("rolled_back", "timed_out")


# -- each of them, forward and back -----------------------------------------------------------

OUTPUTS: dict[str, Any] = {
    "order": {"charge": "ch_51f0", "tracking": "JJD0009912077"},
    "travel_booking": {"flight": "K7QX2M", "hotel": "LIS-440912", "car": "rent-8831"},
    "money_transfer": {"entry": "ent_90021"},
    "monthly_invoices": {"run": "run_2031_03", "invoices": 7},
    "purchase_approval": {"purchase_order": "PO-2031-0092"},
    "payment": {"authorisation": "auth_620", "capture": "cap_620"},
    "order_with_payment": {"capture": "cap_620", "tracking": "JJD0009912078"},
    "scheduled_delivery": {"van": "GR-114"},
    "bank_payout": {"bank_reference": "BK-771-0417"},
    "carrier_quotes": {"carrier": "post", "tracking": "6A00123456789"},
    "gift_order": {"wrapped": True},
    "tenant_setup": {"url": "https://north-mill.example.com", "subscription": "sub_71"},
    "customer_onboarding": {
        "file": "file_3017",
        "iban": "SE4550000000058398257466",
        "level": "full",
    },
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_it_completes_and_nothing_is_undone(here: Running, name: str) -> None:
    workflow = here.begin(name)
    assert here.completes(workflow) == OUTPUTS[name]
    assert here.services.undone(workflow) == []
    keys = [one.key for one in here.services.of(workflow) if one.method != "GET"]
    assert len(keys) == len(set(keys))
    called = {step["name"] for step in DOCUMENTS[name]["steps"] if "service" in step}
    skipped = {"by_courier"} if name == "carrier_quotes" else set()
    assert {one.partition("[")[0] for one in here.services.effects(workflow)} == called - skipped


@pytest.mark.parametrize(
    ("name", "refuses", "undone"),
    [
        ("order", "shipping/shipments", ["reserve", "charge"]),
        ("money_transfer", "accounts/credits", ["hold"]),
        ("purchase_approval", "purchasing/purchase_orders", ["earmark"]),
        ("payment", "payments/captures", ["authorise"]),
        ("order_with_payment", "shipping/shipments", ["reserve"]),
        ("scheduled_delivery", "shipping/vans", ["set_aside"]),
        ("bank_payout", "payments/payouts", ["debit"]),
        ("carrier_quotes", "shipping/shipments", ["choose"]),
        ("gift_order", "shipping/shipments", ["wrap", "pick"]),
        ("customer_onboarding", "accounts/accounts", ["open_file"]),
    ],
)
def test_a_refusal_undoes_what_was_done(
    here: Running, name: str, refuses: str, undone: list[str]
) -> None:
    here.services.tell(refuses, "refuse")
    workflow = here.begin(name)
    assert here.ends(workflow) == FAILED
    assert here.services.undone(workflow) == undone
    assert here.services.standing(workflow) <= keeps(name)


# -- what is special in each ------------------------------------------------------------------


def test_what_one_house_refuses_the_others_cancel(here: Running) -> None:
    """The hotel answers when the others have booked, so that there is something to cancel."""
    workflow = ""
    here.services.tell(
        "hotels/stays",
        "refuse",
        once=lambda: {"flight", "car"} <= set(here.services.effects(workflow)),
    )
    workflow = here.start("travel_booking")
    assert here.ends(workflow) == FAILED
    assert set(here.services.undone(workflow)) == {"flight", "car"}
    assert here.services.standing(workflow) == set()
    rental = next(one for one in here.services.of(workflow, "compensate") if one.step == "car")
    assert (rental.method, rental.path, rental.body) == (
        "DELETE",
        "/rentals",
        {"trip": "trip-20391"},
    )
    flight = here.services.sent(workflow, "flight", "compensate")
    assert (flight["output"], flight["reason"]) == ({"locator": "K7QX2M"}, "failed")


def test_past_the_pivot_a_transfer_only_goes_forward(here: Running) -> None:
    here.services.tell("mail/messages", "refuse", once=lambda: bool(refused))
    workflow, refused = here.start("money_transfer"), []
    assert here.services.wait(lambda: len(here.services.of(workflow)) == 4)
    status, _ = here.ask("POST", f"/v1/workflows/{workflow}/cancel", b"{}")
    refused.append(status)
    assert here.completes(workflow) == OUTPUTS["money_transfer"]
    assert refused == [409]
    assert here.services.effects(workflow) == ["hold", "screen", "credit"]
    assert here.services.sent(workflow, "credit")["hold"] == "hold_7710"


def test_transfers_from_one_account_take_turns(here: Running) -> None:
    begun: list[str] = []
    here.services.tell("identity/screenings", once=lambda: len(begun) == 2)
    begun.append(here.start("money_transfer"))
    assert here.services.wait(lambda: bool(here.services.of(begun[0])))
    second = here.start("money_transfer", transfer_id="tr-88121")
    here.waits(second, "turn")
    assert here.services.of(second) == []
    begun.append(second)
    for workflow in begun:
        here.completes(workflow)
    first_ends = max(one.ended for one in here.services.of(begun[0]))
    assert all(one.began > first_ends for one in here.services.of(second))


def test_some_refused_invoices_are_put_up_with_and_one_more_is_not(here: Running) -> None:
    refused = {"cus_1002", "cus_1004", "cus_1006"}
    here.services.tell("billing/invoices", "refuse", when=lambda body: body["customer"] in refused)
    workflow = here.start("monthly_invoices")
    assert here.completes(workflow) == {"run": "run_2031_03", "invoices": 4}
    numbers = {one.body["number"] for one in here.services.of(workflow) if one.path == "/invoices"}
    assert numbers == {f"2031-03-{index}" for index in range(1, 8)}
    refused.add("cus_1007")
    workflow = here.start("monthly_invoices")
    assert here.ends(workflow) == FAILED
    assert here.services.undone(workflow) == ["open_run"]
    assert not any(one.path == "/postings" for one in here.services.of(workflow))


def test_five_drafts_at_a_time_and_postings_are_reversed_item_by_item(here: Running) -> None:
    workflow = ""

    def drafts() -> int:
        return sum(one.path == "/invoices" for one in here.services.of(workflow))

    here.services.tell("billing/invoices", once=lambda: drafts() >= 5)
    here.services.tell("billing/runs/close", "refuse")
    workflow = here.start("monthly_invoices")
    assert here.ends(workflow) == FAILED
    calls = [one for one in here.services.of(workflow) if one.path == "/invoices"]
    assert max(sum(a.began <= b.began < a.ended for a in calls) for b in calls) == 5
    assert set(here.services.undone(workflow)[:-1]) == {f"post[{index}]" for index in range(7)}
    assert here.services.undone(workflow)[-1] == "open_run"
    assert here.services.sent(workflow, "post[6]", "compensate") == {
        "invoice": "inv_5500",
        "reason": "run 2031-03 was discarded",
    }


def test_a_large_purchase_waits_for_a_manager_and_a_small_one_does_not(here: Running) -> None:
    small = here.start("purchase_approval", amount=180)
    assert here.completes(small) == OUTPUTS["purchase_approval"]
    assert here.services.effects(small) == ["earmark", "order"]
    assert here.services.sent(small, "order")["approved_by"] == "policy"
    large = here.start("purchase_approval")
    here.waits(large, "decided")
    assert here.services.effects(large) == ["earmark", "ask"]
    here.signal(large, "decided", {"approved": True})
    here.completes(large)
    order = here.services.sent(large, "order")
    assert (order["approved"], order["approved_by"]) == (True, ACTOR)


def test_without_an_approval_the_budget_is_freed(here: Running) -> None:
    here.services.tell(
        "purchasing/purchase_orders", "refuse", when=lambda body: not body["approved"]
    )
    denied = here.start("purchase_approval")
    here.signal(denied, "decided", {"approved": False})
    silent = here.start("purchase_approval", ("timeout: 3d", "timeout: 300ms"))
    for workflow in (denied, silent):
        assert here.ends(workflow) == FAILED
        assert here.services.undone(workflow) == ["earmark"]
    assert here.ended(silent)["error"]["code"] == "signal_timeout"
    assert here.services.effects(silent) == ["earmark", "ask"]


def test_a_payment_that_had_completed_is_undone_with_its_order(here: Running) -> None:
    here.services.tell("shipping/shipments", "refuse")
    order = here.start("order_with_payment")
    assert here.ends(order) == FAILED
    _, page = here.ask("GET", "/v1/workflows?definition=payment&status=rolled_back&limit=1")
    payment = page["workflows"][0]["id"]
    assert here.services.effects(payment) == ["authorise", "capture"]
    assert here.services.undone(payment) == ["capture", "authorise"]
    last = here.services.of(payment, "compensate")[-1]
    (release,) = here.services.of(order, "compensate")
    assert (release.step, release.began > last.ended) == ("reserve", True)


def test_an_order_and_its_payment_must_understand_each_other(here: Running) -> None:
    """What the one gives must fit what the other wants, both ways."""
    unpaid = here.start("order_with_payment", ('amount: "${input.total}"', "sum: 1"))
    assert here.ends(unpaid) == FAILED
    assert here.ended(unpaid)["error"]["code"] == "input_invalid"
    assert here.services.undone(unpaid) == ["reserve"]
    paid = here.start("order_with_payment", ("required: [capture]", "required: [receipt]"))
    assert here.ends(paid) == FAILED
    assert here.ended(paid)["error"]["code"] == "output_invalid"
    captured = [one for one in here.services.calls if one.path == "/captures/refund"]
    assert captured[-1].began < here.services.of(paid, "compensate")[0].began
    assert "ship" not in here.services.effects(paid)


def test_the_van_goes_when_its_morning_has_come(here: Running) -> None:
    began = datetime.now(UTC)
    morning = (began + timedelta(seconds=2)).isoformat().replace("+00:00", "Z")
    workflow = here.start("scheduled_delivery", ("${input.deliver_on}T06:00:00Z", morning))
    here.waits(workflow, "morning")
    assert here.services.effects(workflow) == ["set_aside"]
    assert here.completes(workflow) == OUTPUTS["scheduled_delivery"]
    assert datetime.now(UTC) - began > timedelta(seconds=2)


def test_a_delivery_that_takes_too_long_is_undone(here: Running) -> None:
    far = here.start("scheduled_delivery", ("timeout: 10d", "timeout: 1s"), deliver_on="2099-01-01")
    assert here.ends(far) == TIMED_OUT
    assert (here.services.effects(far), here.services.undone(far)) == (["set_aside"],) * 2


def test_a_bank_calls_back(here: Running) -> None:
    here.services.tell("payments/payouts", "later")
    workflow = here.start("bank_payout")
    assert here.completes(workflow) == OUTPUTS["bank_payout"]
    assert [one.status for one in here.services.of(workflow)] == [201, 202, 201]
    text = here.services.sent(workflow, "tell_seller")["text"]
    assert text == "We have sent 2310.40 to AT611904300234573201."


SOON = [("callback_timeout: 2d", "callback_timeout: 300ms"), ("max_attempts: 4", "max_attempts: 1")]


def test_a_bank_that_never_calls_back_is_asked(here: Running) -> None:
    here.services.tell("payments/payouts", "never")
    workflow = here.start("bank_payout", *SOON)
    assert here.completes(workflow) == OUTPUTS["bank_payout"]
    (asked,) = [
        one for one in here.services.calls if one.method == "GET" and one.workflow == workflow
    ]
    assert (asked.path, asked.key) == ("/payouts/status", f"{workflow}/pay_out/execute")
    assert here.services.undone(workflow) == []


def test_a_payout_of_which_nothing_can_be_learnt_is_recalled(here: Running) -> None:
    here.services.tell("payments/payouts", "stumble")
    lost = ("status: { path: /payouts/status, budget: 30m }", "")
    workflow = here.start("bank_payout", *SOON, lost)
    assert here.ends(workflow) == FAILED
    assert here.services.undone(workflow) == ["pay_out", "debit"]
    assert here.services.sent(workflow, "pay_out", "compensate")["outcome"] == "unknown"


def test_the_first_carrier_that_answers_gets_the_parcel(here: Running) -> None:
    workflow = ""
    here.services.tell(
        "shipping/quotes", once=lambda: "by_courier" in here.services.effects(workflow)
    )
    here.services.tell("billing/shipping_costs", says=lambda body: {"carrier": body["carrier"]})
    workflow = here.start("carrier_quotes")
    assert here.completes(workflow) == {"carrier": "courier", "tracking": "CR-55102"}
    assert here.services.sent(workflow, "choose")["quote"] == {"price": 16.4, "currency": "EUR"}
    assert "by_post" not in here.services.effects(workflow)


def test_a_carrier_that_is_not_there_is_done_without(here: Running) -> None:
    here.services.tell("shipping/quotes", "refuse")
    here.services.tell("billing/shipping_costs", says=lambda body: {"carrier": body["carrier"]})
    assert here.completes(here.start("carrier_quotes"))["carrier"] == "courier"
    here.services.tell("courier/quotes", "refuse")
    here.services.tell("billing/shipping_costs", "refuse", when=lambda body: not body["quote"])
    workflow = here.start("carrier_quotes")
    assert here.ends(workflow) == FAILED
    assert here.services.effects(workflow) == []


def test_what_is_not_wanted_is_skipped_and_no_mail_stops_a_gift(here: Running) -> None:
    here.services.tell("mail/messages", "refuse")
    here.services.tell("inventory/cards", "refuse")
    plain = here.start("gift_order", gift=False)
    assert here.completes(plain) == {"wrapped": False}
    assert here.services.effects(plain) == ["pick", "ship"]
    assert here.services.sent(plain, "ship")["parcel"] == "pick_818"
    steps = {one["name"]: one["status"] for one in here.ended(plain)["steps"]}
    assert (steps["wrap"], steps["card"], steps["tell"]) == ("skipped", "skipped", "failed")
    wrapped = here.start("gift_order")
    assert here.completes(wrapped) == {"wrapped": True}
    assert here.services.effects(wrapped) == ["pick", "wrap", "ship"]
    assert here.services.sent(wrapped, "ship")["parcel"] == "parcel_818"


def test_a_tenant_is_taken_down_piece_by_piece(here: Running) -> None:
    here.services.tell("billing/subscriptions", "refuse")
    workflow = here.start("tenant_setup")
    assert here.ends(workflow) == FAILED
    assert here.services.standing(workflow) == set()
    undone = here.services.undone(workflow)
    assert (undone[0], set(undone[1:3]), undone[3]) == (
        "host_name",
        {"database", "bucket"},
        "project",
    )
    calls = here.services.of(workflow, "compensate")
    assert all(one.ended < next_.began for one, next_ in pairwise(calls))
    template = here.services.sent(workflow, "host_name")["template"]
    assert template == "https://${tenant}.example.com"


def test_a_customer_whose_check_answers_nonsense_is_not_taken_on(here: Running) -> None:
    here.services.tell("identity/verifications", says=lambda _: {"score": 400, "level": "full"})
    workflow = here.start("customer_onboarding")
    here.waits(workflow, "papers_received")
    here.signal(workflow, "papers_received", PAPERS)
    assert here.ends(workflow) == FAILED
    assert here.services.sent(workflow, "verify")["documents"] == PAPERS["documents"]
    assert here.services.undone(workflow) == ["open_file"]
    assert here.ended(workflow)["error"]["code"] == "output_invalid"
