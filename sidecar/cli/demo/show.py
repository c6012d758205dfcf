"""What a person sees of the demo: how it goes, how every order ended, what does not balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sidecar.cli.demo.audit import Ended, money
from sidecar.cli.demo.ledger import Entry
from sidecar.cli.demo.sidecars import DEFINITION
from sidecar.cli.demo.stage import Stage

_STYLES = {"completed": "green", "rolled_back": "magenta"}
_RECENT = 6
_PLAIN_WIDTH = 160


def console() -> Console:
    """Where the demo speaks. Without a terminal no line is broken to fit one."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=_PLAIN_WIDTH)


class Progress:
    """How many orders ended how; drawn in place on a terminal, else one line for each end."""

    def __init__(self, out: Console, total: int, live: Live | None) -> None:
        self._out = out
        self._total = total
        self._live = live
        self._ended: list[Ended] = []

    def add(self, ended: Ended) -> None:
        """Tell that one more order ended."""
        self._ended.append(ended)
        if self._live is not None:
            self._live.update(self._picture())
        else:
            self._out.print(_line(ended))

    def _picture(self) -> Table:
        counts = Counter(one.status for one in self._ended)
        picture = Table.grid()
        head = Text(f"{len(self._ended)} of {self._total} orders have ended")
        for status, count in sorted(counts.items()):
            head.append(f"   {count} {_words(status)}", _STYLES.get(status, "bold red"))
        picture.add_row(head)
        for one in self._ended[-_RECENT:]:
            picture.add_row(_line(one))
        return picture


@contextmanager
def progress(out: Console, total: int) -> Iterator[Progress]:
    """Show how the batch goes while it goes."""
    if not out.is_terminal:
        yield Progress(out, total, None)
        return
    with Live(console=out, transient=True) as live:
        yield Progress(out, total, live)


def summary(out: Console, ended: Sequence[Ended], payments: Sequence[Entry]) -> None:
    """Print how every order ended, and why."""
    table = Table(box=None, pad_edge=False)
    for name in ("order", "outcome", "why, or what it met on its way"):
        table.add_column(name)
    for name in ("charged", "refunded", "calls"):
        table.add_column(name, justify="right")
    for one in sorted(ended, key=lambda one: one.order):
        account = money(one.order, payments)
        table.add_row(
            Text(one.order),
            Text(_words(one.status), _STYLES.get(one.status, "bold red")),
            Text(one.reason),
            _cents(account.charged),
            _cents(account.refunded),
            str(one.calls),
        )
    out.print(table)


def verdict(out: Console, ended: Sequence[Ended], wrong: Sequence[str], seconds: float) -> None:
    """Print whether all balances; `seconds` is how long the batch took."""
    counts = Counter(one.status for one in ended)
    told = ", ".join(f"{count} {_words(status)}" for status, count in sorted(counts.items()))
    out.print(f"\n{told}, in {seconds:.1f} s.")
    if not wrong:
        out.print(
            Text(
                "The services' books agree: every completed order was charged, reserved and "
                "shipped once; of every other nothing is left.",
                "green",
            )
        )
        return
    out.print(Text("The services' books do not balance:", "bold red"))
    for one in wrong:
        out.print(Text(f"  {one}"))


def invitation(out: Console, stage: Stage) -> None:
    """Print where everything is, and what to try."""
    out.print()
    for one in stage.replicas:
        out.print(
            f"{one.service:10} service http://127.0.0.1:{one.service_port}   sidecar {one.api}"
        )
    server = stage.replicas[0].api
    out.print(f"files      {stage.folder}\n\nTry, in another terminal:")
    example = (
        '{"order_id": "mine-1", "amount": 4200, "item": "lamp", "quantity": 1, '
        '"address": "1 Mill Lane"}'
    )
    out.print(f"  export GOCONDUCTOR_SERVER={server}")
    out.print("  goconductor list")
    out.print(f"  goconductor start {DEFINITION} --input '{example}'")
    out.print("\nCtrl-C ends it all.")


def _line(one: Ended) -> Text:
    line = Text(f"{one.order}  ")
    line.append(f"{_words(one.status):12}", _STYLES.get(one.status, "bold red"))
    line.append(one.reason)
    line.rstrip()
    return line


def _words(status: str) -> str:
    return status.replace("_", " ")


def _cents(amount: int) -> str:
    return f"{amount / 100:.2f}" if amount else ""
