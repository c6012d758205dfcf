"""The commands about versions, and `diff`, against a real listener."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sidecar.api.rest.app import build_app
from sidecar.api.rest.server import RestServer
from sidecar.cli.main import main
from tests.conformance.store_play import call, register
from tests.unit.engine.faces import DOCUMENT
from tests.unit.engine.overseen import Overseen

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
async def run() -> AsyncIterator[Run]:
    async with Overseen().working() as sidecar:
        for timeout in ("10s", "20s"):
            await register(sidecar.store, call("charge", timeout=timeout))
        server = RestServer(build_app(sidecar.face()))
        host, port = await server.open("127.0.0.1", 0)

        async def run(*words: str) -> Result:
            environment = {"GOCONDUCTOR_SERVER": f"http://{host}:{port}"}
            return await asyncio.to_thread(CliRunner().invoke, main, list(words), env=environment)

        yield run
        await server.close()


async def test_a_definition_is_taken_back_by_applying_what_was_there(
    run: Run, tmp_path: Path
) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    for file, path in ((old, "/charges"), (new, "/v2/charges")):
        file.write_bytes(DOCUMENT.replace(b"/charges", path.encode()))
        await run("apply", str(file))
    again = await run("apply", str(old))
    assert again.stdout == "order is unchanged: version 3 is current\n"
    rows = (await run("versions", "order")).stdout.splitlines()[1:]
    assert [(row.split()[0], "yes" in row.split()) for row in rows] == [
        ("4", False),
        ("3", True),
        ("2", False),
        ("1", False),
    ]
    await run("retire", "order", "3")
    retired = await run("apply", str(old))
    assert retired.stdout == "order version 3 is retired, and stays so\n"
    assert "goconductor restore order 3" in retired.stderr


async def test_a_version_is_led_through_its_states(run: Run) -> None:
    assert (await run("deprecate", "order", "1")).stdout == "order version 1 is deprecated\n"
    started = await run("start", "order", "--version", "1")
    assert started.exit_code == 0
    assert "note: Version 1 of definition order is deprecated." in started.stderr
    assert (await run("retire", "order", "1")).exit_code == 0
    refused = await run("start", "order", "--version", "1")
    assert refused.exit_code == 1
    assert "start version 2" in refused.stderr
    table = (await run("versions", "order")).stdout
    assert [line.split()[:3] for line in table.splitlines()[1:]] == [
        ["2", "active", "0"],
        ["1", "retired", "1"],
    ]
    assert (await run("delete", "order", "1")).exit_code == 1
    assert "active again" in (await run("restore", "order", "1")).stdout


async def test_diff_ends_like_diff(run: Run, tmp_path: Path) -> None:
    differ = await run("diff", "order", "1", "2")
    assert differ.exit_code == 1
    assert differ.stdout == (
        '--- order version 1\n+++ order version 2\n~ step charge\n    ~ timeout: "10s" -> "20s"\n'
    )
    assert (await run("diff", "order", "2", "2")).exit_code == 0
    text = json.dumps({"name": "order", "steps": [call("charge", timeout="20s"), call("more")]})
    file = tmp_path / "order.json"
    file.write_text(text)
    with_file = await run("diff", "order", str(file), "-o", "json")
    assert with_file.exit_code == 1
    (found,) = json.loads(with_file.stdout)["differences"]
    assert (found["step"], found["path"], found["change"]) == ("more", "", "added")
    assert "+ step more" in (await run("diff", "order", "2", str(file))).stdout
    same = await run("diff", str(file), str(file))
    assert (same.exit_code, "mean the same" in same.stdout) == (0, True)


async def test_diff_tells_trouble_from_difference(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "order.yaml"
    file.write_text("name: order\nstep: 1\n")
    for words in (
        ("order", "1", "9"),
        ("order", str(file)),
        ("order", "/nowhere.yaml"),
        ("order", "1", "x"),
        ("order",),
    ):
        assert (await run("diff", *words)).exit_code == 2
