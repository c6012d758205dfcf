"""The command about what is owed."""

from __future__ import annotations

import click

from sidecar.cli.options import client_options, print_json


@click.command()
@click.option("--older-than", metavar="SPAN", help="What is overdue, like 30m  [default: 1h]")
@click.option("--service", help="Only what this service owes.")
@click.option("--limit", type=click.IntRange(1, 100), default=50, show_default=True)
@click.option("--cursor", help="Where the last page ended.")
@client_options
def debt(
    *,
    older_than: str | None,
    service: str | None,
    limit: int,
    cursor: str | None,
    server: str,
    namespace: str | None,
    output: str,
) -> None:
    """Show which effects are still owed their undoing, by service and one by one."""
    from sidecar.cli.client import Client

    given = {"older_than": older_than, "service": service, "cursor": cursor, "limit": str(limit)}
    query = [(name, value) for name, value in given.items() if value is not None]
    page = Client(server, namespace).get("debt", query=query)
    if output == "json":
        print_json(page)
        return
    from sidecar.cli import tables

    if not page["services"]:
        click.echo("nothing is owed")
        return
    tables.show(tables.debt(page))
    if page["more"]:
        click.echo("there is more than was counted: these are the oldest", err=True)
    if page["next_cursor"] is not None:
        click.echo(f"there is more: --cursor {page['next_cursor']}", err=True)
