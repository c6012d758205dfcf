"""What several commands take: the server, the namespace, the form of the output."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from sidecar.cli.failure import Failure

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


def read_input(text: str, option: str = "--input") -> Any:
    """Return a body as it was written, or read from a file. Raises `Failure`."""
    try:
        if text == "@-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8")
        return json.loads(text, parse_constant=_refuse_constant)
    except OSError as error:
        raise Failure(f"{option} cannot be read: {error}") from None
    except ValueError as error:
        raise Failure(
            f"{option} is not JSON: {error}",
            then=f"quote it for the shell: {option} '{{\"order_id\": 17}}', or use {option} @file.",
        ) from None


def _refuse_constant(name: str) -> None:
    """NaN and the infinities are no JSON, though the parser knows them."""
    raise ValueError(f"{name} is not a JSON value")
