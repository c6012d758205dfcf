"""The commands by which a person takes part in a workflow that runs.

Each shows the workflow as it is then. All may be repeated; what is not legal now is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

from sidecar.cli.options import client_options, read_input
from sidecar.cli.workflows import print_view

F = TypeVar("F", bound=Callable[..., Any])

RESOLUTIONS = ("succeeded", "no_effect", "compensated")

_id = click.argument("workflow", metavar="ID")
_reason = click.option("--reason", default="", help="Why; it stands in the history.")
_demanded_reason = click.option("--reason", required=True, help="Why; it stands in the history.")
_step = click.option(
    "--step", required=True, help="The step, or an item of a fan-out like reserve[3]."
)
_step_output = click.option(
    "--step-output", metavar="JSON|@FILE", help="What others read as the output of the step."
)


def acting_options(command: F) -> F:
    """Add what every command takes that does something in somebody's name."""
    return click.option(
        "--actor",
        envvar="GOCONDUCTOR_ACTOR",
        help="Who does it, as the history shall say  [default: api]",
    )(client_options(command))


@click.command()
@_id
@_reason
@acting_options
def cancel(*, workflow: str, reason: str, **asking: Any) -> None:
    """Undo a workflow. It ends `rolled_back` when all of it has been undone."""
    _ask(asking, workflow, "cancel", body={"reason": reason})


@click.command()
@_id
@_reason
@acting_options
def pause(*, workflow: str, reason: str, **asking: Any) -> None:
    """Let nothing more be called for a workflow; calls under way are settled."""
    _ask(asking, workflow, "pause", body={"reason": reason})


@click.command()
@_id
@_reason
@acting_options
def resume(*, workflow: str, reason: str, **asking: Any) -> None:
    """Let a paused workflow go on."""
    _ask(asking, workflow, "resume", body={"reason": reason})


@click.command()
@_id
@click.option("--step", help="Only this step, or item like reserve[3]  [default: all]")
@_reason
@acting_options
def retry(*, workflow: str, step: str | None, reason: str, **asking: Any) -> None:
    """Try now what waits for its next try, and anew what has failed for good."""
    where = ("retry",) if step is None else ("steps", step, "retry")
    _ask(asking, workflow, *where, body={"reason": reason})


@click.command()
@_id
@_demanded_reason
@acting_options
def terminate(*, workflow: str, reason: str, **asking: Any) -> None:
    """Stop a workflow where it stands. Nothing is undone; `cancel` undoes."""
    _ask(asking, workflow, "terminate", body={"reason": reason})


@click.command()
@_id
@click.argument("name")
@click.option("--payload", metavar="JSON|@FILE", help="What it carries; @- reads standard input.")
@_reason
@acting_options
def signal(*, workflow: str, name: str, payload: str | None, reason: str, **asking: Any) -> None:
    """Send the signal NAME; it is kept until a step waits for it."""
    body: dict[str, Any] = {"reason": reason}
    if payload is not None:
        body["payload"] = read_input(payload, "--payload")
    _ask(asking, workflow, "signals", name, body=body)


@click.command()
@_id
@_step
@_demanded_reason
@_step_output
@click.option("--undo", is_flag=True, help="On the way back: go on without undoing it.")
@acting_options
def skip(
    *, workflow: str, step: str, reason: str, step_output: str | None, undo: bool, **asking: Any
) -> None:
    """Go on without a step as if it had passed; with --undo, without undoing it."""
    body = {"reason": reason, **_output(step_output)}
    if undo:
        body["action"] = "compensate"
    _ask(asking, workflow, "steps", step, "skip", body=body)


@click.command()
@_id
@_step
@click.option(
    "--as",
    "resolution",
    required=True,
    type=click.Choice(RESOLUTIONS),
    help="What was found out: its effect is there, it is not, or a person has undone it.",
)
@_demanded_reason
@click.option("--evidence", required=True, help="What shows it; it stands in the history.")
@_step_output
@acting_options
def resolve(
    *,
    workflow: str,
    step: str,
    resolution: str,
    reason: str,
    evidence: str,
    step_output: str | None,
    **asking: Any,
) -> None:
    """Settle a step whose outcome is unknown by what you found out."""
    body = {
        "resolution": resolution,
        "reason": reason,
        "evidence": evidence,
        **_output(step_output),
    }
    _ask(asking, workflow, "steps", step, "resolve", body=body)


def _output(step_output: str | None) -> dict[str, Any]:
    return {} if step_output is None else {"output": read_input(step_output, "--step-output")}


def _ask(asking: dict[str, Any], workflow: str, *path: str, body: dict[str, Any]) -> None:
    """Ask a sidecar, and show the workflow that it answers with."""
    from sidecar.cli.client import Client

    client = Client(asking["server"], asking["namespace"], asking["actor"])
    answer = client.post("workflows", workflow, *path, body=json.dumps(body).encode())
    print_view(answer.body, asking["output"])
