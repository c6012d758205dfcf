"""What several commands take: the server, the namespace, the form of the output."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_SERVER = "http://127.0.0.1:7400"


def output_option(command: F) -> F:
    """Add `-o table|json`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="What to print.",
    )(command)


def client_options(command: F) -> F:
    """Add what every command that asks a sidecar takes."""
    command = output_option(command)
    command = click.option(
        "--namespace",
        envvar="GOCONDUCTOR_NAMESPACE",
        help="Namespace  [default: that of the sidecar]",
    )(command)
    return click.option(
        "--server",
        envvar="GOCONDUCTOR_SERVER",
        default=DEFAULT_SERVER,
        show_default=True,
        help="Any sidecar's address.",
    )(command)


def print_json(body: Any) -> None:
    """Print JSON for programs; characters that could play with a terminal are escaped."""
    click.echo(json.dumps(body, indent=2))
