"""The commands that run GoConductor itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from sidecar import __version__
from sidecar.cli.failure import Failure
from sidecar.cli.options import output_option, print_json

_config_option = click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="The sidecar's YAML file."
)
_set_option = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a key; may be repeated."
)


@click.command()
@click.option(
    "--orders", type=click.IntRange(1, 10_000), default=30, show_default=True, help="How many."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder that stays  [default: a temporary one]",
)
@click.option("--keep", is_flag=True, help="Leave everything running until Ctrl-C.")
def demo(*, orders: int, data: Path | None, keep: bool) -> None:
    """Run three services, their sidecars, a real PostgreSQL and some orders, all here."""
    import asyncio

    from sidecar.cli.demo.run import DemoOptions, run_demo

    sys.exit(asyncio.run(run_demo(DemoOptions(orders=orders, data=data, keep=keep))))


@click.command()
@_config_option
@_set_option
def sidecar(*, config_file: Path | None, settings: tuple[str, ...]) -> None:
    """Run the sidecar of one service until it is told to stop."""
    from sidecar.config import load_config
    from sidecar.wiring import run_sidecar

    sys.exit(run_sidecar(load_config(config_file, _settings(settings), os.environ)))


@click.command()
@_config_option
@_set_option
@click.option("--dsn", help="The database, instead of a configuration file.")
@output_option
def migrate(
    *, config_file: Path | None, settings: tuple[str, ...], dsn: str | None, output: str
) -> None:
    """Create the database's tables, or bring them up to date; harmless when repeated."""
    if (dsn is None) == (config_file is None):
        raise click.UsageError("give either --config or --dsn.")
    if dsn is not None and settings:
        raise click.UsageError("--set belongs to --config.")
    from sidecar.config import load_config
    from sidecar.wiring import migrate_store

    applied = migrate_store(
        dsn if dsn is not None else load_config(config_file, _settings(settings), os.environ)
    )
    if output == "json":
        print_json({"applied": applied})
        return
    for name in applied:
        click.echo(f"applied {name}")
    click.echo("the database is up to date")


@click.command()
@output_option
def version(*, output: str) -> None:
    """Print the version."""
    if output == "json":
        print_json({"version": __version__})
    else:
        click.echo(f"goconductor {__version__}")


def _settings(settings: tuple[str, ...]) -> dict[str, str]:
    """The overrides as they were written; the configuration reads the values."""
    found: dict[str, str] = {}
    for one in settings:
        key, equals, value = one.partition("=")
        if not (key and equals):
            raise Failure(
                f"--set {one!r} is not KEY=VALUE.", then="write it like --set queue.kind=kafka."
            )
        found[key] = value
    return found
