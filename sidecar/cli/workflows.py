"""The commands about workflows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.failure import NotCompleted, printable
from sidecar.cli.options import client_options, print_json, read_input

if TYPE_CHECKING:
    from sidecar.cli.client import Client

_WAIT_S = 30
_WATCH_S = 1
_RETURNS = frozenset({"completed", "rolled_back", "terminated", "error"})


@click.command()
@click.argument("name")
@click.option("--version", type=click.IntRange(min=1), help="Version  [default: the latest]")
@click.option("--input", "input_", metavar="JSON|@FILE", help="Input; @- reads standard input.")
@click.option("--key", help="Start key: starting again with it returns the same workflow.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="May be repeated.")
@click.option("--wait", is_flag=True, help="Wait for the end; exit code 4 unless it completed.")
@client_options
def start(
    *,
    name: str,
    version: int | None,
    input_: str | None,
    key: str | None,
    labels: tuple[str, ...],
    wait: bool,
    server: str,
    namespace: str | None,
    output: str,
) -> None:
    """Start a workflow of definition NAME."""
    request: dict[str, Any] = {"definition": name}
    if version is not None:
        request["version"] = version
    if input_ is not None:
        request["input"] = read_input(input_)
    if key is not None:
        request["start_key"] = key
    if labels:
        request["labels"] = dict(_label(one, "=") for one in labels)
    client = _client(server, namespace)
    seconds = _WAIT_S if wait else 0
    answer = client.post(
        "workflows",
        query=_wait_query(seconds),
        body=json.dumps(request).encode(),
        wait=seconds,
    )
    if answer.deprecated is not None:
        click.echo(f"  note: {printable(answer.deprecated)}", err=True)
    if not wait:
        _print_started(answer.body, existed=answer.status == 200, output=output)
        return
    view = answer.body
    while view["status"] not in _RETURNS or "steps" not in view:
        view = client.get("workflows", view["id"], query=_wait_query(seconds), wait=seconds)
    print_view(view, output)
    _demand_completed(view)


@click.command(name="list")
@click.option("--status", "statuses", multiple=True, help="May be repeated, or a,b,c.")
@click.option("--definition", help="Only workflows of this definition.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="May be repeated.")
@click.option("--limit", type=click.IntRange(1, 100), default=50, show_default=True)
@click.option("--cursor", help="Where the last page ended.")
@client_options
def list_(
    *,
    statuses: tuple[str, ...],
    definition: str | None,
    labels: tuple[str, ...],
    limit: int,
    cursor: str | None,
    server: str,
    namespace: str | None,
    output: str,
) -> None:
    """List workflows, newest first."""
    query = [("limit", str(limit))]
    query += [("status", one) for one in statuses]
    query += [("label", ":".join(_label(one, "="))) for one in labels]
    if definition is not None:
        query.append(("definition", definition))
    if cursor is not None:
        query.append(("cursor", cursor))
    page = _client(server, namespace).get("workflows", query=query)
    if output == "json":
        print_json(page)
        return
    from sidecar.cli import tables

    tables.show(tables.workflows(page))
    _hint_more(page)


@click.command()
@click.argument("workflow", metavar="ID")
@click.option(
    "--watch", is_flag=True, help="Follow it to the end; exit code 4 unless it completed."
)
@client_options
def show(*, workflow: str, watch: bool, server: str, namespace: str | None, output: str) -> None:
    """Show one workflow: its steps, what it waits for, its last error."""
    client = _client(server, namespace)
    if not watch:
        print_view(client.get("workflows", workflow), output)
        return
    view = _follow(client, workflow) if output == "table" else _await_end(client, workflow)
    if output == "json":
        print_json(view)
    _demand_completed(view)


@click.command()
@click.argument("workflow", metavar="ID")
@click.option("--limit", type=click.IntRange(1, 100), default=100, show_default=True)
@click.option("--cursor", help="Where the last page ended.")
@client_options
def events(
    *,
    workflow: str,
    limit: int,
    cursor: str | None,
    server: str,
    namespace: str | None,
    output: str,
) -> None:
    """Show a workflow's history."""
    query = [("limit", str(limit))]
    if cursor is not None:
        query.append(("cursor", cursor))
    page = _client(server, namespace).get("workflows", workflow, "events", query=query)
    if output == "json":
        print_json(page)
        return
    from sidecar.cli import tables

    tables.show(tables.events(page))
    _hint_more(page)


