"""What people read: tables, with colours only on a terminal."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sidecar.cli.failure import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

Json = dict[str, Any]

_STYLES = {
    "completed": "green",
    "succeeded": "green",
    "in_progress": "cyan",
    "running": "cyan",
    "queued": "cyan",
    "waiting": "cyan",
    "retrying": "yellow",
    "in_doubt": "yellow",
    "rolling_back": "yellow",
    "compensating": "yellow",
    "rolled_back": "magenta",
    "compensated": "magenta",
    "failed": "red",
    "error": "bold red",
    "terminated": "bold red",
    "deprecated": "yellow",
    "refused": "yellow",
    "done": "green",
    "retired": "red",
    "compensation_failed": "bold red",
}
_WIDE = 400
"""Columns where there is no terminal: a line of a table must not be cut for a program."""


def console() -> Console:
    """Return where tables are printed."""
    import sys

    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False, soft_wrap=False)


def show(content: RenderableType) -> None:
    """Print."""
    console().print(content)


def workflows(page: Json) -> RenderableType:
    """Return a list of workflows."""
    table = _table("id", "definition", "status", "reason", "created", "ended")
    for one in page["workflows"]:
        table.add_row(
            _text(one["id"]),
            _text(f"{one['definition']} v{one['version']}"),
            _status(one["status"]),
            _text(one["reason"]),
            _time(one["created_at"]),
            _time(one["ended_at"]),
        )
    return table


def versions(page: Json) -> RenderableType:
    """Return the versions of a definition."""
    table = _table("version", "state", "open workflows", "current", "registered", "hash")
    for one in page["versions"]:
        more = "+" if one["open_workflows_more"] else ""
        table.add_row(
            _text(one["version"]),
            _status(one["state"]),
            _text(f"{one['open_workflows']}{more}"),
            _text("yes" if one["current"] else ""),
            _time(one["created_at"]),
            _text(one["hash"][:12]),
        )
    return table


def jobs(found: list[Json]) -> RenderableType:
    """Return bulk jobs."""
    counts = ("selected", "open", "done", "refused", "failed")
    table = _table("job", "verb", "status", *counts, "began", "ended", "actor")
    for one in found:
        more = "+" if one["more"] else ""
        table.add_row(
            _text(one["id"]),
            _text(one["verb"]),
            _status(one["status"]),
            _text(f"{one['selected']}{more}"),
            *(_text(one[name]) for name in counts[1:]),
            _time(one["created_at"]),
            _time(one["ended_at"]),
            _text(one["actor"]),
        )
    return table


def bulk_members(job: Json) -> RenderableType:
    """Return what became of the workflows of a job."""
    table = _table("id", "result", "why")
    for one in job["workflows"]:
        table.add_row(_text(one["id"]), _status(one["result"]), _text(one["detail"] or ""))
    return table


def debt(page: Json) -> RenderableType:
    """Return what is owed, by service and one by one."""
    from rich.console import Group

    services = _table("service", "owed", "overdue", "failed", "oldest")
    for one in page["services"]:
        counts = (_text(one[name]) for name in ("owed", "overdue", "failed"))
        services.add_row(_text(one["service"]), *counts, _time(one["oldest_at"]))
    entries = _table("since", "workflow", "is", "step", "service", "undoing", "tries", "error")
    for one in page["entries"]:
        entries.add_row(
            _time(one["since"]),
            _text(one["workflow"]),
            _status(one["workflow_status"]),
            _text(_step_name(one["step"], one["index"])),
            _text(one["service"]),
            _status(one["status"]),
            _text(one["tries"]),
            _text(_brief(one["error"])),
        )
    return Group(services, "", entries)


def services(page: Json) -> RenderableType:
    """Return services, each with its live sidecars."""
    table = _table("service", "actions", "catalogue", "sidecar", "version", "has", "is", "seen")
    for one in page["services"]:
        actions = ", ".join(sorted(one["actions"]))
        first = [one["service"], actions or None, one["catalogue"]]
        for sidecar in one["sidecars"] or [{}]:
            table.add_row(*map(_text, first), *_sidecar(sidecar))
            first = ["", "", ""]
    return table


def _sidecar(one: Json) -> list[Text]:
    """The cells of a live sidecar, or of none."""
    if not one:
        return [_text("none lives"), *map(_text, ["", "", "", ""])]
    state = "draining" if one["draining"] else "ready" if one["ready"] else "not ready"
    told = (one["host"], one["version"], one["catalogue"], state)
    return [*map(_text, told), _time(one["seen_at"])]


def events(page: Json) -> RenderableType:
    """Return a history."""
    table = _table("seq", "time", "what", "from", "to", "attempt", "cause", "actor", "details")
    for one in page["events"]:
        what = one["kind"] if one["step"] is None else _step_name(one["step"], one["index"])
        if one["action"] == "compensate":
            what = f"undo {what}"
        if one["step"] is not None and one["kind"] not in ("step", "compensation"):
            what = f"{one['kind']} {what}"
        table.add_row(
            _text(one["seq"]),
            _time(one["time"]),
            _text(what),
            _status(one["from"]),
            _status(one["to"]),
            _text(one["attempt"]),
            _text(one["cause"]),
            _text(one["actor"]),
            _text(", ".join(f"{name}: {said}" for name, said in (one["details"] or {}).items())),
        )
    return table


def items(page: Json) -> RenderableType:
    """Return items of a fan-out."""
    return _steps(page["items"])


def brief_step(step: Json) -> str:
    """Return a step and its status in a word, of a fan-out with its items."""
    counted = f"({_items(step['items'])})" if step["items"] else ""
    return f"{step['name']}={step['status']}{counted}"


def workflow(view: Json) -> RenderableType:
    """Return one workflow: how it stands, why it is not moving, and its steps."""
    from rich.console import Group

    head = _grid()
    head.add_row("workflow", _text(view["id"]))
    head.add_row("definition", _text(f"{view['definition']} v{view['version']}"))
    head.add_row("status", _status(view["status"]))
    for name, value in (
        ("reason", view["reason"]),
        ("paused", "yes" if view["paused"] else None),
        ("waiting on", "\n".join(view["waiting_on"])),
        ("next attempt", _when(view["next_attempt_at"])),
        ("last error", _brief(view["last_error"])),
        ("error", _brief(view["error"])),
        ("input", _brief(view["input"])),
        ("output", _brief(view["output"])),
        ("labels", ", ".join(f"{name}={value}" for name, value in view["labels"].items())),
        ("created", _when(view["created_at"])),
        ("ended", _when(view["ended_at"])),
    ):
        if value:
            head.add_row(name, _text(value))
    return Group(head, "", _steps(view["steps"]))


def _steps(steps: list[Json]) -> Table:
    """The steps of a workflow, each followed by how it is undone."""
    fans_out = any(step["items"] for step in steps)
    items = ("items",) if fans_out else ()
    table = _table(
        "step", "service", "status", *items, "attempts", "tries", "started", "took", "error"
    )
    for step in steps:
        counted = (_text(_items(step["items"])),) if fans_out else ()
        undo = step["compensation"]
        # While a step is undone its status speaks of that; the row above it is what it was.
        table.add_row(
            _text(_step_name(step["name"], step["index"])),
            _text(step["service"]),
            _text("") if undo else _status(step["status"]),
            *counted,
            *_run(step),
        )
        if undo is not None:
            blank = (_text(""),) * len(items)
            table.add_row(_text("  undo"), _text(""), _status(undo["status"]), *blank, *_run(undo))
    return table


def _items(items: Json | None) -> str | None:
    """How the items of a fan-out stand."""
    if items is None:
        return None
    ended = items["total"] - items["pending"] - items["open"]
    parts = [f"{ended} of {items['total']} ended"]
    words = {"failed": "failed", "undoing": "being undone", "not_undone": "not undone"}
    parts += [f"{items[name]} {said}" for name, said in words.items() if items[name]]
    return ", ".join(parts)


def _run(run: Json) -> tuple[Text, ...]:
    """What is shown of the attempts at one action."""
    return (
        _text(run["attempt"]),
        _text(run["tries"]),
        _time(run["started_at"]),
        _text(_took(run["started_at"], run["ended_at"])),
        _text(_brief(run["error"])),
    )


def _table(*columns: str) -> Table:
    """A table without lines, so that programs can cut it into columns too."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.upper(), overflow="fold")
    return table


