"""The command that runs a workflow again."""

from __future__ import annotations

import json
from typing import Any

import click

from sidecar.cli.failure import printable
from sidecar.cli.options import client_options, print_json


@click.command()
@click.argument("workflow", metavar="ID")
@click.option("--version", type=click.IntRange(min=1), help="Version  [default: the same]")
@click.option("--latest", is_flag=True, help="The latest version instead of the same.")
@click.option("--key", help="Start key: repeated with it, it is the same new workflow.")
@click.option("--reason", default="", help="Why; it stands in the history.")
@client_options
def rerun(
    *,
    workflow: str,
    version: int | None,
    latest: bool,
    key: str | None,
    reason: str,
    server: str,
    namespace: str | None,
    output: str,
) -> None:
    """Run a workflow that has ended again: a new one, with the same input and keys of its own."""
    from sidecar.cli.client import Client

    if latest and version is not None:
        raise click.UsageError("give either --version or --latest.")
    body: dict[str, Any] = {"version": "latest" if latest else version, "reason": reason}
    if key is not None:
        body["start_key"] = key
    answer = Client(server, namespace).post(
        "workflows", workflow, "rerun", body=json.dumps(body).encode()
    )
    if answer.deprecated is not None:
        click.echo(f"  note: {printable(answer.deprecated)}", err=True)
    if output == "json":
        print_json(answer.body)
        return
    how = "had been started before" if answer.status == 200 else "started"
    click.echo(f"workflow {answer.body['id']} {how}, status {answer.body['status']}")
    click.echo(f"  next: goconductor show {answer.body['id']} --watch", err=True)
