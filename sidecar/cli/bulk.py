"""The commands about verbs over many workflows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.failure import Failure
from sidecar.cli.options import client_options, print_json, read_input

if TYPE_CHECKING:
    from sidecar.cli.client import Client

LOOK_EVERY_S = 1.0
_SHOWN = 20


@click.group()
def bulk() -> None:
    """Do something to many workflows at once, and see what became of each."""


_FILTERS = (
    click.option("--status", "statuses", multiple=True, help="May be repeated, or a,b,c."),
    click.option("--definition", help="Only workflows of this definition."),
    click.option("--version", type=click.IntRange(min=1), help="Only those of this version."),
    click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="May be repeated."),
    click.option("--created-before", metavar="TIME", help="Like 2026-01-31T12:00:00Z."),
    click.option("--created-after", metavar="TIME", help="Like 2026-01-31T12:00:00Z."),
    click.option("--limit", type=click.IntRange(1, 100_000), help="At most; the oldest first."),
    click.option("--reason", default="", help="Why; it stands in every history."),
    click.option("--dry-run", is_flag=True, help="Tell what would be chosen; change nothing."),
    click.option("--wait", is_flag=True, help="Stay until it is done; 1 unless all were done."),
)


def _verb(verb: str, help_: str, *more: Callable[[Any], Any]) -> None:
    """Add a command that begins a job."""

    def command(
        *,
        wait: bool,
        server: str,
        namespace: str | None,
        output: str,
        **given: Any,
    ) -> None:
        client = _client(server, namespace)
        answer = client.post("workflows", "bulk", body=json.dumps(_request(verb, given)).encode())
        if given["dry_run"]:
            _print_selection(answer.body, output)
            return
        job = answer.body
        if wait:
            job = _until_ended(client, job["id"])
        _print_job(client, job, output, whole=wait)
        if wait and (job["status"] != "done" or job["done"] < job["selected"]):
            raise Failure(
                "it was not done to all of them.",
                then=f"see which: `goconductor bulk show {job['id']} --result refused`.",
            )

    decorated: Any = command
    for option in reversed((*_FILTERS, *more)):
        decorated = option(decorated)
    bulk.add_command(click.command(verb, help=help_)(client_options(decorated)))


_verb("cancel", "Undo them.")
_verb("pause", "Call nothing more for them.")
_verb("resume", "Let them go on.")
_verb("retry", "Try now what waits or has failed for good.")
_verb("terminate", "Stop them, and undo nothing.")
_verb(
    "signal",
    "Send each of them a signal, once.",
    click.option("--signal", required=True, metavar="NAME", help="The signal's name."),
    click.option("--payload", metavar="JSON|@FILE", help="What it carries; @- reads stdin."),
)


@bulk.command()
@click.argument("job")
@click.option("--result", type=click.Choice(["done", "refused", "failed"]), help="Only these.")
@click.option("--limit", type=click.IntRange(1, 100), default=50, show_default=True)
@click.option("--cursor", help="Where the last page ended.")
@client_options
def show(
    *,
    job: str,
    result: str | None,
    limit: int,
    cursor: str | None,
    server: str,
    namespace: str | None,
    output: str,
) -> None:
    """Show a job, and what became of its workflows."""
    given = {"result": result, "cursor": cursor, "limit": str(limit)}
    query = [(name, value) for name, value in given.items() if value is not None]
    page = _client(server, namespace).get("bulk", job, query=query)
    _show(page, output)


@bulk.command(name="list")
@click.option("--limit", type=click.IntRange(1, 100), default=50, show_default=True)
@click.option("--cursor", help="Where the last page ended.")
@client_options
def list_(
    *, limit: int, cursor: str | None, server: str, namespace: str | None, output: str
) -> None:
    """List jobs, newest first."""
    query = [("limit", str(limit))] + ([("cursor", cursor)] if cursor is not None else [])
    page = _client(server, namespace).get("bulk", query=query)
    if output == "json":
        print_json(page)
        return
    from sidecar.cli import tables

    tables.show(tables.jobs(page["jobs"]))
    _hint_more(page)


@bulk.command()
@click.argument("job")
@client_options
def stop(*, job: str, server: str, namespace: str | None, output: str) -> None:
    """Stop a job: workflows that had no turn yet get none."""
    client = _client(server, namespace)
    _print_job(client, client.post("bulk", job, "stop").body, output, whole=False)


def _request(verb: str, given: dict[str, Any]) -> dict[str, Any]:
    """The body of a request for a job; what was not given is left out."""
    wanted: dict[str, Any] = {
        "status": [word for one in given["statuses"] for word in one.split(",") if word],
        "labels": dict(_label(one) for one in given["labels"]),
    }
    for name in ("definition", "version", "created_before", "created_after"):
        wanted[name] = given[name]
    body: dict[str, Any] = {"verb": verb, "reason": given["reason"], "dry_run": given["dry_run"]}
    body["filter"] = {name: value for name, value in wanted.items() if value}
    if given["limit"] is not None:
        body["limit"] = given["limit"]
    if given.get("signal") is not None:
        body["signal"] = given["signal"]
        body["payload"] = None if given["payload"] is None else read_input(given["payload"])
    return body


def _until_ended(client: Client, job: str) -> dict[str, Any]:
    while True:
        found: dict[str, Any] = client.get("bulk", job, query=[("limit", "1")])
        if found["status"] != "running":
            return found
        time.sleep(LOOK_EVERY_S)


def _print_selection(found: dict[str, Any], output: str) -> None:
    if output == "json":
        print_json(found)
        return
    more = ", and there are more" if found["more"] else ""
    click.echo(f"{found['selected']} workflows would be chosen{more}")
    for one in found["first"]:
        click.echo(f"  {one}")
    if found["selected"] > len(found["first"]):
        click.echo("  ...")


def _print_job(client: Client, job: dict[str, Any], output: str, *, whole: bool) -> None:
    """Print a job; with `whole` the first page of its workflows, too."""
    if whole:
        job = client.get("bulk", job["id"], query=[("limit", str(_SHOWN))])
    _show(job, output)
    if job["status"] == "running" and output != "json":
        click.echo(f"  next: goconductor bulk show {job['id']}", err=True)


def _show(job: dict[str, Any], output: str) -> None:
    if output == "json":
        print_json(job)
        return
    from sidecar.cli import tables

    tables.show(tables.jobs([job]))
    if job.get("workflows"):
        tables.show("")
        tables.show(tables.bulk_members(job))
    _hint_more(job)


def _hint_more(page: dict[str, Any]) -> None:
    if page.get("next_cursor") is not None:
        click.echo(f"there is more: --cursor {page['next_cursor']}", err=True)


def _label(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not (name and found):
        raise click.UsageError(f"--label {text!r} must be written KEY=VALUE.")
    return name, value


def _client(server: str, namespace: str | None) -> Client:
    from sidecar.cli.client import Client

    return Client(server, namespace)
