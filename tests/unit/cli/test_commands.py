"""The command against a real listener: what it prints, and how it ends."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from sidecar.cli import client
from sidecar.cli.main import Commands, main
from sidecar.errors import ConfigError
from sidecar.saga.states import Reason, WorkflowStatus
from sidecar.saga.workflow import Workflow
from tests.unit.cli.conftest import Terminal
from tests.unit.engine.faces import DOCUMENT


async def test_apply_says_what_became_of_the_document(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "order.yaml"
    file.write_bytes(DOCUMENT.replace(b"/charges", b"/v2/charges"))
    first = await terminal.run("apply", str(file))
    again = await terminal.run("apply", str(file))
    as_json = await terminal.run("apply", str(file), "-o", "json")
    assert first.stdout == "order version 2 registered\n"
    assert again.stdout == "order is unchanged: version 2 is current\n"
    assert json.loads(as_json.stdout)["version"] == 2


async def test_apply_tells_everything_that_is_wrong(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "order.yaml"
    file.write_text("name: order\nstep: []\n")
    result = await terminal.run("apply", str(file))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "step" in result.stderr
    assert "next: mend the document" in result.stderr


async def test_a_file_that_is_not_there_is_told_in_a_sentence(terminal: Terminal) -> None:
    for words in (("apply", "/nowhere"), ("start", "order", "--input", "@/nowhere")):
        result = await terminal.run(*words)
        assert result.exit_code == 1
        assert "/nowhere" in result.stderr


async def test_start_sends_what_was_asked(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "input.json"
    file.write_text('{"amount": 2}')
    words = ("start", "order", "--key", "k", "--label", "tenant=north", "--input")
    first = await terminal.run(*words, f"@{file}", "-o", "json")
    again = await terminal.run(*words, '{"amount": 2}')
    other = await terminal.run(*words, "@-", stdin="3")
    (workflow,) = terminal.faces.store.workflows.values()
    assert json.loads(first.stdout) == {"id": workflow.id, "status": "in_progress"}
    assert "had been started before" in again.stdout
    assert (workflow.input, workflow.labels) == ('{"amount":2}', {"tenant": "north"})
    assert other.exit_code == 1
    assert "start_key_reused" in other.stderr


async def test_start_refuses_what_is_no_json(terminal: Terminal) -> None:
    result = await terminal.run("start", "order", "--input", "{amount: 1}")
    assert result.exit_code == 1
    assert "not JSON" in result.stderr
    assert "not JSON" in (await terminal.run("start", "order", "--input", "[NaN]")).stderr
    assert (await terminal.run("start", "order", "--label", "x")).exit_code == 2


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        (WorkflowStatus.COMPLETED, None, 0),
        (WorkflowStatus.ROLLED_BACK, Reason.FAILED, 4),
        (WorkflowStatus.ERROR, Reason.FAILED, 4),
        (WorkflowStatus.TERMINATED, None, 4),
    ],
)
async def test_waiting_ends_with_the_workflow_and_says_how(
    terminal: Terminal, status: WorkflowStatus, reason: Reason | None, code: int
) -> None:
    running = asyncio.create_task(terminal.run("start", "order", "--wait", "-o", "json"))
    await terminal.end(status, reason)
    result = await running
    assert result.exit_code == code
    assert json.loads(result.stdout)["status"] == status
    assert ("goconductor events" in result.stderr) == (code != 0)


async def test_watching_prints_each_change_and_the_end(terminal: Terminal) -> None:
    workflow = await terminal.faces.start()
    running = asyncio.create_task(terminal.run("show", workflow.id, "--watch"))
    await terminal.end(WorkflowStatus.COMPLETED)
    result = await running
    assert result.exit_code == 0
    assert "in_progress: charge=queued ship=pending" in result.stdout
    assert "completed: " in result.stdout


async def started(terminal: Terminal, **values: Any) -> Workflow:
    return await terminal.faces.start(**values)


async def test_people_see_tables_and_programs_json(terminal: Terminal) -> None:
    workflow = await started(terminal, input={"amount": 1}, labels={"tenant": "north"})
    listed = await terminal.seen("list", "--status", "in_progress", "--label", "tenant=north")
    shown = await terminal.seen("show", workflow.id)
    history = await terminal.seen("events", workflow.id)
    assert workflow.id in listed
    assert "waits for a sidecar of service payments" in shown
    assert '{"amount": 1}' in shown
    assert "in_progress" in history
    assert "\x1b" not in listed + shown + history
    for words in (("list",), ("show", workflow.id), ("events", workflow.id)):
        json.loads(await terminal.seen(*words, "-o", "json"))


async def test_what_others_wrote_cannot_play_with_the_terminal(terminal: Terminal) -> None:
    workflow = await started(terminal, input={"note": "\x1b[2J [bold]x[/bold]"})
    shown = await terminal.seen("show", workflow.id)
    assert "\x1b" not in shown
    assert "[bold]x[/bold]" in shown
    assert "\x1b" not in await terminal.seen("show", workflow.id, "-o", "json")


async def test_a_list_says_how_to_read_on(terminal: Terminal) -> None:
    for _ in range(3):
        await started(terminal)
    first = await terminal.run("list", "--limit", "2")
    cursor = first.stderr.split()[-1]
    rest = await terminal.run("list", "--cursor", cursor)
    assert rest.stderr == ""
    assert "00000000-0000-7000-8000-000000000001" in rest.stdout


async def test_what_is_not_there_is_told_with_what_to_do(terminal: Terminal) -> None:
    result = await terminal.run("show", "nothing/../x")
    assert result.exit_code == 1
    assert "not_found" in result.stderr
    assert "goconductor list" in result.stderr


async def test_a_sidecar_that_is_not_there_is_exit_code_3() -> None:
    result = CliRunner().invoke(main, ["list", "--server", "http://127.0.0.1:1"])
    assert result.exit_code == 3
    assert "goconductor demo" in result.stderr


async def test_a_server_that_never_answers_does_not_hold_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "DEADLINE", 0.1)
    connected = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        result = await asyncio.to_thread(
            CliRunner().invoke, main, ["list", "--server", f"http://127.0.0.1:{port}"]
        )
    assert connected.is_set()
    assert result.exit_code == 3
    assert "did not answer in time" in result.stderr


@pytest.mark.parametrize(
    "server",
    [
        *("localhost:7400", "ftp://x", "http://", "http://x:y", "http://[::1", "http://x:0"),
        *("http://app:hunter2@x", "http://x?y", "http://x/ä", "http://x/a b", "http://x/a\nb"),
    ],
)
def test_an_address_that_is_none_is_refused(server: str) -> None:
    result = CliRunner().invoke(main, ["list", "--server", server])
    assert result.exit_code == 1
    assert "is not an address" in result.stderr


def test_a_namespace_that_no_header_can_hold_is_refused() -> None:
    for name in ("a\nb", "ä"):
        result = CliRunner().invoke(main, ["list", "--namespace", name])
        assert result.exit_code == 1
        assert "is not the name of a namespace" in result.stderr


async def test_a_document_that_is_too_large_is_told_so(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "large.yaml"
    file.write_bytes(b"#" * 20_000_000)
    result = await terminal.run("apply", str(file))
    assert result.exit_code == 1
    assert "too_large" in result.stderr


def test_a_demo_whose_folder_cannot_be_is_told_in_a_sentence() -> None:
    result = CliRunner().invoke(main, ["demo", "--data", "/proc/none"])
    assert result.exit_code == 1
    assert "--data: /proc/none cannot be made" in result.stderr


def test_help_keeps_its_lines() -> None:
    lines = CliRunner().invoke(main, ["--help"]).stdout.splitlines()
    assert "  Try it:    goconductor demo" in lines


def test_our_own_errors_are_sentences() -> None:
    def broken() -> None:
        raise ConfigError("service_url: is missing")

    group = Commands(commands=[click.Command("broken", callback=broken)])
    result = CliRunner().invoke(group, ["broken"])
    assert result.exit_code == 1
    assert result.stderr == "error: service_url: is missing\n"


def test_migrate_wants_to_know_which_database() -> None:
    assert CliRunner().invoke(main, ["migrate"]).exit_code == 2


def test_version() -> None:
    assert CliRunner().invoke(main, ["version"]).stdout.startswith("goconductor ")
    assert json.loads(CliRunner().invoke(main, ["version", "-o", "json"]).stdout)["version"]


def test_help_imports_nothing_heavy() -> None:
    heavy = "aiohttp pydantic rich psycopg structlog yaml orjson sidecar.wiring sidecar.config"
    script = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from sidecar.cli.main import Commands, main\n"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0\n"
        f"print([name for name in {heavy.split()!r} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "[]\n"


async def test_every_client_command_honours_the_namespace(terminal: Terminal) -> None:
    result = await terminal.run("list", "--namespace", "other")
    assert result.exit_code == 1
    assert "GoConductor-Namespace" in result.stderr
