"""The command about services."""

from __future__ import annotations

import click

from sidecar.cli.failure import printable
from sidecar.cli.options import client_options, print_json


@click.command()
@click.option("--limit", type=click.IntRange(1, 100), default=50, show_default=True)
@click.option("--cursor", help="Where the last page ended.")
@client_options
def services(
    *, limit: int, cursor: str | None, server: str, namespace: str | None, output: str
) -> None:
    """List services with their live sidecars and the actions that they offer."""
    from sidecar.cli.client import Client

    query = [("limit", str(limit))] + ([("cursor", cursor)] if cursor is not None else [])
    page = Client(server, namespace).get("services", query=query)
    if output == "json":
        print_json(page)
        return
    from sidecar.cli import tables

    tables.show(tables.services(page))
    for one in page["services"]:
        if one["differs"]:
            click.echo(
                f"the sidecars of {printable(one['service'])} do not have the same catalogue: "
                "give all of them the same `actions`, and start them again",
                err=True,
            )
    if page["next_cursor"] is not None:
        click.echo(f"there is more: --cursor {page['next_cursor']}", err=True)
