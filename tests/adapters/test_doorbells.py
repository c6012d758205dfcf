"""The form of a doorbell on a queue: pinned, since sidecars of several versions share it."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.adapters import doorbells
from sidecar.errors import UndecodableDoorbell
from sidecar.ports.queue import Delivery, Doorbell, Refused
from sidecar.saga.workflow import StepKey, WorkflowId

ID = "01890a5d-ac96-774b-bcce-b302099a8057"


def test_the_form() -> None:
    plain = Doorbell(WorkflowId(ID), StepKey("charge"), "payments")
    assert doorbells.encode(plain) == b'{"v":1,"w":"%s","s":"charge"}' % ID.encode()
    item = Doorbell(WorkflowId(ID), StepKey("reserve", 3), "payments", "00-ab-cd-01")
    assert doorbells.encode(item) == (
        b'{"v":1,"w":"%s","s":"reserve","i":3,"t":"00-ab-cd-01"}' % ID.encode()
    )


@given(
    st.uuids(),
    st.from_regex(r"[a-z][a-z0-9_]{0,60}", fullmatch=True),
    st.integers(-1, 2**31 - 1),
    st.none() | st.text("0123456789abcdef-", max_size=55),
)
def test_what_is_written_can_be_read(
    workflow: uuid.UUID, step: str, index: int, trace: str | None
) -> None:
    doorbell = Doorbell(WorkflowId(str(workflow)), StepKey(step, index), "payments", trace)
    payload = doorbells.encode(doorbell)
    assert len(payload) <= doorbells.MAX_BYTES
    assert doorbells.read(payload, "payments", 7) == Delivery(doorbell, 7)


@given(st.binary(max_size=3000))
@example(b"")
@example(b"null")
@example(b'{"v":true}')
@example(b'{"v":1,"w":"%s","s":"charge","i":true}' % ID.encode())
@example(b'{"v":1,"w":"%s","s":"charge","i":-2}' % ID.encode())
@example(b'{"v":1,"w":"%s","s":"charge","i":99999999999}' % ID.encode())
@example(b'{"v":1,"w":"%s\\n","s":"charge"}' % ID.encode())
@example(b'{"v":1,"w":"%s","s":"Charge"}' % ID.encode())
@example(b'{"v":1,"w":["%s"],"s":"charge"}' % ID.encode())
def test_anything_else_is_refused_with_a_reason(payload: bytes) -> None:
    with pytest.raises(UndecodableDoorbell):
        doorbells.decode(payload, "payments")
    refused = doorbells.read(payload, "payments", 7)
    assert isinstance(refused, Refused)
    assert refused.reason
    assert refused.sample == payload[: doorbells.SAMPLE_BYTES]
    assert refused.token == 7


def test_a_newer_sidecar_may_add_keys_and_a_bad_trace_costs_only_the_trace() -> None:
    payload = b'{"v":1,"w":"%s","s":"charge","t":5,"new":{}}' % ID.encode()
    expected = Doorbell(WorkflowId(ID), StepKey("charge"), "payments")
    assert doorbells.decode(payload, "payments") == expected


def test_a_message_without_content_is_refused() -> None:
    assert isinstance(doorbells.read(None, "payments"), Refused)
