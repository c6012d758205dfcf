"""The commands by which a person takes part, against a real listener."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli.operators import RESOLUTIONS
from sidecar.saga.events import Resolution
from sidecar.saga.states import WorkflowStatus
from sidecar.saga.workflow import StepKey, Workflow
from tests.unit.cli.conftest import Terminal
from tests.unit.engine.faces import LANGUAGE

CHARGE = StepKey("charge")
WHY = ("--reason", "the customer called")


async def in_trouble(terminal: Terminal) -> Workflow:
    """A workflow whose first step may have happened."""
    faces = terminal.faces
    workflow = await faces.start()
    token = faces.tokens.token(faces.store.claim(workflow.id, CHARGE))
    await faces.tasks.fail(token, "broken", outcome="unknown")
    return workflow


async def fanned_out(terminal: Terminal, lines: int = 3) -> Workflow:
    """A workflow whose first step has items."""
    await terminal.faces.register(LANGUAGE)
    return await terminal.faces.start("language", input={"lines": list(range(lines))})


def said(terminal: Terminal, workflow: Workflow) -> list[tuple[str, Any]]:
    """Who said what, as the history has it."""
    history = terminal.faces.store.history[workflow.id]
    return [(one.actor, json.loads(one.details)) for one in history if one.details]


def test_the_resolutions_are_those_that_there_are() -> None:
    assert set(RESOLUTIONS) == set(Resolution)


@pytest.mark.parametrize(
    ("verb", "shown"),
    [("cancel", "rolling_back"), ("terminate", "terminated"), ("pause", "paused"), ("retry", "")],
)
async def test_a_verb_shows_the_workflow_and_says_who_and_why(
    terminal: Terminal, verb: str, shown: str
) -> None:
    workflow = await in_trouble(terminal)
    result = await terminal.run(verb, workflow.id, *WHY, actor="ännchen")
    assert (result.exit_code, result.stderr) == (0, "")
    assert workflow.id in result.stdout
    assert shown in result.stdout
    assert said(terminal, workflow) == [("ännchen", {"reason": WHY[1]})]
    again = await terminal.run(verb, workflow.id, *WHY, "-o", "json")
    assert json.loads(again.stdout)["id"] == workflow.id


async def test_a_paused_workflow_is_resumed(terminal: Terminal) -> None:
    workflow = await in_trouble(terminal)
    assert "an operator must resume it" in await terminal.seen("pause", workflow.id)
    assert "an operator" not in await terminal.seen("resume", workflow.id, "--actor", "anna")
    assert terminal.faces.store.history[workflow.id][-1].actor == "anna"


async def test_a_step_is_skipped_with_an_output_from_a_file(
    terminal: Terminal, tmp_path: Path
) -> None:
    workflow = await in_trouble(terminal)
    file = tmp_path / "output.json"
    file.write_text('{"id": 1}')
    words = ("skip", workflow.id, "--step", "charge", *WHY, "--step-output", f"@{file}")
    view = json.loads(await terminal.seen(*words, "-o", "json"))
    assert (view["steps"][0]["status"], view["steps"][0]["output"]) == ("skipped", {"id": 1})
    assert "skipped" in await terminal.seen("events", workflow.id)
    assert "reason: the customer called" in await terminal.seen("events", workflow.id)


async def test_a_step_is_resolved_by_what_was_found_out(terminal: Terminal) -> None:
    workflow = await in_trouble(terminal)
    words = ("resolve", workflow.id, "--step", "charge", "--as", "succeeded", *WHY)
    shown = await terminal.seen(*words, "--evidence", "ledger", "--step-output", "7", "-o", "json")
    assert json.loads(shown)["steps"][0]["output"] == 7
    assert said(terminal, workflow) == [
        ("api", {"resolution": "succeeded", "reason": WHY[1], "evidence": "ledger"})
    ]


async def test_one_item_is_retried(terminal: Terminal) -> None:
    workflow = await fanned_out(terminal)
    faces = terminal.faces
    item = faces.store.claim(workflow.id, StepKey("reserve", 1))
    await faces.tasks.fail(faces.tokens.token(item), "broken", outcome="unknown")
    await terminal.seen("retry", workflow.id, "--step", "reserve[1]", *WHY)
    assert said(terminal, workflow) == [("api", {"reason": WHY[1]})]


async def test_a_signal_carries_what_it_is_given(terminal: Terminal) -> None:
    workflow = await fanned_out(terminal, lines=0)
    words = ("signal", workflow.id, "approved", "--payload", "@-", *WHY)
    result = await terminal.run(*words, stdin='{"by": "anna"}')
    assert result.exit_code == 0, result.stderr
    (step,) = (
        step
        for key, step in terminal.faces.store.workflows[workflow.id].steps.items()
        if key.step == "approve"
    )
    assert json.loads(step.output or "")["payload"] == {"by": "anna"}
    assert "signal approve" in await terminal.seen("events", workflow.id)


async def test_a_fan_out_is_shown_by_its_numbers_and_its_items(terminal: Terminal) -> None:
    workflow = await fanned_out(terminal)
    shown = await terminal.seen("show", workflow.id)
    assert "0 of 3 ended" in shown
    assert "ITEMS" in shown
    first = await terminal.run("items", workflow.id, "reserve", "--limit", "2")
    assert "reserve[1]" in first.stdout
    assert "reserve[2]" not in first.stdout
    cursor = first.stderr.split()[-1]
    rest = await terminal.seen("items", workflow.id, "reserve", "--cursor", cursor, "-o", "json")
    assert [one["index"] for one in json.loads(rest)["items"]] == [2]


async def test_a_workflow_without_fan_outs_has_no_column_for_them(terminal: Terminal) -> None:
    workflow = await in_trouble(terminal)
    assert "ITEMS" not in await terminal.seen("show", workflow.id)


async def test_watching_shows_the_progress_of_a_fan_out_and_ends_when_it_is_terminated(
    terminal: Terminal,
) -> None:
    workflow = await fanned_out(terminal)
    running = asyncio.create_task(terminal.run("show", workflow.id, "--watch"))
    await terminal.end(WorkflowStatus.TERMINATED)
    result = await running
    assert result.exit_code == 4
    assert "in_progress: reserve=waiting(0 of 3 ended) approve=pending" in result.stdout
    assert "is terminated" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("terminate", "ID"),
        ("skip", "ID", *WHY),
        ("skip", "ID", "--step", "charge"),
        ("resolve", "ID", "--step", "charge", *WHY, "--evidence", "x"),
        ("resolve", "ID", "--step", "charge", *WHY, "--as", "succeeded"),
        ("resolve", "ID", "--step", "charge", *WHY, "--evidence", "x", "--as", "perhaps"),
        ("signal", "ID"),
        ("items", "ID"),
    ],
)
async def test_what_is_needed_is_demanded(terminal: Terminal, words: tuple[str, ...]) -> None:
    assert (await terminal.run(*words)).exit_code == 2


async def test_what_is_refused_is_told_with_what_to_do(terminal: Terminal) -> None:
    workflow = await terminal.faces.start()
    result = await terminal.run("signal", workflow.id, "approved")
    assert result.exit_code == 1
    assert "[conflict]" in result.stderr
    assert "goconductor show" in result.stderr
    result = await terminal.run("signal", workflow.id, "approved", "--payload", "{x}")
    assert result.exit_code == 1
    assert "--payload is not JSON" in result.stderr
    result = await terminal.run("pause", workflow.id, actor="a\nb")
    assert "cannot be the name of an actor" in result.stderr
    assert "GoConductor-Actor" in (await terminal.run("pause", workflow.id, actor="leader")).stderr
