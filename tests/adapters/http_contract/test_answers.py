"""The outcome table, row by row, for both actions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from http import HTTPStatus

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.adapters.http_contract.answers import (
    OVERRIDES,
    Answer,
    class_of,
    error,
    outcome_of,
    outcome_of_status,
    waiting_time,
)
from sidecar.adapters.http_contract.bodies import MAX_DETAIL_BYTES, TooLarge
from sidecar.saga.definition import JsonText
from sidecar.saga.outcomes import Outcome, OutcomeKind
from sidecar.saga.states import Action

_K = OutcomeKind
NOW = datetime(2026, 1, 1, tzinfo=UTC)

EXECUTE = {
    _K.DONE: {200, 201, 203, 204, 205, 206, 207, 208, 226},
    _K.BUSY: {409},
    _K.NOT_NOW: {425, 429, 503},
    _K.MISCONFIGURED: {401, 403, 404, 405, 415, 501, *range(300, 400)},
    _K.UNKNOWN: {101, 408, 500, 502, 504, 505, 507, 508, 510, 511, 520, 599, 600, 999},
    _K.REFUSED: {400, 402, 406, 407, 410, 411, 412, 413, 414, 416, 417, 418, 421, 422, 423, 424},
}
COMPENSATE = {
    **EXECUTE,
    _K.DONE: {*EXECUTE[_K.DONE], 410},
    _K.REFUSED: {422},
    _K.UNKNOWN: EXECUTE[_K.UNKNOWN] | (EXECUTE[_K.REFUSED] - {410, 422}),
}


@pytest.mark.parametrize(
    ("action", "status", "kind"),
    [
        (action, status, kind)
        for action, table in ((Action.EXECUTE, EXECUTE), (Action.COMPENSATE, COMPENSATE))
        for kind, statuses in table.items()
        for status in sorted(statuses)
    ],
)
@pytest.mark.fault(18)
def test_the_table(action: Action, status: int, kind: OutcomeKind) -> None:
    assert class_of(action, status) is kind
    outcome = outcome_of(action, Answer(status), NOW)
    assert outcome.kind is kind
    assert outcome.may_have_effect is (kind is _K.UNKNOWN or status == 503)
    assert (outcome.error is None) is (kind is _K.DONE)


def test_every_registered_status_is_in_the_rows_above() -> None:
    tested = {202}.union(*EXECUTE.values())
    missing = {int(status) for status in HTTPStatus if status >= 200} - tested
    assert missing <= {426, 428, 431, 451, 506}
    assert {class_of(Action.EXECUTE, status) for status in missing if status < 500} == {_K.REFUSED}


@pytest.mark.parametrize("action", [Action.EXECUTE, Action.COMPENSATE])
@pytest.mark.parametrize("body", [b"", b'{"job":7}', b"<html>"])
def test_what_is_taken_on_is_pending_whatever_it_says(action: Action, body: bytes) -> None:
    assert outcome_of(action, Answer(202, body), NOW) == Outcome(_K.PENDING)
    assert outcome_of(action, Answer(202, bad_body=TooLarge(10)), NOW) == Outcome(_K.PENDING)


def asked(status: int, body: object) -> Outcome:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return outcome_of(Action.STATUS, Answer(status, raw, "Said", retry_after="5"), NOW)


def test_a_service_says_how_an_execute_went() -> None:
    done = asked(200, {"outcome": "succeeded", "output": {"id": 1}})
    assert done == Outcome(_K.DONE, output=JsonText('{"id":1}'))
    assert asked(200, {"outcome": "succeeded"}).output == "null"
    refused = asked(200, {"outcome": "refused"})
    assert (refused.kind, refused.may_have_effect) == (_K.REFUSED, False)
    pending = asked(200, {"outcome": "pending"})
    assert (pending.kind, pending.retry_after) == (_K.BUSY, timedelta(seconds=5))


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'"succeeded"', [], {}, {"outcome": None}, {"outcome": ["refused"]}]
    + [{"outcome": word} for word in ("done", "Succeeded", "unknown", "")],
)
def test_any_other_word_proves_nothing(body: object) -> None:
    assert asked(200, body).kind is _K.UNKNOWN


@pytest.mark.parametrize("status", [201, 202, 204, 302, 400, 404, 409, 410, 422, 429, 500, 503])
def test_any_other_status_proves_nothing(status: int) -> None:
    found = asked(status, {"outcome": "refused"})
    assert (found.kind, found.retry_after) == (_K.UNKNOWN, timedelta(seconds=5))


@pytest.mark.parametrize("kind", sorted(OVERRIDES))
@pytest.mark.parametrize("status", [200, 202, 404, 409, 422, 500, 503])
def test_on_status_overrides_the_table(kind: str, status: int) -> None:
    outcome = outcome_of(Action.EXECUTE, Answer(status), NOW, {status: kind})
    assert outcome.kind == kind
    if kind in {"refused", "busy", "misconfigured", "done"}:
        assert not outcome.may_have_effect
    if kind == "unknown":
        assert outcome.may_have_effect


def test_on_status_leaves_other_statuses_alone() -> None:
    assert outcome_of(Action.EXECUTE, Answer(422), NOW, {409: "refused"}).kind is _K.REFUSED
    assert outcome_of(Action.EXECUTE, Answer(500), NOW, {409: "refused"}).kind is _K.UNKNOWN


def test_a_problem_document_speaks_for_itself() -> None:
    body = orjson.dumps(
        {"type": "/funds", "title": "No funds", "detail": "Short by 3", "code": "x"}
    )
    outcome = outcome_of(Action.EXECUTE, Answer(422, body, "Unprocessable"), NOW)
    assert orjson.loads(outcome.error or "") == {
        "code": "http_422",
        "message": "Short by 3",
        "status": 422,
        "detail": orjson.loads(body),
    }


def test_an_error_without_a_body_is_named_by_its_status() -> None:
    outcome = outcome_of(Action.EXECUTE, Answer(500, b"", "Internal\x1b[31m Server Error"), NOW)
    said = orjson.loads(outcome.error or "")
    assert said == {
        "code": "http_500",
        "message": "the service answered 500 Internal\ufffd[31m Server Error",
        "status": 500,
    }


def test_a_body_that_was_too_large_does_not_change_the_class() -> None:
    outcome = outcome_of(Action.EXECUTE, Answer(422, bad_body=TooLarge(10)), NOW)
    assert outcome.kind is _K.REFUSED
    assert "larger than 10 bytes" in (outcome.error or "")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        (" 120 ", 120),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60),
        ("Thu, 01 Jan 2026 00:01:00 -0000", 60),
        ("Thu, 01 Jan 2015 00:00:00 GMT", 0),
        ("999999999999999999999999", 3600),
        ("3601", 3600),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600),
    ],
)
@pytest.mark.fault(18)
def test_retry_after(value: str, seconds: float) -> None:
    assert waiting_time(value, NOW, timedelta(hours=1)) == timedelta(seconds=seconds)


NONSENSE = [
    *("", "-1", "1.5", "soon", "١٢", "Thu, 99 Jan 2026", "1e3"),
    "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
    "Mon, 01 Jan 2026 00:00:00 -99999999999999",
]


@pytest.mark.parametrize("value", NONSENSE)
def test_a_retry_after_that_makes_no_sense_is_ignored(value: str) -> None:
    assert waiting_time(value, NOW, timedelta(hours=1)) is None


_NUMBERS = st.integers(-(10**20), 10**20) | st.integers(0, 40)
_DATES = st.builds("{} {} {} {}:{}:{} {}".format, *([_NUMBERS] * 6), st.sampled_from(["GMT", "+9"]))
_NAMED = st.builds("Mon, {} Jan {} {}:{}:{} {}".format, *([_NUMBERS] * 6))


@given(st.text(max_size=60) | _DATES | _NAMED)
def test_no_retry_after_raises(value: str) -> None:
    wait = waiting_time(value, NOW, timedelta(days=7))
    assert wait is None or timedelta() <= wait <= timedelta(days=7)


def test_a_compensation_is_not_put_off_for_days() -> None:
    answer = Answer(503, retry_after=str(30 * 24 * 3600))
    asked = {action: outcome_of(action, answer, NOW).retry_after for action in Action}
    assert asked == {
        Action.EXECUTE: timedelta(days=7),
        Action.COMPENSATE: timedelta(hours=1),
        Action.STATUS: timedelta(hours=1),
    }


@pytest.mark.parametrize("action", [Action.EXECUTE, Action.COMPENSATE])
def test_the_status_alone_tells_the_class(action: Action) -> None:
    for status in (200, 202, 400, 409, 422, 429, 500, 503):
        whole = outcome_of(action, Answer(status), NOW)
        alone = outcome_of_status(action, status, NOW)
        unusable = action is Action.EXECUTE and status == HTTPStatus.OK  # its output is lost
        assert alone.kind is (_K.UNUSABLE if unusable else whole.kind)
        assert alone.may_have_effect is whole.may_have_effect or unusable
    refused = outcome_of_status(action, 409, NOW, {409: "refused"})
    assert refused.kind is _K.REFUSED
    assert outcome_of_status(Action.STATUS, 200, NOW).kind is _K.UNKNOWN


@given(
    st.sampled_from(list(Action)),
    st.integers(100, 999),
    st.binary(max_size=200) | st.text().map(str.encode),
    st.text(max_size=20),
)
@pytest.mark.fault(17)
def test_every_answer_is_an_outcome_that_can_be_kept(
    action: Action, status: int, body: bytes, reason: str
) -> None:
    outcome = outcome_of(action, Answer(status, body, reason), NOW)
    for kept in (outcome.output, outcome.error):
        if kept is not None:
            assert "\0" not in kept
            orjson.loads(kept.encode())
    if outcome.error is not None:
        assert len(outcome.error) < 2 * MAX_DETAIL_BYTES
        assert {"code", "message"} <= set(orjson.loads(outcome.error))


def test_a_message_is_bounded_and_on_one_line() -> None:
    said = orjson.loads(error("x", "a\r\nb\x00\u2028" + "y" * 1000))
    assert said["message"].startswith("a  b\ufffd\ufffdyyy")
    assert len(said["message"]) == 300
