"""How a command fails: a sentence on standard error, what to do next, and an exit code."""

from __future__ import annotations

from typing import IO, Any

import click


class Failure(click.ClickException):
    """A command could not do what was asked; `then` says what to do next."""

    exit_code = 1

    def __init__(self, message: str, *, then: str | None = None) -> None:
        super().__init__(message)
        self.then = then

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it on standard error, in red on a terminal."""
        click.secho(f"error: {printable(self.message)}", fg="red", err=file is None, file=file)
        if self.then is not None:
            click.echo(f"  next: {printable(self.then)}", err=file is None, file=file)


class Unreachable(Failure):
    """No sidecar answered in time; whether it did anything is not known."""

    exit_code = 3


class ServiceAway(Failure):
    """The service that is to be probed cannot be reached."""

    exit_code = 3


class NotCompleted(Failure):
    """The workflow was rolled back or terminated, or is in `error` for a person."""

    exit_code = 4


def printable(text: str) -> str:
    """Text from elsewhere without the control characters that could play with a terminal."""
    text = text.replace("\t", " ")
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)
