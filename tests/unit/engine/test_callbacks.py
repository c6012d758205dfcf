"""Tokens of callbacks: what they name, and that nobody else can make one."""

from __future__ import annotations

import re
import string
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.engine.callbacks import Attempt, Tokens
from sidecar.errors import NotFound
from sidecar.saga.states import Action
from sidecar.saga.workflow import NO_INDEX, StepKey, WorkflowId

OURS = Tokens(b"k" * 32, "http://sidecar:7400/")
WORKFLOW = WorkflowId("0190c0de-0000-7000-8000-000000000001")
CHARGE = Attempt(WORKFLOW, StepKey("charge"), Action.EXECUTE, 1)
ALPHABET = string.ascii_letters + string.digits + "-_"

attempts = st.builds(
    Attempt,
    st.uuids().map(lambda one: WorkflowId(str(one))),
    st.builds(
        StepKey,
        st.from_regex(r"[a-z][a-z0-9_]{0,62}", fullmatch=True),
        st.just(NO_INDEX) | st.integers(0, 10_000),
    ),
    st.sampled_from([Action.EXECUTE, Action.COMPENSATE]),
    st.integers(1, 2**31 - 1),
)


def is_refused(token: str, tokens: Tokens = OURS) -> bool:
    try:
        tokens.read(token)
    except NotFound:
        return True
    return False


@given(attempts)
def test_a_token_names_its_attempt(attempt: Attempt) -> None:
    assert OURS.read(OURS.token(attempt)) == attempt


@given(attempts, attempts)
def test_two_attempts_have_two_tokens(one: Attempt, two: Attempt) -> None:
    assert (OURS.token(one) == OURS.token(two)) is (one == two)


@given(attempts)
def test_a_token_may_stand_in_a_url_as_it_is(attempt: Attempt) -> None:
    token = OURS.token(attempt)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", token)
    assert OURS.url(attempt) == f"http://sidecar:7400/v1/tasks/{token}"


@given(attempts, st.integers(min_value=0), st.integers(1, 63))
def test_a_token_with_any_bit_changed_is_refused(attempt: Attempt, place: int, by: int) -> None:
    token = OURS.token(attempt)
    at = place % len(token)
    other = ALPHABET[(ALPHABET.index(token[at]) + by) % len(ALPHABET)]
    changed = token[:at] + other + token[at + 1 :]
    assert is_refused(changed)


@given(attempts, st.integers(min_value=0))
def test_a_token_that_is_cut_or_longer_is_refused(attempt: Attempt, place: int) -> None:
    token = OURS.token(attempt)
    assert is_refused(token[: place % len(token)])
    assert is_refused(token + "A")
    assert is_refused(f"{token}AAAA")


@given(st.text(max_size=200) | st.text(ALPHABET, min_size=60, max_size=200))
def test_anything_else_is_refused(text: str) -> None:
    assert is_refused(text)


@given(attempts)
def test_a_token_under_another_key_is_refused(attempt: Attempt) -> None:
    assert is_refused(Tokens(b"K" * 32, "").token(attempt))
    assert is_refused(OURS.token(attempt), Tokens(b"", ""))


@pytest.mark.parametrize(
    "other",
    [
        Attempt(WorkflowId(str(uuid.UUID(int=1))), CHARGE.key, CHARGE.action, 1),
        Attempt(WORKFLOW, StepKey("charge", 0), CHARGE.action, 1),
        Attempt(WORKFLOW, StepKey("charged"), CHARGE.action, 1),
        Attempt(WORKFLOW, CHARGE.key, Action.COMPENSATE, 1),
        Attempt(WORKFLOW, CHARGE.key, CHARGE.action, 2),
    ],
)
def test_a_seal_is_good_for_its_own_attempt_alone(other: Attempt) -> None:
    """The seal is the first 16 bytes: with 18 bytes in 24 letters, two more belong to the rest."""
    mine, theirs = OURS.token(CHARGE), OURS.token(other)
    assert is_refused(mine[:20] + theirs[20:])
    assert is_refused(theirs[:20] + mine[20:])
