"""The commands about the versions of a definition, and what differs between them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.failure import Failure, Unreachable, printable
from sidecar.cli.options import client_options, print_json

if TYPE_CHECKING:
    from sidecar.cli.client import Client
    from sidecar.definitions.differences import Difference

_FILES = (".yaml", ".yml", ".json")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_MARKS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}


@click.command()
@click.argument("name")
@click.option("--limit", type=click.IntRange(1, 100), default=50, show_default=True)
@click.option("--cursor", help="Where the last page ended.")
@client_options
def versions(
    *, name: str, limit: int, cursor: str | None, server: str, namespace: str | None, output: str
) -> None:
    """List the versions of definition NAME, newest first, with their open workflows."""
    query = [("limit", str(limit))] + ([("cursor", cursor)] if cursor is not None else [])
    page = _client(server, namespace).get("definitions", name, "versions", query=query)
    if output == "json":
        print_json(page)
        return
    from sidecar.cli import tables

    tables.show(tables.versions(page))
    if page["next_cursor"] is not None:
        click.echo(f"there is more: --cursor {page['next_cursor']}", err=True)


def _verb(verb: str, done: str, help_: str) -> click.Command:
    """A command that sets the state of a version."""

    @click.command(verb, help=help_)
    @click.argument("name")
    @click.argument("version", type=click.IntRange(min=1))
    @client_options
    def command(
        *, name: str, version: int, server: str, namespace: str | None, output: str
    ) -> None:
        client = _client(server, namespace)
        answer = client.post("definitions", name, "versions", str(version), verb)
        if output == "json":
            print_json(answer.body)
        else:
            click.echo(f"{name} version {version} is {done}")

    return command


deprecate = _verb("deprecate", "deprecated", "Tell whoever starts a version that it is deprecated.")
retire = _verb("retire", "retired", "Refuse starts of a version; workflows that run it go on.")
restore = _verb("restore", "active again", "Take back that a version is deprecated or retired.")


@click.command()
@click.argument("name")
@click.argument("version", type=click.IntRange(min=1))
@client_options
def delete(*, name: str, version: int, server: str, namespace: str | None, output: str) -> None:
    """Delete a retired version to which no workflow refers, open or ended."""
    answer = _client(server, namespace).delete("definitions", name, "versions", str(version))
    if output == "json":
        print_json(answer.body)
    else:
        click.echo(f"{name} version {version} is deleted")


class Trouble(Failure):
    """The two could not be compared; 1 is kept for two that differ."""

    exit_code = 2


@click.command()
@click.argument("what", nargs=-1, required=True, metavar="NAME V1 V2 | A B")
@client_options
@click.pass_context
def diff(
    context: click.Context,
    *,
    what: tuple[str, ...],
    server: str,
    namespace: str | None,
    output: str,
) -> None:
    """Show what differs between two versions, or files, or the latest version and a file.

    Exit code 0: they mean the same; 1: they differ; 2: they could not be compared.
    """
    from sidecar.definitions.differences import differences

    try:
        (old, before), (new, after) = _sides(what, _client(server, namespace))
    except Unreachable:
        raise
    except Failure as error:
        raise Trouble(error.message, then=error.then) from error
    found = differences(before, after)
    if output == "json":
        print_json(
            {
                "before": old,
                "after": new,
                "same": not found,
                "differences": [_plain(one) for one in found],
            }
        )
    else:
        _print(old, new, found)
    context.exit(1 if found else 0)


_Side = tuple[str, dict[str, Any]]


def _sides(what: tuple[str, ...], client: Client) -> tuple[_Side, _Side]:
    """Both documents with what they are called."""
    match what:
        case (name, first, second) if not _is_file(name):
            return _either(name, first, client), _either(name, second, client)
        case (first, second):
            return _either(first, None, client), _either(second, None, client)
        case _:
            raise click.UsageError("write NAME V1 V2, or two of FILE and NAME.")


def _either(name: str, version: str | None, client: Client) -> _Side:
    """A file, a version by its number, or the latest version of a name."""
    if version is not None and _is_file(version):
        return version, _read(version)
    if version is None and _is_file(name):
        return name, _read(name)
    if version is None:
        view = client.get("definitions", name)
    elif _NUMBER.fullmatch(version):
        view = client.get("definitions", name, "versions", version)
    else:
        raise click.UsageError(f"{version!r} is neither a version's number nor a file.")
    return f"{view['name']} version {view['version']}", view["document"]


def _is_file(text: str) -> bool:
    return "/" in text or text.endswith(_FILES) or Path(text).is_file()


def _read(name: str) -> dict[str, Any]:
    """The document in a file, if it is a definition."""
    from sidecar.definitions import parse_definition
    from sidecar.errors import DefinitionError

    path = Path(name)
    kind = "application/json" if path.suffix == ".json" else "application/yaml"
    try:
        parsed = parse_definition(path.read_bytes(), kind)
    except OSError as error:
        raise Trouble(f"the file cannot be read: {error}") from None
    except DefinitionError as error:
        raise Trouble(f"{name} is not valid: {error.message}") from None
    document: dict[str, Any] = json.loads(parsed.document)
    return document


def _plain(one: Difference) -> dict[str, Any]:
    return {
        "step": one.step,
        "path": one.path,
        "change": one.change.value,
        "before": one.before,
        "after": one.after,
    }


def _print(old: str, new: str, found: list[Difference]) -> None:
    """Print the differences for people: those of the whole first, then step by step."""
    if not found:
        click.echo(f"{printable(old)} and {printable(new)} mean the same")
        return
    click.echo(f"--- {printable(old)}\n+++ {printable(new)}")
    step: str | None = None
    for one in found:
        if one.step is not None and not one.path:
            _line(one, f"step {one.step}")
            continue
        if one.step != step:
            step = one.step
            click.secho(f"~ step {printable(step or '')}", fg="yellow")
        indent = "    " if one.step is not None else ""
        before, after = _brief(one.before), _brief(one.after)
        told = {"added": after, "removed": before, "changed": f"{before} -> {after}"}
        _line(one, f"{one.path}: {told[one.change]}", indent)


def _line(one: Difference, text: str, indent: str = "") -> None:
    mark, colour = _MARKS[one.change]
    click.secho(f"{indent}{mark} {printable(text)}", fg=colour)


def _brief(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _client(server: str, namespace: str | None) -> Client:
    from sidecar.cli.client import Client

    return Client(server, namespace)
