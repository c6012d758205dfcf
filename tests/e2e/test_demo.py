"""The demo runs, balances, and leaves nothing behind.

Its services keep the contract however badly they behave, and its audit sees every imbalance.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from sidecar.cli.demo.audit import Ended, differences
from sidecar.cli.demo.ledger import Entry, Fact, Ledger, read_ledger
from sidecar.cli.demo.orders import Order, Trouble, orders, trouble_of
from sidecar.cli.demo.service import TRADES, DemoService
from sidecar.cli.demo.sidecars import DEFINITION, definition
from sidecar.definitions import parse_definition
from tests.servers.processes import wait_gone

BATCH = orders(1, 24)
Client = TestClient[Any, Any]


def _with(service: str, trouble: Trouble, action: str = "execute") -> Order:
    return next(one for one in BATCH if trouble_of(service, action, one.id) is trouble)


def _told(words: str) -> Order:
    return next(one for one in BATCH if words in one.tells)


SMOOTH = next(one for one in BATCH if not one.tells)


@asynccontextmanager
async def _serving(name: str, folder: Path) -> AsyncIterator[Client]:
    book = Ledger(folder / f"{name}.jsonl")
    try:
        async with TestClient(TestServer(DemoService(name, book).app())) as client:
            yield client
    finally:
        book.close()


async def _execute(client: Client, name: str, order: Order) -> tuple[int, Any]:
    return await _post(client, TRADES[name].execute, f"w-{order.id}/s/execute", order.input())


async def _compensate(client: Client, name: str, order: Order) -> tuple[int, Any]:
    body = {"input": order.input(), "output": None, "outcome": "unknown", "reason": "failed"}
    return await _post(client, TRADES[name].compensate, f"w-{order.id}/s/compensate", body)


async def _post(client: Client, path: str, key: str, body: object) -> tuple[int, Any]:
    async with client.post(path, json=body, headers={"Idempotency-Key": f'"{key}"'}) as answer:
        return answer.status, await answer.json(content_type=None)


def _facts(folder: Path, name: str) -> list[Fact]:
    return [entry.fact for entry in read_ledger(folder / f"{name}.jsonl")]


@pytest.mark.parametrize("name", TRADES)
async def test_a_service_acts_once_and_undoes_once(name: str, tmp_path: Path) -> None:
    async with _serving(name, tmp_path) as client:
        first = await _execute(client, name, SMOOTH)
        assert first[0] == 200
        assert await _execute(client, name, SMOOTH) == first
        assert await _compensate(client, name, SMOOTH) == (200, {"undone": True})
        assert await _compensate(client, name, SMOOTH) == (200, {"undone": True})
    assert _facts(tmp_path, name) == [Fact.APPLIED, Fact.UNDONE]


@pytest.mark.parametrize("name", TRADES)
@pytest.mark.fault(12)
async def test_what_arrives_after_its_compensation_is_refused(name: str, tmp_path: Path) -> None:
    async with _serving(name, tmp_path) as client:
        assert await _compensate(client, name, SMOOTH) == (200, {"undone": False})
    async with _serving(name, tmp_path) as client:  # also after a restart of the service
        status, problem = await _execute(client, name, SMOOTH)
        assert (status, problem["detail"]) == (422, "this was undone before it arrived")
    assert _facts(tmp_path, name) == [Fact.BARRED, Fact.REFUSED]


@pytest.mark.parametrize(
    ("name", "words"),
    [("payments", "over the limit"), ("inventory", "out of stock"), ("shipping", "delivers")],
)
async def test_a_refusal_is_final_and_leaves_nothing(name: str, words: str, tmp_path: Path) -> None:
    async with _serving(name, tmp_path) as client:
        for _ in range(2):
            assert (await _execute(client, name, _told(words)))[0] == 422
    assert _facts(tmp_path, name) == [Fact.REFUSED]


async def test_a_failure_after_acting_is_answered_well_the_second_time(tmp_path: Path) -> None:
    order = _with("payments", Trouble.FAILS_AFTER_ACTING)
    async with _serving("payments", tmp_path) as client:
        assert (await _execute(client, "payments", order))[0] == 500
        assert (await _execute(client, "payments", order))[0] == 200
    assert _facts(tmp_path, "payments") == [Fact.APPLIED]


async def test_a_refund_that_failed_after_acting_is_paid_once(tmp_path: Path) -> None:
    order = _with("payments", Trouble.FAILS_AFTER_ACTING, "compensate")
    async with _serving("payments", tmp_path) as client:
        assert (await _execute(client, "payments", order))[0] == 200
        assert (await _compensate(client, "payments", order))[0] == 500
        assert (await _compensate(client, "payments", order))[0] == 200
    assert _facts(tmp_path, "payments") == [Fact.APPLIED, Fact.UNDONE]


async def test_a_service_that_is_too_slow_has_acted(tmp_path: Path) -> None:
    order = _with("shipping", Trouble.SLOW_AFTER_ACTING)
    async with _serving("shipping", tmp_path) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):  # as the demo's definition does
                await _execute(client, "shipping", order)
        assert (await _execute(client, "shipping", order))[0] == 200
    assert _facts(tmp_path, "shipping") == [Fact.APPLIED]


async def test_an_unavailable_service_has_not_acted(tmp_path: Path) -> None:
    order = _with("inventory", Trouble.UNAVAILABLE)
    async with _serving("inventory", tmp_path) as client:
        assert (await _execute(client, "inventory", order))[0] == 503
        assert _facts(tmp_path, "inventory") == []
        assert (await _execute(client, "inventory", order))[0] == 200


@pytest.mark.parametrize(
    ("name", "trouble", "left"),
    [
        ("payments", Trouble.RESETS_AFTER_ACTING, [Fact.APPLIED]),
        ("inventory", Trouble.ALWAYS_RESETS, []),
    ],
)
async def test_a_broken_connection_says_nothing(
    name: str, trouble: Trouble, left: list[Fact], tmp_path: Path
) -> None:
    async with _serving(name, tmp_path) as client:
        with pytest.raises(aiohttp.ClientError):
            await _execute(client, name, _with(name, trouble))
    assert _facts(tmp_path, name) == left


async def test_a_key_of_another_action_is_not_understood(tmp_path: Path) -> None:
    async with _serving("payments", tmp_path) as client:
        status, _ = await _post(client, "/charges", "w/s/compensate", SMOOTH.input())
    assert status == 400


def test_a_line_that_was_cut_short_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "book.jsonl"
    book = Ledger(path)
    book.write(_entry(Fact.APPLIED, "order-001"))
    book.close()
    with path.open("a") as file:
        file.write('{"fact": "undo')
    book = Ledger(path)
    book.write(_entry(Fact.UNDONE, "order-001"))
    book.close()
    assert [entry.fact for entry in read_ledger(path)] == [Fact.APPLIED, Fact.UNDONE]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_every_kind_of_order_comes_in_a_batch() -> None:
    assert {order.tells for order in orders(1, 12)} == {order.tells for order in BATCH}
    assert [order.id for order in orders(13, 2)] == ["order-013", "order-014"]


def test_the_shipped_definition_is_sound() -> None:
    assert parse_definition(definition(), "application/yaml").name == DEFINITION


def _entry(fact: Fact, order: str, amount: int = 500) -> Entry:
    return Entry(fact, f"w-{order}/s/{fact}", f"w-{order}/s", order, amount, 200, {})


def _ended(status: str) -> Ended:
    return Ended("order-001", 500, status, "", 3)


_APPLIED, _UNDONE = _entry(Fact.APPLIED, "order-001"), _entry(Fact.UNDONE, "order-001")


@pytest.mark.parametrize(
    ("status", "book", "says"),
    [
        ("completed", [_APPLIED], None),
        ("completed", [], "never applied it"),
        ("completed", [_APPLIED, _APPLIED], "applied it 2 times"),
        ("completed", [_APPLIED, _UNDONE], "undid it"),
        ("rolled_back", [], None),
        ("rolled_back", [_APPLIED, _UNDONE], None),
        ("rolled_back", [_APPLIED], "applied it 1 times and undid it 0 times"),
        ("rolled_back", [_APPLIED, _UNDONE, _UNDONE], "undid it 2 times"),
        ("rolled_back", [_entry(Fact.BARRED, "order-001")], None),
        ("error", [_APPLIED], "neither completed nor rolled back"),
    ],
)
def test_the_audit_sees_what_does_not_balance(
    status: str, book: list[Entry], says: str | None
) -> None:
    found = differences([_ended(status)], {"shipping": book})
    if says is None:
        found = [one for one in found if "payments keeps" not in one]
        assert found == []
    else:
        assert says in found[0]


def test_the_audit_counts_the_money() -> None:
    wrong = _entry(Fact.APPLIED, "order-001", amount=499)
    assert differences([_ended("completed")], {"payments": [_APPLIED]}) == []
    assert differences([_ended("completed")], {"payments": [wrong]}) == [
        "payments keeps 4.99, and completed orders come to 5.00"
    ]


class Demo:
    """`goconductor demo` as a process, in a temporary folder of its own."""

    started: ClassVar[list[Demo]] = []
    """Of the present test."""

    def __init__(self, temporary: Path, *options: str) -> None:
        self._temporary = temporary
        self._output = temporary / "output"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sidecar.cli.main", "demo", *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(temporary)},
                # As from a terminal, also where these tests run without one.
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509  (no threads yet)
            )
        self.started.append(self)

    def until(self, words: str) -> None:
        """Wait until it has said this."""
        deadline = time.monotonic() + 45
        while words not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            threading.Event().wait(0.05)

    def said(self) -> str:
        return self._output.read_text()

    def descendants(self) -> list[int]:
        """Every process that runs because of it."""
        return _descendants(self.process.pid)

    def end(self) -> None:
        """End it, if a test that failed has not."""
        processes = self.descendants()
        self.process.kill()
        self.process.wait()
        wait_gone(processes, within_s=20)

    def left_behind(self) -> list[Path]:
        return list(self._temporary.glob("goconductor-demo-*"))


def _descendants(pid: int) -> list[int]:
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [one for child in map(int, listed) for one in (child, *_descendants(child))]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder that the database's own user can pass through."""
    folder = Path(tempfile.mkdtemp(prefix="goconductor-test-"))
    folder.chmod(0o711)
    yield folder
    while Demo.started:
        Demo.started.pop().end()
    shutil.rmtree(folder)


