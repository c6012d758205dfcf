"""One demo: start everything, run a batch of orders, check the books, leave nothing behind.

Ctrl-C, SIGTERM or the end of its terminal, at any moment, ends all that was started and removes
the temporary folder. When the demo itself is killed, the kernel ends its children.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from sidecar import wiring
from sidecar.cli.demo import show
from sidecar.cli.demo.audit import Ended, differences
from sidecar.cli.demo.children import DemoError
from sidecar.cli.demo.orders import Order, orders
from sidecar.cli.demo.sidecars import Sidecar, definition, ended
from sidecar.cli.demo.stage import Stage, demo_folder, open_stage
from sidecar.errors import EmbeddedServerError

_INTERRUPTED = 130
_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What may be asked of the demo.

    `data` is a folder that stays; None: a temporary one. `keep` leaves everything running after
    the batch, until it is interrupted.
    """

    orders: int = 30
    data: Path | None = None
    keep: bool = False


async def run_demo(options: DemoOptions) -> int:
    """Run the demo; the exit code: 0 if all balances, 1 if not, 130 if it was interrupted.

    Raises:
        GoConductorError: something could not be started, or did not answer.
    """
    if sys.platform != "linux":
        raise EmbeddedServerError("the demo runs on Linux only")
    wiring.log_warnings_only()
    interruption = _Interruption()
    demo = asyncio.create_task(_demo(options, interruption), name="demo")
    with interruption.ending(demo):
        try:
            return await demo
        except asyncio.CancelledError:
            if not interruption.came:
                raise
            return _INTERRUPTED


class _Interruption:
    """SIGINT, SIGTERM or SIGHUP ends the demo once; a second does not cut its cleaning up short."""

    def __init__(self) -> None:
        self.came = False
        self._awaited: asyncio.Event | None = None

    async def wait(self) -> None:
        """Wait for it: then it cancels nothing."""
        self._awaited = asyncio.Event()
        await self._awaited.wait()

    @contextmanager
    def ending(self, demo: asyncio.Task[int]) -> Iterator[None]:
        """While this lasts, an interruption ends `demo`."""

        def interrupt() -> None:
            if self._awaited is not None:
                self._awaited.set()
            elif not self.came:
                self.came = True
                demo.cancel()

        loop = asyncio.get_running_loop()
        heard = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
            heard.append(signal.SIGHUP)
        for number in heard:
            loop.add_signal_handler(number, interrupt)
        try:
            yield
        finally:
            for number in heard:
                loop.remove_signal_handler(number)


async def _demo(options: DemoOptions, interruption: _Interruption) -> int:
    out = show.console()
    with demo_folder(options.data) as folder:
        out.print("starting PostgreSQL, three services and their sidecars …")
        async with open_stage(folder) as stage:
            wrong = await _batch(stage, _next_orders(folder, options.orders), out)
            if options.keep:
                show.invitation(out, stage)
                await interruption.wait()
    return 1 if wrong else 0


async def _batch(stage: Stage, batch: list[Order], out: Console) -> list[str]:
    """Run the orders to their ends and print how they went; what does not balance."""
    loop = asyncio.get_running_loop()
    sidecars = [Sidecar(stage.http, replica.api) for replica in stage.replicas]
    await sidecars[0].register(definition())
    began = loop.time()
    with show.progress(out, len(batch)) as progress:
        results = await _run_all(batch, sidecars, progress)
    seconds = loop.time() - began
    books = stage.books()
    wrong = differences(results, books)
    show.summary(out, results, books["payments"])
    show.verdict(out, results, wrong, seconds)
    return wrong


async def _run_all(
    batch: Sequence[Order], sidecars: Sequence[Sidecar], progress: show.Progress
) -> list[Ended]:
    slots = asyncio.Semaphore(_AT_ONCE)

    async def run(order: Order, sidecar: Sidecar) -> Ended:
        async with slots:
            result = ended(order, await sidecar.ended(await sidecar.start(order)))
        progress.add(result)
        return result

    try:
        async with asyncio.TaskGroup() as group:
            running = [
                group.create_task(run(order, sidecars[at % len(sidecars)]))
                for at, order in enumerate(batch)
            ]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed  # one says as much as all of them
    return [task.result() for task in running]


def _next_orders(folder: Path, count: int) -> list[Order]:
    """The next orders of this folder: a second run in it must not meet the first one's keys."""
    last = folder / "last-order"
    try:
        first = 1 + (int(last.read_text()) if last.exists() else 0)
        last.write_text(str(first + count - 1))
    except (OSError, ValueError) as error:
        raise DemoError(f"--data: {last} cannot be used: {error}") from error
    return orders(first, count)
