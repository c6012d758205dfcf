"""The commands about definitions."""

from __future__ import annotations

from pathlib import Path

import click

from sidecar.cli.failure import Failure
from sidecar.cli.options import client_options, print_json


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--allow-missing", is_flag=True, help="Take actions that no catalogue offers.")
@client_options
def apply(
    *, file: Path, allow_missing: bool, server: str, namespace: str | None, output: str
) -> None:
    """Register the definition in FILE (YAML, or JSON if its name ends so)."""
    from sidecar.cli.client import Client

    try:
        text = file.read_bytes()
    except OSError as error:
        raise Failure(f"the file cannot be read: {error}") from None
    kind = "application/json" if file.suffix == ".json" else "application/yaml"
    query = [("allow_missing", "true")] if allow_missing else []
    client = Client(server, namespace)
    answer = client.post("definitions", query=query, body=text, content_type=kind)
    if output == "json":
        print_json(answer.body)
        return
    name, version = answer.body["name"], answer.body["version"]
    created = answer.status == 201
    if created:
        click.echo(f"{name} version {version} registered")
    elif answer.body["state"] == "retired":
        click.echo(f"{name} version {version} is retired, and stays so")
        click.echo(f"  to take it back: goconductor restore {name} {version}", err=True)
    else:
        click.echo(f"{name} is unchanged: version {version} is current")
    for one in answer.body.get("findings", ()):
        if one["severity"] != "info":
            where = one["step"] or one["path"] or name
            click.echo(f"  {one['code']} {one['severity']}: {where}: {one['message']}", err=True)
    click.echo(f"  next: goconductor start {name} --input '{{...}}' --wait", err=True)
