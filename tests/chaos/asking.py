"""The client of a chaos run: starts and cancels workflows, and remembers what it was told.

A start is asked for with a start key, at any sidecar, again and again until somebody accepts it
or its time is over; then it is in doubt. What was accepted is never forgotten here, and the
checker wants to find it.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.chaos.definitions import Order, drawn
from tests.chaos.expectations import Cancel, Start

_PAUSE_S = 0.05
_CALL_WITHIN_S = 5.0
_MAY_REPEAT = frozenset({408, 429, 500, 502, 503, 504})


class Asking:
    """Asks sidecars by the addresses of their APIs."""

    def __init__(self, addresses: Callable[[], Sequence[str]], seed: int) -> None:
        self._addresses = addresses
        self._seed = seed
        self._lock = threading.Lock()
        self._starts: dict[str, Start] = {}
        self._cancels: list[Cancel] = []
        self._numbers = 0
        self._pool = ThreadPoolExecutor(max_workers=16, thread_name_prefix="chaos-client")
        self._closed = threading.Event()

    @property
    def starts(self) -> list[Start]:
        """All starts that were asked for."""
        with self._lock:
            return list(self._starts.values())

    @property
    def cancels(self) -> list[Cancel]:
        """All cancels that were asked for."""
        with self._lock:
            return list(self._cancels)

    def start(
        self,
        order: Order,
        number: int | None = None,
        *,
        at: str | None = None,
        insist_s: float = 30.0,
    ) -> str | None:
        """Start one workflow; None if nobody knows whether it took.

        The start key is made of its number: the same one again must give the same workflow. `at`
        is the address of the only sidecar to ask; with `insist_s` of 0 it is asked once.
        """
        number = self._take_numbers(1) if number is None else number
        start = Start(f"{self._seed}-{number}", order.definition, order.input(number), order.ends)
        with self._lock:
            self._starts.setdefault(start.key, start)
        body = {"definition": start.definition, "input": start.input, "start_key": start.key}
        draw = random.Random(f"where {self._seed} {number}")
        deadline = time.monotonic() + insist_s
        while True:
            status, told = ask(at or draw.choice(self._addresses()), "/v1/workflows", body)
            if status in (200, 201):
                return self._accepted(start, str(told["id"]))
            if status is not None and status not in _MAY_REPEAT:
                raise AssertionError(f"a start was answered {status}: {told}")
            if time.monotonic() > deadline or self._closed.wait(_PAUSE_S):
                return None

    def begin_load(
        self, count: int, mix: Sequence[Order], *, parallel: int = 8, insist_s: float = 60.0
    ) -> Future[list[str]]:
        """Start so many workflows, in threads of their own; the result are those accepted."""
        if count < 1:
            raise ValueError("a load has at least one workflow")
        first = self._take_numbers(count)
        orders = iter(list(enumerate(drawn(mix, count, self._seed + first), first)))
        lock = threading.Lock()

        def work() -> list[str]:
            accepted: list[str] = []
            while not self._closed.is_set():
                with lock:
                    number, order = next(orders, (0, None))
                if order is None:
                    break
                found = self.start(order, number, insist_s=insist_s)
                accepted += [found] if found else []
            return accepted

        parts = [self._pool.submit(work) for _ in range(min(parallel, count))]
        return self._pool.submit(lambda: [one for part in parts for one in part.result()])

    def _take_numbers(self, count: int) -> int:
        with self._lock:
            first, self._numbers = self._numbers, self._numbers + count
            return first

    def _accepted(self, start: Start, workflow: str) -> str:
        with self._lock:
            known = self._starts[start.key].workflow
            if known not in (None, workflow):
                raise AssertionError(f"the start key {start.key} gave {known} and {workflow}")
            self._starts[start.key] = replace(start, workflow=workflow)
            return workflow

    def cancel(self, workflow: str, *, at: str | None = None) -> int | None:
        """Ask once that a workflow be undone; the answer's status, None if it is in doubt."""
        address = at or self._addresses()[0]
        status, _ = ask(address, f"/v1/workflows/{workflow}/cancel", {})
        status = None if status in _MAY_REPEAT else status
        with self._lock:
            self._cancels.append(Cancel(workflow, status))
        return status

    def tell(
        self,
        workflow: str,
        verb: str,
        body: Any = None,
        *,
        at: str | None = None,
        insist_s: float = 30.0,
    ) -> int | None:
        """Ask for a verb, at one sidecar or at any, until somebody answers it; None: in doubt."""
        draw = random.Random(f"where {self._seed} {workflow} {verb}")
        deadline = time.monotonic() + insist_s
        while True:
            address = at or draw.choice(self._addresses())
            status, _ = ask(address, f"/v1/workflows/{workflow}/{verb}", body or {})
            if status is not None and status not in _MAY_REPEAT:
                return status
            if time.monotonic() > deadline or self._closed.wait(_PAUSE_S):
                return None

    def close(self) -> None:
        """End all that is being asked."""
        self._closed.set()
        self._pool.shutdown(cancel_futures=True)


def ask(address: str, path: str, body: Any = None) -> tuple[int | None, Any]:
    """POST plain data, or GET without any.

    Returns the status and the answer, or None and why nobody knows.
    """
    request = Request(  # noqa: S310
        address + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urlopen(request, timeout=_CALL_WITHIN_S) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, error.read().decode(errors="replace")
    except (OSError, HTTPException, ValueError) as error:
        return None, str(error)
