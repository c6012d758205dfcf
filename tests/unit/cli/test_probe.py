"""`goconductor probe`: what it prints, how it ends, and where it reads what it asks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sidecar.cli.demo.ledger import Ledger
from sidecar.cli.demo.service import TRADES, DemoService
from sidecar.cli.main import main
from tests.adapters.probe.broken_services import AnswersAnew
from tests.adapters.probe.sound_service import MemoryService, served

INPUT = ("--action", "charge", "--input", '{"amount": 12}')
PATHS = ("--execute", "/charges", "--compensate", "/refunds")
MORE = ("--status", "/charges/status", "--effects", "/effects")

DEFINITION = """
name: order
steps:
  - name: charge
    service: payments
    execute: { path: /charges, method: POST, on_status: { 404: refused } }
    compensate: /refunds
  - name: tell
    service: payments
    execute: /notices
    compensate: { path: /notices/undo, input: { of: "${input.order}" } }
"""


async def run(*words: str, env: dict[str, str] | None = None) -> Result:
    """Run the probe in a thread, beside the service that it asks."""
    return await asyncio.to_thread(CliRunner().invoke, main, ["probe", *words], env=env)


@pytest.fixture
async def sound() -> AsyncIterator[str]:
    async with served(MemoryService()) as url:
        yield url


async def test_a_sound_service_ends_with_0(sound: str) -> None:
    result = await run(sound, *INPUT, *PATHS, *MORE)
    assert result.exit_code == 0, result.output
    assert "holds    same_key_twice" in result.stdout
    assert "21 hold, 1 warn, 0 break the contract, 0 skipped" in result.stdout


async def test_what_is_broken_is_told_with_its_cure() -> None:
    async with served(AnswersAnew()) as url:
        table = await run(url, *INPUT, *PATHS)
        found = await run(url, *INPUT, *PATHS, "-o", "json")
    assert table.exit_code == found.exit_code == 1
    assert "breaks   same_key_twice" in table.stdout
    assert "mend:     keep the answer with the key" in table.stdout
    report = json.loads(found.stdout)
    assert report["broken"] is True
    broken = [one for one in report["findings"] if one["severity"] == "breaks"]
    assert "same_key_twice" in {one["case"] for one in broken}
    assert all(one["mend"] and one["sent"] and one["demanded"] for one in broken)
    assert sum(report["counts"].values()) == len(report["findings"])


async def test_a_definition_says_where_the_step_is(sound: str, tmp_path: Path) -> None:
    file = tmp_path / "order.yaml"
    file.write_text(DEFINITION)
    result = await run(sound, *INPUT, "--definition", str(file), *MORE)
    assert result.exit_code == 0, result.output
    assert "0 skipped" in result.stdout
    unknown = await run(sound, "--action", "ship", "--definition", str(file))
    assert unknown.exit_code == 1
    assert "name one of charge, tell" in unknown.stderr
    own = await run(sound, "--action", "tell", "--definition", str(file))
    assert own.exit_code == 1
    assert "--compensate-input" in own.stderr


async def test_a_service_that_is_away_ends_with_3(tmp_path: Path) -> None:
    result = await run(f"unix://{tmp_path}/app.sock", *INPUT, *PATHS)
    assert result.exit_code == 3
    assert "no service can be reached" in result.stderr
    assert "next: start the service" in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("ftp://x", *INPUT, *PATHS), 1, "the URL 'ftp://x' begins with"),
        (("http://127.0.0.1:1", *INPUT), 2, "give --execute PATH"),
        (("http://127.0.0.1:1", *INPUT, *PATHS, "--header", "nothing"), 2, "'NAME: VALUE'"),
        (("http://127.0.0.1:1", *INPUT, *PATHS, "--header", "Host: x"), 2, "sets this one"),
        (("http://127.0.0.1:1", *INPUT, *PATHS, "--header", "X: env:NO_SUCH"), 1, "NO_SUCH"),
        (("http://127.0.0.1:1", *INPUT, *PATHS, "--input", "{"), 1, "not JSON"),
        (("http://127.0.0.1:1", *INPUT, "--execute", "charges"), 1, "begins with one /"),
        (("http://127.0.0.1:1", *INPUT, *PATHS, "--timeout", "0"), 2, "--timeout"),
    ],
)
async def test_what_cannot_be_asked_is_told_in_a_sentence(
    words: tuple[str, ...], code: int, said: str
) -> None:
    result = await run(*words)
    assert result.exit_code == code
    assert said in result.stderr


@pytest.mark.parametrize("name", sorted(TRADES))
async def test_the_services_of_the_demo_keep_the_contract(name: str, tmp_path: Path) -> None:
    # Their made-up troubles go by the number at an order's end; this one has none.
    order = {"order_id": "{unique}-x", "amount": 12, "item": "lamp", "address": "1 Mill Lane"}
    trade, book = TRADES[name], Ledger(tmp_path / "book.jsonl")
    async with served(DemoService(name, book)) as url:
        paths = ("--execute", trade.execute, "--compensate", trade.compensate)
        result = await run(url, "--action", "do", "--input", json.dumps(order), *paths)
    book.close()
    assert result.exit_code == 0, result.output
    assert "0 warn, 0 break the contract, 3 skipped" in result.stdout
