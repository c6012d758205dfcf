"""A service built on the recipes of docs/barriers.md passes the whole probe."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner

from sidecar.cli.main import main
from tests.adapters.probe.sound_service import Service, served
from tests.e2e.conftest import MARIADB, POSTGRES
from tests.e2e.recipes import Recipe, Reply

PROBE = (
    "--action=charge",
    "--execute=/charges",
    "--compensate=/refunds",
    "--status=/charges/status",
    "--effects=/effects",
    "--input=" + json.dumps({"amount": 12}),
    "--output=json",
)
OUTCOMES = {"done": "succeeded", "refused": "refused", "compensated": "refused"}


class RecipeService(Service):
    """The recipe behind HTTP. Nothing about keys is known here."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    async def do(self, step: str, body: Any) -> web.StreamResponse:
        return _answer(await asyncio.to_thread(self.recipe.execute, step))

    async def undo(self, step: str, body: Any) -> web.StreamResponse:
        return _answer(await asyncio.to_thread(self.recipe.compensate, step))

    async def count(self) -> int:
        return await asyncio.to_thread(self.recipe.effects)

    async def outcome(self, step: str) -> str | None:
        state = await asyncio.to_thread(self.recipe.state, step)
        return None if state is None else OUTCOMES[state]


def _answer(reply: Reply) -> web.Response:
    status, answer = reply
    return (
        web.Response(status=status) if answer is None else web.json_response(answer, status=status)
    )


async def probe(recipe: Recipe) -> tuple[int, dict[str, str]]:
    """The exit code of the command, and how each case went."""
    async with served(RecipeService(recipe)) as url:
        result = await asyncio.to_thread(CliRunner().invoke, main, ["probe", url, *PROBE])
    findings = json.loads(result.stdout)["findings"]
    return result.exit_code, {one["case"]: one["severity"] for one in findings}


async def test_a_service_on_the_recipe_passes_the_whole_probe(recipe: Recipe) -> None:
    code, found = await probe(recipe)
    assert code == 0
    # It does not know a key that it never saw, and says so: allowed, and the workflow turns back.
    assert found.pop("status_unknown") == "warns"
    assert set(found.values()) == {"holds"}, found
    assert recipe.effects() == 0


@pytest.mark.parametrize("recipe", [POSTGRES, MARIADB], indirect=True)
async def test_a_service_without_the_first_statement_is_found(recipe: Recipe) -> None:
    """No row is made, so nothing is known of any key."""
    recipe.blocks["lock"] = recipe.blocks["lock"][1:]
    code, found = await probe(recipe)
    assert code == 1
    broken = {case for case, severity in found.items() if severity == "breaks"}
    assert {"same_key_twice", "same_key_at_once", "lost_answer", "compensate"} <= broken
