"""The command `simulate`: one workflow in virtual time, with the faults that are wanted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.catalogues import catalogue_option, read_catalogues
from sidecar.cli.check import format_of
from sidecar.cli.failure import Failure, printable
from sidecar.cli.options import output_option, print_json, read_input

if TYPE_CHECKING:
    from datetime import timedelta

    from sidecar.definitions.simulator import PlannedSignal
    from sidecar.saga.definition import Definition, JsonText, StepDefinition

_SIGNAL = re.compile(r"([a-z][a-z0-9_]*)(?:=(.*?))?(?:@([0-9.]+[a-z]+))?", re.DOTALL)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--input", "body", metavar="JSON|@FILE", help="The input  [default: made up]")
@click.option(
    "--outputs",
    multiple=True,
    metavar="STEP=JSON|@FILE",
    help="What a step answers; @FILE: an object of what steps answer; repeatable.",
)
@click.option(
    "--fault", "faults", multiple=True, metavar="STEP=FAULT", help="What goes wrong; repeatable."
)
@click.option(
    "--signal",
    "signals",
    multiple=True,
    metavar="NAME=JSON@30s",
    help="A signal, and when  [default: each comes 1s after it is waited for]",
)
@click.option("--cancel", "cancel_at", metavar="10s", help="When somebody cancels.")
@click.option("--all-faults", is_flag=True, help="Run it once for every single fault.")
@click.option("--pairs", is_flag=True, help="The same for every two faults of different steps.")
@catalogue_option
@output_option
@click.pass_context
def simulate(
    ctx: click.Context,
    *,
    file: Path,
    body: str | None,
    outputs: tuple[str, ...],
    faults: tuple[str, ...],
    signals: tuple[str, ...],
    cancel_at: str | None,
    all_faults: bool,
    pairs: bool,
    catalogues: tuple[Path, ...],
    output: str,
) -> None:
    """Run the definition in FILE in virtual time, and tell how it ends.

    \b
    FAULT: refused unknown timeout crash late duplicate unavailable pending
           cancelled compensation_failed compensation_unknown skipped signal_lost

    Ends with 0 if the workflow ends all done or all undone; with several runs, also if some end in
    `error`, visible for a person.
    """  # noqa: D301 - click reads a real backspace as: keep these lines as they are
    from sidecar.definitions.simulator import Scenario, every_run, parse_fault, telling
    from sidecar.definitions.simulator import simulate as simulate_one

    definition = _definition(file, catalogues)
    scenario = Scenario(
        input=_input(definition, body),
        outputs={step: body for one in outputs for step, body in _outputs(definition, one)},
        faults=tuple(parse_fault(one, definition) for one in faults),
        signals=tuple(_signal(definition, one) for one in signals),
        cancel_at=None if cancel_at is None else _duration(cancel_at),
    )
    if all_faults or pairs:
        matrix = every_run(definition, scenario, pairs=pairs)
        if output == "json":
            runs = [telling.told(one) for one in matrix.runs]
            print_json({"runs": runs, "left_out": matrix.left_out})
        else:
            click.echo(printable(telling.table(matrix)))
        good = matrix.keeps_the_promise
    else:
        run = simulate_one(definition, scenario)
        if output == "json":
            print_json(telling.told_with_timeline(run))
        else:
            click.echo(printable(telling.timeline(run)))
        good = run.good
    if not good:
        ctx.exit(1)


def _definition(file: Path, catalogues: tuple[Path, ...]) -> Definition:
    from sidecar.definitions import compile_stored, parse_definition
    from sidecar.definitions.pins import with_catalogues

    try:
        text = file.read_bytes()
    except OSError as error:
        raise Failure(f"the file cannot be read: {error}") from None
    parsed = with_catalogues(parse_definition(text, format_of(file)), read_catalogues(catalogues))
    definition = compile_stored(parsed.document, "default", parsed.name, 1)
    _demand_known_actions(definition)
    return definition


def _demand_known_actions(definition: Definition) -> None:
    """What is not known of an action would be made up, and with it how the workflow ends."""
    unknown = [step for step in definition.steps if step.action and step.catalogue is None]
    if unknown:
        names = ", ".join(sorted({f"{step.action} of {step.service}" for step in unknown}))
        raise Failure(
            f"nothing is known of the actions that the definition names: {names}.",
            then="give the configuration of each service's sidecar: --catalogue sidecar.yaml.",
        )


def _input(definition: Definition, text: str | None) -> JsonText | None:
    if text is None:
        return None
    body = _json("--input", text)
    problems = definition.input_check.problems(body) if definition.input_check else []
    if problems:
        where, what = problems[0]
        raise Failure(f"--input does not satisfy the schema: {where or 'it'}: {what}")
    return body


def _outputs(definition: Definition, text: str) -> Iterator[tuple[str, JsonText]]:
    if text.startswith("@"):
        given = read_input(text, "--outputs")
        if not isinstance(given, dict):
            raise Failure(f"--outputs {text}: the file holds no object of outputs by step.")
    else:
        name, equals, body = text.partition("=")
        given = {name: read_input(body, "--outputs")} if equals else {}
    for name, body in given.items():
        if name not in definition.by_name:
            raise Failure(f"--outputs: there is no step {name!r}.")
        yield name, _output(definition.by_name[name], _text(body))
    if not given:
        raise Failure(f"--outputs {text!r} is not STEP=JSON with the name of a step.")


def _output(step: StepDefinition, body: JsonText) -> JsonText:
    problems = step.output_check.problems(body) if step.output_check else []
    if problems:
        where, what = problems[0]
        raise Failure(f"--outputs {step.name} does not satisfy the schema: {where or 'it'}: {what}")
    return body


def _signal(definition: Definition, text: str) -> PlannedSignal:
    from datetime import timedelta

    from sidecar.definitions.simulator import PlannedSignal
    from sidecar.saga.definition import JsonText

    found = _SIGNAL.fullmatch(text)
    if found is None or found[1] not in definition.signals:
        known = ", ".join(sorted(definition.signals)) or "none"
        raise Failure(f"--signal {text!r} is not NAME=JSON@30s; the signals are: {known}.")
    name, body, at = found.groups()
    payload = JsonText("null") if body is None else _json("--signal", body)
    return PlannedSignal(name, payload, timedelta() if at is None else _duration(at))


def _duration(text: str) -> timedelta:
    from sidecar.definitions.durations import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise Failure(f"{text!r} {error}") from None


def _json(option: str, text: str) -> JsonText:
    return _text(read_input(text, option))


def _text(body: Any) -> JsonText:
    from sidecar.saga.definition import JsonText

    return JsonText(json.dumps(body, ensure_ascii=False))
