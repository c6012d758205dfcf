"""The command `check`: whether definitions end all done or all undone, without any sidecar."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sidecar import __version__
from sidecar.cli.catalogues import catalogue_option, read_catalogues
from sidecar.cli.failure import Failure, printable
from sidecar.cli.options import output_option, print_json

if TYPE_CHECKING:
    from sidecar.definitions.catalogues import Catalogue
    from sidecar.definitions.checker.checking import Checked
    from sidecar.definitions.pins import CatalogueRef


@click.command()
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--strict", is_flag=True, help="Fail on warnings, too.")
@click.option("--sarif", is_flag=True, help="Print SARIF 2.1.0, for editors and code hosts.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 3600),
    default=10.0,
    show_default=True,
    help="How long to look at the ways of one definition.",
)
@catalogue_option
@output_option
@click.pass_context
def check(
    ctx: click.Context,
    *,
    files: tuple[Path, ...],
    strict: bool,
    sarif: bool,
    seconds: float,
    catalogues: tuple[Path, ...],
    output: str,
) -> None:
    """Prove that definitions end all done or all undone, or show how they do not.

    Definitions that others run as children (`workflow:`) are looked for among the FILEs, and
    actions (`action:`) among the catalogues that are given.
    """
    from sidecar.definitions import checker

    checked = _all_checked(files, read_catalogues(catalogues), seconds)
    if sarif:
        named = [(file.as_uri() if file.is_absolute() else file.as_posix(), one)
                 for file, one in checked]  # fmt: skip
        print_json(checker.sarif(named, __version__))
    elif output == "json":
        print_json({"reports": [{"file": str(file), **one.report.told()} for file, one in checked]})
    else:
        for file, one in checked:
            click.echo(printable(f"{file}: {checker.text(one.report)}\n"))
    if not all(one.report.passes(strict=strict) for _, one in checked):
        ctx.exit(1)


def _all_checked(
    files: tuple[Path, ...], catalogues: dict[CatalogueRef, Catalogue], seconds: float
) -> list[tuple[Path, Checked]]:
    import time

    from sidecar.definitions import compile_stored, parse_definition
    from sidecar.definitions.checker import Limits, check_text
    from sidecar.definitions.pins import with_catalogues
    from sidecar.errors import DefinitionError

    texts = [(file, _read(file), format_of(file)) for file in files]
    known = {}
    for _, text, form in texts:
        try:
            parsed = with_catalogues(parse_definition(text, form), catalogues)
            known[parsed.name] = compile_stored(parsed.document, "default", parsed.name, 1)
        except DefinitionError:
            continue  # it is told with the findings
    limits = Limits(seconds=seconds, clock=time.monotonic, ample=10_000_000)
    return [
        (file, check_text(text, form, children=known, catalogues=catalogues, limits=limits))
        for file, text, form in texts
    ]


def format_of(file: Path) -> str:
    """The format that a file's name stands for."""
    return "json" if file.suffix == ".json" else "yaml"


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Failure(f"the file cannot be read: {error}") from None
