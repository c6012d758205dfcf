"""What differs between two documents: what they mean, not how they are written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.definitions import parse_definition
from sidecar.definitions.differences import Change, Difference, differences

BASE = """
name: order
timeout: 60s
steps:
  - { name: charge, service: payments, execute: /do, compensate: /undo, timeout: 10s,
      input: { amount: "${input.amount}" }, retry: { max_attempts: 4 } }
  - { name: reserve, service: inventory, execute: /do, compensate: /undo, after: [] }
  - { name: ship, service: shipping, execute: /do, compensate: none, after: [charge, reserve] }
"""


def document(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(parse_definition(text, "yaml").document)
    return found


def changed(*replaced: tuple[str, str]) -> list[Difference]:
    """What differs after these replacements."""
    text = BASE
    for old, new in replaced:
        assert old in text
        text = text.replace(old, new)
    return differences(document(BASE), document(text))


def test_layout_and_ways_of_writing_make_no_difference() -> None:
    assert changed(("60s", "1m"), ("after: [charge, reserve]", "after: [reserve, charge]")) == []
    assert changed(("timeout: 60s", "timeout:   60s  # a minute")) == []


def test_the_order_of_steps_says_nothing_where_after_is_written() -> None:
    moved = document(BASE)
    moved["steps"] = [moved["steps"][at] for at in (1, 2, 0)]
    (found,) = differences(document(BASE), moved)
    assert (found.step, found.path, found.before, found.after) == ("charge", "after", [], ["ship"])
    moved["steps"][2]["after"] = []
    assert differences(document(BASE), moved) == []


def test_keys_are_told_with_their_path() -> None:
    assert changed(("timeout: 60s", "timeout: 2m")) == [
        Difference(None, "timeout", Change.CHANGED, "60s", "2m")
    ]
    assert changed(("max_attempts: 4", "max_attempts: 5")) == [
        Difference("charge", "retry.max_attempts", Change.CHANGED, 4, 5)
    ]
    assert changed(('"${input.amount}" }', '"${input.amount}", currency: EUR }')) == [
        Difference("charge", "input.currency", Change.ADDED, after="EUR")
    ]
    assert changed((", timeout: 10s", "")) == [
        Difference("charge", "timeout", Change.REMOVED, before="10s")
    ]


@pytest.mark.parametrize(("old", "new"), [('"60s"', '"1m"'), ("1", "true"), ("1", "1.0")])
def test_data_is_compared_as_it_is(old: str, new: str) -> None:
    text = '"${input.amount}"'
    before = BASE.replace(text, old)
    assert len(differences(document(before), document(BASE.replace(text, new)))) == 1


def test_steps_come_and_go_as_wholes() -> None:
    found = changed(("name: reserve", "name: book"), ("[charge, reserve]", "[charge, book]"))
    assert [(one.step, one.path, one.change.value) for one in found] == [
        ("reserve", "", "removed"),
        ("ship", "after", "changed"),
        ("book", "", "added"),
    ]


def test_what_was_pinned_of_an_action_is_compared_where_both_were_registered() -> None:
    def step(**more: Any) -> dict[str, Any]:
        action = {"name": "pay", "service": "payments", "action": "charge"}
        return {"name": "order", "steps": [{**action, **more}]}

    first, second = ({"catalogue": 1, "timeout": time} for time in ("5s", "7s"))
    assert differences(step(), step(pinned=first)) == []
    assert differences(step(pinned=first), step()) == []
    (found,) = differences(step(pinned=first), step(pinned=second))
    assert (found.path, found.before, found.after) == ("pinned.timeout", "5s", "7s")
    path = step(execute="/pay")
    del path["steps"][0]["action"]
    assert {one.path for one in differences(step(pinned=first), path)} == {
        "action",
        "execute",
        "pinned",
    }
