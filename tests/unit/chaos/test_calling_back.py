"""What the ledger does after a 202: it acts later and calls back until heard, or is silent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from tests.chaos.book import Asked, Book, Entry, Fact
from tests.chaos.calling_back import AGAIN
from tests.chaos.ledger import Ledger
from tests.servers.processes import free_port

pytestmark = pytest.mark.timeout(60)
TOKEN = "/v1/tasks/token"
WITHIN_S = 20.0


class Taker:
    """A sidecar that takes callbacks; `answers` are the statuses, the last of them for ever."""

    def __init__(self, *answers: int) -> None:
        self.heard: Queue[tuple[str, Any]] = Queue()
        left = list(answers)
        heard = self.heard

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                heard.put((self.path, json.loads(raw)))
                self.send_response(left.pop(0) if len(left) > 1 else left[0])
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    one = Ledger(tmp_path)
    yield one
    one.stop()


@pytest.fixture
def taker() -> Iterator[Taker]:
    one = Taker(200)
    yield one
    one.close()


def call(
    ledger: Ledger, behave: str, at: str, *, action: str = "execute", attempt: int = 1
) -> tuple[int, Any]:
    given: Any = {"order": 1, "behave": behave}
    body = given if action == "execute" else {"input": given, "output": None}
    connection = HTTPConnection("127.0.0.1", ledger.port, timeout=5)
    headers = {
        "Idempotency-Key": f'"w/pack/{action}"',
        "GoConductor-Workflow": "w",
        "GoConductor-Step": "pack",
        "GoConductor-Action": action,
        "GoConductor-Attempt": str(attempt),
        "GoConductor-Callback": f"{at}{TOKEN}",
    }
    try:
        connection.request("POST", "/pack", json.dumps(body).encode(), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def called_back(ledger: Ledger) -> Entry:
    """Wait for the line that says what the callback was answered."""
    found: list[Entry] = []

    def there() -> bool:
        found[:] = [one for one in ledger.entries() if one.fact is Fact.CALLED_BACK]
        return bool(found)

    ledger.wait_until(there, within_s=WITHIN_S)
    return found[-1]


def facts(ledger: Ledger) -> list[tuple[Fact, bool]]:
    return [(one.fact, one.later) for one in ledger.entries()]


def test_what_was_taken_on_is_done_and_told(ledger: Ledger, taker: Taker) -> None:
    assert call(ledger, "later", taker.url)[0] == 202
    path, body = taker.heard.get(timeout=WITHIN_S)
    assert (path, called_back(ledger).status) == (f"{TOKEN}/complete", 200)
    done = next(one for one in ledger.entries() if one.applied)
    assert body == {"output": {"mark": done.mark}}
    assert facts(ledger) == [
        (Fact.TAKEN_ON, False),
        (Fact.APPLIED, True),
        (Fact.CALLED_BACK, True),
    ]
    assert call(ledger, "later", taker.url, attempt=2) == (200, {"mark": done.mark})


def test_what_was_taken_on_may_be_refused(ledger: Ledger, taker: Taker) -> None:
    assert call(ledger, "later_refuse", taker.url)[0] == 202
    path, body = taker.heard.get(timeout=WITHIN_S)
    assert (path, body["outcome"]) == (f"{TOKEN}/fail", "refused")
    called_back(ledger)
    assert call(ledger, "later_refuse", taker.url, attempt=2)[0] == 422
    assert not any(one.applied for one in ledger.entries())


def test_what_was_undone_meanwhile_is_not_done_any_more(tmp_path: Path) -> None:
    """By the book alone: which of the two comes first is not left to chance."""
    book = Book(tmp_path / "book")
    given = {"order": 1, "behave": "later"}
    asked = Asked("w/pack/execute", "/pack", "w", "pack", "execute", 1, json.dumps(given).encode())
    undone = replace(
        asked,
        key="w/pack/compensate",
        action="compensate",
        body=json.dumps({"input": {**given, "behave": "well"}}).encode(),
    )
    found = [book.act(asked), book.act(undone), book.act_after_all(asked)]
    book.close()
    assert [one.fact for one in found] == [Fact.TAKEN_ON, Fact.BARRED, Fact.TOO_LATE]


def test_who_has_gone_is_passed_over(ledger: Ledger) -> None:
    """The one that called has died; another takes it, or says that it is too late."""
    gone, takes = f"http://127.0.0.1:{free_port()}", Taker(409)
    try:
        ledger.call_back_at(gone, takes.url)
        assert call(ledger, "later", gone)[0] == 202
        assert called_back(ledger).status == 409
        assert takes.heard.qsize() == 1
    finally:
        takes.close()


def test_a_callback_that_was_lost_is_said_again(ledger: Ledger) -> None:
    takes = Taker(503, 503, 200)
    try:
        ledger.call_back_at(takes.url)
        assert call(ledger, "later", takes.url)[0] == 202
        assert (called_back(ledger).status, called_back(ledger).fault) == (200, AGAIN)
        assert takes.heard.qsize() == 3
    finally:
        takes.close()


def test_who_forgets_acts_and_never_calls_back(ledger: Ledger, taker: Taker) -> None:
    assert call(ledger, "forget", taker.url)[0] == 202
    assert call(ledger, "forget", taker.url, attempt=2)[0] == 202
    assert facts(ledger) == [(Fact.APPLIED, False), (Fact.REPEATED, False)]
    assert call(ledger, "later", taker.url, action="compensate")[0] == 202
    path, body = taker.heard.get(timeout=WITHIN_S)
    assert (path, body) == (f"{TOKEN}/complete", {"output": {"undone": True}})
    assert taker.heard.empty()


def test_who_promises_never_acts(ledger: Ledger, taker: Taker) -> None:
    assert call(ledger, "promise", taker.url)[0] == 202
    assert call(ledger, "later", taker.url, attempt=2)[0] == 202
    taker.heard.get(timeout=WITHIN_S)  # of the second, which came later
    called_back(ledger)
    assert facts(ledger)[:2] == [(Fact.TAKEN_ON, False)] * 2
    assert sum(one.applied for one in ledger.entries()) == 1


def test_an_undoing_that_was_taken_on_is_done_later(ledger: Ledger, taker: Taker) -> None:
    call(ledger, "well", taker.url)
    assert call(ledger, "later", taker.url, action="compensate")[0] == 202
    called_back(ledger)
    assert [one.action for one in ledger.entries() if one.applied] == ["execute", "compensate"]