def _grid() -> Table:
    """Names and values."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def _text(value: object) -> Text:
    """A value, never taken for markup."""
    from rich.text import Text

    return Text("-" if value is None else printable(str(value)))


def _status(status: str | None) -> Text:
    """A status in its colour."""
    from rich.text import Text

    return Text(printable(status or "-"), style=_STYLES.get(status or "", ""))


def _time(stamp: str | None) -> Text:
    """A time in a table."""
    return _text(_when(stamp))


def _when(stamp: str | None) -> str | None:
    """A time to the millisecond, in UTC as the server gives it."""
    if stamp is None:
        return None
    return f"{datetime.fromisoformat(stamp):%Y-%m-%d %H:%M:%S.%f}"[:-3] + "Z"


def _took(started: str | None, ended: str | None) -> str:
    """How long something took, in seconds."""
    if started is None or ended is None:
        return "-"
    span = datetime.fromisoformat(ended) - datetime.fromisoformat(started)
    return f"{span.total_seconds():.3f}s"


def _brief(body: Any, most: int = 200) -> str | None:
    """A body in one line, cut; an error with a code and a message as those two."""
    if body is None:
        return None
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        line = f"{body.get('code', 'error')}: {body['message']}"
    else:
        line = json.dumps(body, ensure_ascii=False)
    return line if len(line) <= most else f"{line[:most]}..."


def _step_name(name: str, index: int | None) -> str:
    """A step, or an item of a fan-out."""
    return name if index is None else f"{name}[{index}]"
