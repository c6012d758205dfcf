"""A position never passes a delivery that is still open."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.adapters.watermarks import Watermark


@given(st.sets(st.integers(0, 200), min_size=1), st.data())
@pytest.mark.fault(52)
def test_it_follows_the_oldest_open_delivery(
    offsets: set[int],
    data: st.DataObject,
) -> None:
    mark = Watermark()
    in_order = sorted(offsets)
    for offset in in_order:
        mark.deliver(offset)
    still_open = list(in_order)
    for offset in data.draw(st.permutations(in_order)):
        mark.ack(offset)
        mark.ack(offset)
        still_open.remove(offset)
        below = [one for one in in_order if not still_open or one < still_open[0]]
        assert mark.position == (below[-1] + 1 if below else None)
    assert len(mark) == 0
    assert mark.moved
    mark.written = mark.position
    assert not mark.moved


def test_an_ack_from_before_changes_nothing() -> None:
    mark = Watermark()
    mark.ack(3)
    mark.deliver(5)
    mark.ack(4)
    assert mark.position is None
    mark.ack(5)
    mark.ack(5)
    assert mark.position == 6
