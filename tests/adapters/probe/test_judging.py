"""Verdicts over recorded exchanges: nothing is asked of anybody here."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sidecar.adapters.probe import judging, judging_undo
from sidecar.adapters.probe.record import Exchange, Record, Verdict
from sidecar.ports.probe import Severity
from sidecar.saga.outcomes import OutcomeKind
from sidecar.saga.states import Action

_E, _U = Action.EXECUTE, Action.COMPENSATE
_K = OutcomeKind

DONE = Exchange(_E, _K.DONE, 201, b'{"id": 1}')
ALIKE = Exchange(_E, _K.DONE, 201, b'{ "id":1 }')
OTHER = Exchange(_E, _K.DONE, 201, b'{"id": 2}')
OTHER_STATUS = Exchange(_E, _K.DONE, 200, b'{"id": 1}')
REFUSED = Exchange(_E, _K.REFUSED, 410)
BUSY = Exchange(_E, _K.BUSY, 409, tries=20)
GONE = Exchange(_E, _K.MISCONFIGURED, 404)
FAILED = Exchange(_E, _K.UNKNOWN, 500)
SILENT = Exchange(_E, _K.UNKNOWN, fault="none came within 5 s")
MOVED = Exchange(_E, _K.MISCONFIGURED, 307)
UNDONE = Exchange(_U, _K.DONE, 200)
NOT_UNDONE = Exchange(_U, _K.UNKNOWN, 500)

Judge = Callable[[Record], Verdict]


def asked(outcome: bytes, status: int = 200) -> Exchange:
    return Exchange(_E, _K.UNKNOWN, status, outcome)


@pytest.mark.parametrize(
    ("judge", "answers", "counts", "severity"),
    [
        (judging.twice, [DONE, ALIKE], [], "holds"),
        (judging.twice, [DONE, ALIKE], [7, 8], "holds"),
        (judging.twice, [DONE, ALIKE], [7, 9], "breaks"),
        (judging.twice, [DONE, ALIKE], [7, 7], "breaks"),
        (judging.twice, [DONE, OTHER], [7, 8], "breaks"),
        (judging.twice, [DONE, OTHER_STATUS], [], "breaks"),
        (judging.twice, [DONE, BUSY], [], "breaks"),
        (judging.at_once, [DONE, OTHER], [0, 1], "holds"),
        (judging.at_once, [DONE, OTHER], [], "breaks"),
        (judging.at_once, [DONE, BUSY], [0, 1], "breaks"),
        (judging.at_once, [DONE, ALIKE, DONE, ALIKE], [0, 3], "breaks"),
        (judging.other_body, [DONE, REFUSED], [], "holds"),
        (judging.other_body, [DONE, BUSY], [], "holds"),
        (judging.other_body, [DONE, OTHER], [], "breaks"),
        (judging.other_body, [DONE, OTHER], [0, 1], "holds"),
        (judging.other_body, [DONE, REFUSED], [0, 2], "breaks"),
        (judging.other_body, [DONE, FAILED], [], "breaks"),
        (judging.other_body, [DONE, FAILED], [0, 1], "warns"),
        (judging.after_cut, [DONE], [0, 1], "holds"),
        (judging.after_cut, [DONE], [0, 2], "breaks"),
        (judging.after_cut, [BUSY], [], "breaks"),
        (judging.large, [REFUSED], [], "holds"),
        (judging.large, [FAILED], [], "breaks"),
        (judging.large, [SILENT], [], "breaks"),
        (judging.not_json, [REFUSED], [], "holds"),
        (judging.not_json, [DONE], [], "warns"),
        (judging.not_json, [SILENT], [], "breaks"),
        (judging.first, [MOVED], [], "breaks"),
        (judging.redirects, [MOVED], [], "breaks"),
        (judging.kept_body, [MOVED], [], "skipped"),
        (judging.known_status, [DONE, asked(b'{"outcome": "succeeded"}')], [], "holds"),
        (judging.known_status, [DONE, asked(b'{"outcome": "pending"}')], [], "breaks"),
        (judging.known_status, [DONE, asked(b'["succeeded"]')], [], "breaks"),
        (judging.known_status, [DONE, asked(b'{"outcome": "succeeded"}', 500)], [], "breaks"),
        (judging.unknown_status, [asked(b'{"outcome": "refused"}'), REFUSED], [], "holds"),
        (judging.unknown_status, [asked(b'{"outcome": "refused"}'), DONE], [], "breaks"),
        (judging.unknown_status, [asked(b'{"outcome": "pending"}'), DONE], [], "breaks"),
        (judging.unknown_status, [asked(b"", 404), DONE], [], "warns"),
        (judging_undo.undone, [DONE, UNDONE], [3, 3], "holds"),
        (judging_undo.undone, [DONE, UNDONE], [3, 4], "breaks"),
        (judging_undo.undone, [DONE, UNDONE], [3, 2], "breaks"),
        (judging_undo.undone, [DONE, NOT_UNDONE], [], "breaks"),
        (judging_undo.undone_twice, [DONE, UNDONE, UNDONE], [0, 0, 0], "holds"),
        (judging_undo.undone_twice, [DONE, UNDONE, UNDONE], [0, 0, -1], "breaks"),
        (judging_undo.undone_twice, [DONE, UNDONE, NOT_UNDONE], [], "breaks"),
        (judging_undo.late_execute, [UNDONE, REFUSED], [], "holds"),
        (judging_undo.late_execute, [UNDONE, REFUSED], [0, 1], "breaks"),
        (judging_undo.late_execute, [UNDONE, DONE], [], "breaks"),
        (judging_undo.late_execute, [UNDONE, BUSY], [], "breaks"),
        (judging_undo.late_execute, [UNDONE, GONE], [], "breaks"),
        (judging_undo.repeated_execute, [DONE, UNDONE, REFUSED], [0, 0], "holds"),
        (judging_undo.repeated_execute, [DONE, UNDONE, ALIKE], [], "holds"),
        (judging_undo.repeated_execute, [DONE, UNDONE, OTHER], [], "breaks"),
        (judging_undo.repeated_execute, [DONE, UNDONE, OTHER], [0, 0], "holds"),
        (judging_undo.repeated_execute, [DONE, UNDONE, ALIKE], [0, 1], "breaks"),
        (judging_undo.repeated_execute, [DONE, UNDONE, FAILED], [0, 0], "breaks"),
        (judging_undo.undone_at_once, [REFUSED, UNDONE], [0, 0], "holds"),
        (judging_undo.undone_at_once, [DONE, UNDONE], [0, 1], "breaks"),
        (judging_undo.undone_at_once, [BUSY, UNDONE], [0, 0], "breaks"),
        (judging_undo.undone_at_once, [REFUSED, NOT_UNDONE], [0, 0], "breaks"),
    ],
)
def test_a_record_has_this_verdict(
    judge: Judge, answers: list[Exchange], counts: list[int], severity: str
) -> None:
    verdict = judge(Record(answers, counts))
    assert verdict.severity is Severity(severity), verdict.came


def test_an_answer_is_told_in_a_line() -> None:
    assert DONE.said == '201 {"id": 1}'
    assert UNDONE.said == "200 without a body"
    assert SILENT.said == "no answer: none came within 5 s"
    assert BUSY.said == "409 without a body (still, after asking 20 times)"
    long = Exchange(_E, _K.DONE, 200, b"x" * 500 + b"\x1b[2J\n").said
    assert len(long) < 120
    assert long.isprintable()
