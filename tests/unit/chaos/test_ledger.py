"""The ledger's process: what it writes before it answers, the barrier, and each of its faults."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.book import Entry, Fact, read_entries
from tests.chaos.faults import ACTS_FIRST, Kind, Rule
from tests.chaos.ledger import Ledger

pytestmark = pytest.mark.timeout(60)
INPUT = {"order": 1, "seen": {}}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    one = Ledger(tmp_path_factory.mktemp("ledger"))
    yield one
    one.stop()


@pytest.fixture
def ledger(shared: Ledger, request: pytest.FixtureRequest) -> Iterator[Ledger]:
    yield shared
    shared.fault()


@pytest.fixture
def workflow(request: pytest.FixtureRequest) -> str:
    return f"w-{request.node.name}"


def call(
    ledger: Ledger, workflow: str, body: Any, *, action: str = "execute", attempt: int = 1
) -> tuple[int, bytes, dict[str, str]]:
    connection = HTTPConnection("127.0.0.1", ledger.port, timeout=5)
    headers = {
        "Idempotency-Key": f'"{workflow}/charge/{action}"',
        "GoConductor-Workflow": workflow,
        "GoConductor-Step": "charge",
        "GoConductor-Action": action,
        "GoConductor-Attempt": str(attempt),
    }
    path = "/charge" if action == "execute" else "/undo/charge"
    try:
        connection.request("POST", path, json.dumps(body).encode(), headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


def undo(ledger: Ledger, workflow: str, given: Any, **more: Any) -> tuple[int, bytes]:
    body = {"input": given, "output": None, "outcome": "unknown", "reason": "failed"}
    status, text, _ = call(ledger, workflow, body, action="compensate", **more)
    return status, text


def lines(ledger: Ledger, workflow: str) -> list[Entry]:
    return [one for one in ledger.entries() if one.workflow == workflow]


def facts(ledger: Ledger, workflow: str) -> list[Fact]:
    return [one.fact for one in lines(ledger, workflow)]


def test_a_key_acts_once_and_is_answered_alike(ledger: Ledger, workflow: str) -> None:
    first = call(ledger, workflow, INPUT)
    again = call(ledger, workflow, INPUT, attempt=2)
    assert first[:2] == again[:2]
    assert json.loads(first[1])["mark"] == lines(ledger, workflow)[0].mark
    assert facts(ledger, workflow) == [Fact.APPLIED, Fact.REPEATED]
    assert [one.attempt for one in lines(ledger, workflow)] == [1, 2]


def test_an_undoing_may_be_refused_once(ledger: Ledger, workflow: str) -> None:
    given = {**INPUT, "behave": "refuse_once"}
    call(ledger, workflow, given)
    assert [undo(ledger, workflow, given, attempt=n)[0] for n in (1, 2, 3)] == [422, 200, 200]
    assert facts(ledger, workflow)[1:] == [Fact.NOT_DONE, Fact.APPLIED, Fact.REPEATED]


def test_an_undoing_may_be_done_and_be_denied(ledger: Ledger, workflow: str) -> None:
    given = {**INPUT, "behave": "undo_badly"}
    call(ledger, workflow, given)
    assert [undo(ledger, workflow, given, attempt=n)[0] for n in (1, 2)] == [422, 422]
    assert facts(ledger, workflow)[1:] == [Fact.APPLIED, Fact.REPEATED]


def test_what_was_done_is_undone_once(ledger: Ledger, workflow: str) -> None:
    call(ledger, workflow, INPUT)
    assert undo(ledger, workflow, INPUT)[0] == 200
    assert undo(ledger, workflow, INPUT, attempt=2)[0] == 200
    assert facts(ledger, workflow) == [Fact.APPLIED, Fact.APPLIED, Fact.REPEATED]
    assert len({one.input_hash for one in lines(ledger, workflow)}) == 1


def test_an_execute_after_its_compensation_is_refused(ledger: Ledger, workflow: str) -> None:
    assert undo(ledger, workflow, INPUT)[0] == 200
    assert call(ledger, workflow, INPUT)[0] == 422
    assert facts(ledger, workflow) == [Fact.BARRED, Fact.TOO_LATE]


@pytest.mark.parametrize(
    ("behave", "status", "fact"),
    [
        ("well", 200, Fact.APPLIED),
        ("refuse", 422, Fact.REFUSED),
        ("fail", 500, Fact.NOT_DONE),
        ("act_and_fail", 500, Fact.APPLIED),
    ],
)
def test_the_input_says_how_it_behaves(
    ledger: Ledger, workflow: str, behave: str, status: int, fact: Fact
) -> None:
    assert call(ledger, workflow, {**INPUT, "behave": behave})[0] == status
    assert call(ledger, workflow, {**INPUT, "behave": behave}, attempt=2)[0] == status
    assert facts(ledger, workflow)[0] is fact


def test_an_undoing_is_refused(ledger: Ledger, workflow: str) -> None:
    given = {**INPUT, "behave": "refuse_undo"}
    assert call(ledger, workflow, given)[0] == 200
    assert undo(ledger, workflow, given)[0] == 422
    assert facts(ledger, workflow) == [Fact.APPLIED, Fact.REFUSED]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (Kind.FAIL_BEFORE, 500),
        (Kind.FAIL_AFTER, 500),
        (Kind.UNAVAILABLE, 503),
        (Kind.TOO_MANY, 429),
        (Kind.BUSY, 409),
    ],
)
def test_a_fault_answers_with_its_status(
    ledger: Ledger, workflow: str, kind: Kind, status: int
) -> None:
    ledger.fault(Rule(kind, times=1, retry_after_s=7))
    told, _, headers = call(ledger, workflow, INPUT)
    assert told == status
    if kind in (Kind.UNAVAILABLE, Kind.TOO_MANY):
        assert headers["Retry-After"] == "7"
    _struck_once_and_is_well(ledger, workflow, kind)


@pytest.mark.parametrize("kind", [Kind.HANG, Kind.ACT_THEN_HANG, Kind.DRIP])
def test_a_fault_that_does_not_end(ledger: Ledger, workflow: str, kind: Kind) -> None:
    ledger.fault(Rule(kind, times=1, ms=60_000))
    with socket.create_connection(("127.0.0.1", ledger.port)) as client:
        client.sendall(_raw(workflow))
        client.settimeout(0.2)
        if kind is Kind.DRIP:
            assert client.recv(4096).endswith(b"\r\n\r\n")
        with pytest.raises(TimeoutError):
            client.recv(1)
    _struck_once_and_is_well(ledger, workflow, kind)


@pytest.mark.parametrize("kind", [Kind.RESET_BEFORE, Kind.RESET_AFTER])
def test_a_fault_that_resets(ledger: Ledger, workflow: str, kind: Kind) -> None:
    ledger.fault(Rule(kind, times=1))
    with pytest.raises(ConnectionResetError):
        call(ledger, workflow, INPUT)
    _struck_once_and_is_well(ledger, workflow, kind)


def test_garbage(ledger: Ledger, workflow: str) -> None:
    ledger.fault(Rule(Kind.GARBAGE, times=1))
    status, body, _ = call(ledger, workflow, INPUT)
    assert status == 200
    with pytest.raises(ValueError, match="Unterminated"):
        json.loads(body)
    _struck_once_and_is_well(ledger, workflow, Kind.GARBAGE)


def test_what_was_to_be_done_later_is_done_when_a_fault_says_so(
    ledger: Ledger, workflow: str
) -> None:
    """Nobody would ask for it again."""
    later = {**INPUT, "behave": "later"}
    ledger.fault(Rule(Kind.GARBAGE, workflow=workflow))
    assert call(ledger, workflow, later)[0] == 200
    assert undo(ledger, workflow, later)[0] == 200
    assert facts(ledger, workflow) == [Fact.APPLIED, Fact.APPLIED]


def test_a_huge_body(ledger: Ledger, workflow: str) -> None:
    ledger.fault(Rule(Kind.HUGE, times=1, bytes=2_000_000))
    status, body, _ = call(ledger, workflow, INPUT)
    assert status == 200
    assert len(json.loads(body)["mark"]) > 1_900_000
    _struck_once_and_is_well(ledger, workflow, Kind.HUGE)


def test_a_gzip_bomb(ledger: Ledger, workflow: str) -> None:
    ledger.fault(Rule(Kind.GZIP_BOMB, times=1, bytes=2_000_000))
    _, body, headers = call(ledger, workflow, INPUT)
    assert headers["Content-Encoding"] == "gzip"
    assert len(body) < 20_000
    assert len(gzip.decompress(body)) > 1_900_000
    _struck_once_and_is_well(ledger, workflow, Kind.GZIP_BOMB)


def test_a_slow_drip_ends(ledger: Ledger, workflow: str) -> None:
    ledger.fault(Rule(Kind.DRIP, times=1, ms=1))
    status, body, _ = call(ledger, workflow, INPUT)
    assert (status, json.loads(body)["mark"]) == (200, lines(ledger, workflow)[0].mark)


def test_slow_acts_although_nobody_listens(ledger: Ledger, workflow: str) -> None:
    ledger.fault(Rule(Kind.SLOW, times=1, ms=1000))
    with socket.create_connection(("127.0.0.1", ledger.port)) as client:
        client.sendall(_raw(workflow))
    call(ledger, f"{workflow}-other", INPUT)  # struck by nothing: the request has come in
    assert facts(ledger, workflow) == []
    assert undo(ledger, workflow, INPUT)[0] == 200
    deadline = time.monotonic() + 10
    while len(facts(ledger, workflow)) < 2:
        assert time.monotonic() < deadline
    assert facts(ledger, workflow) == [Fact.BARRED, Fact.TOO_LATE]


def test_rules_choose_whom_they_strike(ledger: Ledger, workflow: str) -> None:
    ledger.fault(
        Rule(Kind.BUSY, step="another"),
        Rule(Kind.FAIL_BEFORE, action="compensate", skip=1),
        Rule(Kind.TOO_MANY, path="/charge", per_key=1),
    )
    assert [call(ledger, workflow, INPUT)[0] for _ in range(2)] == [429, 200]
    assert call(ledger, f"{workflow}-other", INPUT)[0] == 429
    assert [undo(ledger, workflow, INPUT)[0] for _ in range(2)] == [200, 500]


def test_chance_is_drawn_from_the_seed_and_the_key(ledger: Ledger, workflow: str) -> None:
    def struck(seed: int, names: list[str]) -> set[str]:
        ledger.fault(Rule(Kind.BUSY, probability=0.5, seed=seed))
        return {one for one in names if call(ledger, f"{workflow}-{seed}-{one}", INPUT)[0] == 409}

    names = [str(number) for number in range(40)]
    first = struck(1, names)
    assert 5 < len(first) < 35
    ledger.restart()
    assert struck(1, list(reversed(names))) == first


def test_what_is_written_survives_a_kill(ledger: Ledger, workflow: str) -> None:
    call(ledger, workflow, INPUT)
    ledger.fault(Rule(Kind.BUSY, step="another"))
    ledger.kill()
    with pytest.raises(ConnectionRefusedError):
        call(ledger, workflow, INPUT)
    with ledger.path.open("ab") as file:
        file.write(b'{"cut sho')
    ledger.restart()
    call(ledger, workflow, INPUT)
    assert facts(ledger, workflow) == [Fact.APPLIED, Fact.REPEATED]


def test_a_service_that_forgets_keys_acts_every_time(tmp_path: Path) -> None:
    forgetful = Ledger(tmp_path, honours_keys=False)
    try:
        for attempt in (1, 2):
            assert call(forgetful, "w", INPUT, attempt=attempt)[0] == 200
        assert [one.fact for one in read_entries(forgetful.path)] == [Fact.APPLIED, Fact.APPLIED]
    finally:
        forgetful.stop()


def test_a_service_apart_can_be_away_or_frozen_alone(tmp_path: Path) -> None:
    together = Ledger(tmp_path, apart=("payments",))
    try:
        payments = together.of("payments")
        assert together.of("shipping") is together
        for number, one in enumerate((payments, together, payments)):
            assert call(one, f"w{number}", INPUT)[0] == 200
        assert [one.workflow for one in together.entries()] == ["w0", "w1", "w2"]
        assert [one.workflow for one in payments.entries()] == ["w0", "w2"]
        payments.freeze()
        with pytest.raises(TimeoutError):
            call(payments, "w3", INPUT)
        assert call(together, "w4", INPUT)[0] == 200
        payments.go_on()
        payments.kill()
        with pytest.raises(ConnectionRefusedError):
            call(payments, "w5", INPUT)
        payments.restart()
        assert call(payments, "w0", INPUT, attempt=2)[0] == 200
        assert payments.entries()[-1].fact is Fact.REPEATED
        payments.freeze()
    finally:
        together.stop()


def test_what_is_no_request_is_reset(ledger: Ledger) -> None:
    with socket.create_connection(("127.0.0.1", ledger.port), timeout=5) as client:
        client.sendall(b"what is this\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def _struck_once_and_is_well(ledger: Ledger, workflow: str, kind: Kind) -> None:
    """The fault stands in the book, before or after the effect; the next attempt goes well."""
    first = Fact.APPLIED if kind in ACTS_FIRST else Fact.NOT_DONE
    try:
        assert call(ledger, workflow, INPUT, attempt=2)[0] == 200
    except HTTPException:
        pytest.fail("the fault has struck twice")
    then = Fact.REPEATED if kind in ACTS_FIRST else Fact.APPLIED
    assert facts(ledger, workflow) == [first, then]
    assert [one.fault for one in lines(ledger, workflow)] == [kind, None]


def _raw(workflow: str) -> bytes:
    body = json.dumps(INPUT)
    return (
        f"POST /charge HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        f'Idempotency-Key: "{workflow}/charge/execute"\r\nGoConductor-Workflow: {workflow}\r\n'
        f"GoConductor-Step: charge\r\nGoConductor-Action: execute\r\nGoConductor-Attempt: 1\r\n\r\n"
        f"{body}"
    ).encode()
