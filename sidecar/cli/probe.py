"""`goconductor probe`: whether a service keeps the HTTP contract, and how to mend it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.failure import Failure, ServiceAway, printable
from sidecar.cli.options import output_option, print_json, read_input
from sidecar.errors import ConfigError, ServiceUnreachable
from sidecar.ports.probe import Endpoint, Finding, Probed, Report, Severity
from sidecar.saga.definition import JsonText

if TYPE_CHECKING:
    from sidecar.saga.definition import StepDefinition

MAX_TIMEOUT_S = 300
"""The longest that one request may take."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = re.compile("host|content-.*|transfer-encoding|connection|idempotency-key|goconductor-.*")
_COLOURS = {
    Severity.HOLDS: "green",
    Severity.WARNS: "yellow",
    Severity.BREAKS: "red",
    Severity.SKIPPED: None,
}


@click.command()
@click.argument("url")
@click.option("--action", required=True, help="The step that is probed: its name goes into keys.")
@click.option("--execute", metavar="PATH", help="Where the service does it.")
@click.option("--compensate", metavar="PATH", help="Where the service undoes it.")
@click.option(
    "--definition",
    type=click.Path(path_type=Path),
    help="A definition that has the step: paths, methods and statuses are read there.",
)
@click.option("--status", metavar="PATH", help="Where the service tells what became of a key.")
@click.option("--effects", metavar="PATH", help="Where it tells how many effects there are.")
@click.option("--input", "input_", metavar="JSON|@FILE", default="{}", help="What it accepts.")
@click.option(
    "--compensate-input",
    metavar="JSON|@FILE",
    help="The body of its compensation, if the step renders one of its own.",
)
@click.option(
    "--header",
    "headers",
    multiple=True,
    metavar="'NAME: VALUE'",
    help="Sent with every request; the value may be env:NAME or file:PATH. May be repeated.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, MAX_TIMEOUT_S),
    default=10.0,
    show_default=True,
    help="Seconds for one request.",
)
@output_option
def probe(
    *,
    url: str,
    action: str,
    execute: str | None,
    compensate: str | None,
    definition: Path | None,
    status: str | None,
    effects: str | None,
    input_: str,
    compensate_input: str | None,
    headers: tuple[str, ...],
    timeout: float,
    output: str,
) -> None:
    """Ask the service at URL every case of the HTTP contract, with real calls.

    Its effects are real: probe a service of a test environment. What a case has done is
    compensated at its end, where there is a path to compensate.
    """
    forward, undo = _endpoints(definition, action, compensate_input)
    if execute is not None:
        forward = Endpoint(execute, *_rest(forward))
    if compensate is not None:
        undo = Endpoint(compensate, *_rest(undo))
    if forward is None:
        raise click.UsageError("give --execute PATH, or --definition FILE that has the step.")
    report = _run(
        Probed(
            url=url,
            action=action,
            execute=forward,
            compensate=undo,
            status=status,
            effects=effects,
            input=JsonText(json.dumps(read_input(input_))),
            undo_input=_optional(compensate_input),
            headers=[_header(one) for one in headers],
            timeout=timeout,
        )
    )
    if output == "json":
        print_json(as_json(report))
    else:
        _print(report)
    if report.broken:
        raise SystemExit(1)


def as_json(report: Report) -> dict[str, Any]:
    """Return the report for programs."""
    return {
        "broken": report.broken,
        "counts": {str(severity): report.count(severity) for severity in Severity},
        "findings": [
            {
                "case": one.case,
                "severity": str(one.severity),
                "sent": one.sent,
                "came": one.came,
                "demanded": one.demanded,
                "mend": one.mend,
            }
            for one in report.findings
        ],
    }


def _run(probed: Probed) -> Report:
    from sidecar.wiring import probe_service

    try:
        return probe_service(probed)
    except ServiceUnreachable as error:
        raise ServiceAway(
            error.message, then="start the service, or look at the URL: http://127.0.0.1:8080."
        ) from None
    except ConfigError as error:
        # The words are those of the sidecar's configuration, where the address has this name.
        raise Failure(error.message.replace("service_url", "the URL")) from None


def _endpoints(
    file: Path | None, action: str, compensate_input: str | None
) -> tuple[Endpoint | None, Endpoint | None]:
    """What a definition says of the step."""
    if file is None:
        return None, None
    step = _step(file, action)
    if not step.path:
        raise Failure(
            f"step {action!r} names an action of the catalogue of {step.service}, not a path.",
            then="give the paths: --execute, --compensate and --status.",
        )
    forward = Endpoint(step.path, step.method, dict(step.on_status))
    undo = step.compensation
    if undo is None:
        return forward, None
    if undo.input is not None and compensate_input is None:
        raise Failure(
            f"the compensation of {action!r} renders a body of its own.",
            then="give one that the service accepts: --compensate-input JSON.",
        )
    if not undo.path:
        return forward, None
    return forward, Endpoint(undo.path, undo.method, dict(undo.on_status))


def _step(file: Path, action: str) -> StepDefinition:
    from sidecar.definitions import compile_stored, parse_definition

    try:
        text = file.read_bytes()
    except OSError as error:
        raise Failure(f"the file cannot be read: {error}") from None
    parsed = parse_definition(text, "json" if file.suffix == ".json" else "yaml")
    steps = compile_stored(parsed.document, "default", parsed.name, 1).steps
    for step in steps:
        if step.name == action:
            return step
    names = ", ".join(step.name for step in steps)
    raise Failure(
        f"{str(file)!r} has no step {action!r}.",
        then=f"name one of {names}, or give --execute and --compensate.",
    )


def _rest(found: Endpoint | None) -> tuple[str, Mapping[int, str]]:
    """What a path on the command line does not say."""
    return ("POST", {}) if found is None else (found.method, found.on_status)


def _optional(text: str | None) -> JsonText | None:
    return None if text is None else JsonText(json.dumps(read_input(text)))


def _header(text: str) -> tuple[str, str]:
    """A header as it was written, its value perhaps from the environment or a file."""
    from sidecar.config.values import resolve_secret

    name, colon, value = text.partition(":")
    name, value = name.strip(), value.strip()
    if not (colon and _TOKEN.fullmatch(name)):
        raise click.UsageError("--header must be written 'NAME: VALUE'.")
    if _OURS.fullmatch(name.lower()):
        raise click.UsageError(f"--header {name}: the probe sets this one itself.")
    if value.partition(":")[0] in ("env", "file"):
        try:
            value = resolve_secret(value, os.environ).get_secret_value()
        except ValueError as error:
            raise Failure(f"--header {name}: {error}") from None
    if not (value.isascii() and value.isprintable()):
        raise Failure(f"--header {name}: its value holds a character that no header can.")
    return name, value


def _print(report: Report) -> None:
    """The cases in a list, with more to say of those that do not hold."""
    width = max(len(one.case) for one in report.findings)
    for one in report.findings:
        word = click.style(f"{one.severity:<8}", fg=_COLOURS[one.severity])
        click.echo(f"{word} {one.case:<{width}}  {printable(one.came)}")
        if one.mend is not None:
            _explain(one)
    counts = ", ".join(f"{report.count(one)} {_PLURAL[one]}" for one in Severity)
    click.echo(f"\n{counts}")


_PLURAL = {
    Severity.HOLDS: "hold",
    Severity.WARNS: "warn",
    Severity.BREAKS: "break the contract",
    Severity.SKIPPED: "skipped",
}


def _explain(one: Finding) -> None:
    click.echo(f"           sent:     {one.sent}")
    click.echo(f"           demanded: {one.demanded}")
    click.echo(f"           mend:     {one.mend}")