@click.command()
@click.argument("workflow", metavar="ID")
@click.argument("step")
@click.option("--limit", type=click.IntRange(1, 100), default=100, show_default=True)
@click.option("--cursor", help="Where the last page ended.")
@client_options
def items(
    *,
    workflow: str,
    step: str,
    limit: int,
    cursor: str | None,
    server: str,
    namespace: str | None,
    output: str,
) -> None:
    """Show the items of the fan-out STEP, by their index."""
    query = [("limit", str(limit))]
    if cursor is not None:
        query.append(("cursor", cursor))
    client = _client(server, namespace)
    page = client.get("workflows", workflow, "steps", step, "items", query=query)
    if output == "json":
        print_json(page)
        return
    from sidecar.cli import tables

    tables.show(tables.items(page))
    _hint_more(page)


def _client(server: str, namespace: str | None) -> Client:
    """The sidecar that is asked."""
    from sidecar.cli.client import Client

    return Client(server, namespace)


def _wait_query(seconds: int) -> list[tuple[str, str]]:
    """How to ask for an answer at the end, or after so long."""
    return [("wait", f"{seconds}s")] if seconds else []


def _await_end(client: Client, workflow: str) -> dict[str, Any]:
    """The view of a workflow that needs no more waiting for."""
    while True:
        view: dict[str, Any] = client.get(
            "workflows", workflow, query=_wait_query(_WAIT_S), wait=_WAIT_S
        )
        if view["status"] in _RETURNS:
            return view


def _follow(client: Client, workflow: str) -> dict[str, Any]:
    """Show a workflow as it moves: in place on a terminal, else once for each change."""
    from rich.live import Live

    from sidecar.cli import tables

    view: dict[str, Any] = client.get("workflows", workflow)
    console = tables.console()
    if not console.is_terminal:
        return _follow_by_lines(client, workflow, view)
    with Live(tables.workflow(view), console=console, auto_refresh=False) as live:
        while view["status"] not in _RETURNS:
            view = client.get("workflows", workflow, query=_wait_query(_WATCH_S), wait=_WATCH_S)
            live.update(tables.workflow(view), refresh=True)
    return view


def _follow_by_lines(client: Client, workflow: str, view: dict[str, Any]) -> dict[str, Any]:
    """Print a line for each change that is seen, and the whole at the end."""
    from sidecar.cli import tables

    last = ""
    while True:
        steps = " ".join(tables.brief_step(step) for step in view["steps"])
        line = f"{view['status']}: {steps}"
        if line != last:
            click.echo(line)
            last = line
        if view["status"] in _RETURNS:
            tables.show(tables.workflow(view))
            return view
        view = client.get("workflows", workflow, query=_wait_query(_WATCH_S), wait=_WATCH_S)


def print_view(view: dict[str, Any], output: str) -> None:
    """Print one workflow."""
    if output == "json":
        print_json(view)
        return
    from sidecar.cli import tables

    tables.show(tables.workflow(view))


def _print_started(body: dict[str, Any], *, existed: bool, output: str) -> None:
    """Print what a start answered."""
    if output == "json":
        print_json(body)
        return
    how = "had been started before" if existed else "started"
    click.echo(f"workflow {body['id']} {how}, status {body['status']}")
    click.echo(f"  next: goconductor show {body['id']} --watch", err=True)


def _demand_completed(view: dict[str, Any]) -> None:
    """Fail unless the workflow completed."""
    if view["status"] == "completed":
        return
    reason = f" ({view['reason']})" if view["reason"] else ""
    raise NotCompleted(
        f"workflow {view['id']} is {view['status']}{reason}.",
        then=f"its history says why: `goconductor events {view['id']}`.",
    )


def _hint_more(page: dict[str, Any]) -> None:
    """Say on standard error how to read on."""
    if page["next_cursor"] is not None:
        click.echo(f"there is more: --cursor {page['next_cursor']}", err=True)


def _label(text: str, separator: str) -> tuple[str, str]:
    """A label as it was written."""
    name, found, value = text.partition(separator)
    if not (name and found):
        raise click.UsageError(f"--label {text!r} must be written KEY=VALUE.")
    return name, value