@pytest.mark.e2e
@pytest.mark.timeout(120)
def test_the_demo_balances_and_leaves_nothing(temporary: Path) -> None:
    demo = Demo(temporary, "--orders", "24")
    demo.until("starting")
    assert demo.process.wait(90) == 0, demo.said()
    assert "12 completed, 12 rolled back" in demo.said()
    assert demo.left_behind() == []


@pytest.mark.e2e
@pytest.mark.timeout(120)
def test_a_second_run_in_the_same_folder_goes_on(temporary: Path) -> None:
    for last in ("order-003", "order-006"):
        demo = Demo(temporary, "--orders", "3", "--data", str(temporary / "data"))
        assert demo.process.wait(60) == 0, demo.said()
        assert last in demo.said()


@pytest.mark.e2e
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("moment", "number", "code"),
    [
        ("starting", signal.SIGINT, 130),
        ("order-001  completed", signal.SIGHUP, 130),
        ("Ctrl-C ends", signal.SIGINT, 0),
    ],
)
def test_an_interruption_ends_everything(
    moment: str, number: signal.Signals, code: int, temporary: Path
) -> None:
    demo = Demo(temporary, "--keep", "--orders", "24")
    demo.until(moment)
    started = demo.descendants()
    demo.process.send_signal(number)
    assert demo.process.wait(30) == code, demo.said()
    wait_gone(started)
    assert demo.left_behind() == []


@pytest.mark.e2e
@pytest.mark.timeout(120)
@pytest.mark.fault(67)
def test_nothing_outlives_a_killed_demo_and_the_next_sweeps(temporary: Path) -> None:
    demo = Demo(temporary, "--keep", "--orders", "2")
    demo.until("Ctrl-C ends")
    started = demo.descendants()
    assert len(started) >= 7  # PostgreSQL, three services, three sidecars
    demo.process.kill()
    demo.process.wait()
    wait_gone(started, within_s=20)
    assert len(demo.left_behind()) == 1
    following = Demo(temporary, "--orders", "1")
    assert following.process.wait(60) == 0, following.said()
    assert following.left_behind() == []
