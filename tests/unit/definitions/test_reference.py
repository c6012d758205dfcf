"""The reference says what is so: its examples register, and the published schema knows them."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from sidecar.definitions import compile_stored, parse_definition
from sidecar.definitions.catalogues import read_actions
from sidecar.definitions.findings import Findings
from sidecar.definitions.language import language_schema
from sidecar.definitions.model import MODELS, DefinitionModel, Step
from sidecar.definitions.pins import with_catalogues
from sidecar.errors import DefinitionError
from tests.architecture.schema_page import PAGE, page

ROOT = Path(__file__).parents[3]
REFERENCE = (ROOT / "docs" / "definitions.md").read_text(encoding="utf-8")
LANGUAGE = jsonschema_rs.Draft202012Validator(language_schema(), offline=True)
STEP: dict[str, Any] = {"name": "a", "service": "s", "execute": "/a"}


def blocks(text: str) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)


def whole(block: str) -> str:
    """A list of steps becomes a definition of them."""
    if not block.startswith("- name"):
        return block
    return "name: example\nsteps:\n" + re.sub("^", "  ", block, flags=re.MULTILINE)


def examples() -> list[str]:
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")]
    found = [whole(one) for text in pages for one in blocks(text)]
    found += blocks((ROOT / "README.md").read_text(encoding="utf-8"))
    found.append((ROOT / "sidecar" / "cli" / "demo" / "order.yaml").read_text(encoding="utf-8"))
    return [one for one in found if re.search("^steps:", one, re.MULTILINE)]


def fits(document: Any) -> bool:
    return LANGUAGE.is_valid(document)


def registers(document: Any) -> bool:
    try:
        parse_definition(json.dumps(document), "json")
    except DefinitionError:
        return False
    return True


def test_all_examples_of_the_reference_are_looked_at() -> None:
    assert len(blocks(REFERENCE)) == 12
    assert len(examples()) >= 8


def test_the_catalogue_of_the_reference_is_one() -> None:
    (shown,) = (one for one in blocks(REFERENCE) if "actions:" in one)
    findings = Findings()
    offered = read_actions(yaml.safe_load(shown)["actions"], findings)
    assert findings.problems() == []
    (text,) = (one for one in examples() if "action: charge" in one)
    parsed = with_catalogues(parse_definition(text), {("payments", None): offered})
    look_up, charge = compile_stored(parsed.document, "default", "example", 1).steps
    assert look_up.no_effect
    assert charge.compensation is not None
    assert (charge.timeout, charge.retry.max_attempts) == (timedelta(seconds=20), 5)


@pytest.mark.parametrize("text", examples())
def test_an_example_registers_and_fits_the_schema(text: str) -> None:
    parsed = parse_definition(text)
    compiled = compile_stored(parsed.document, "default", parsed.name, 1)
    assert compiled.steps
    assert [one.message for one in LANGUAGE.iter_errors(yaml.safe_load(text))] == []


def test_every_key_is_told() -> None:
    keys = {key for part in (DefinitionModel, Step, *MODELS.values()) for key in part.written()}
    keys -= {"schema"}  # told as input.schema
    assert [key for key in sorted(keys) if f"`{key}`" not in REFERENCE] == []


# -- the published schema -----------------------------------------------------------------------


def test_the_published_schema_is_that_of_the_models() -> None:
    # As data: the order of keys belongs to pydantic's version.
    published = json.loads(PAGE.read_text(encoding="utf-8"))
    assert published == language_schema(), "run: python -m tests.architecture.schema_page"


def test_the_published_schema_is_one() -> None:
    jsonschema_rs.Draft202012Validator(json.loads(page()), offline=True)
    assert language_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_every_key_of_the_published_schema_is_described() -> None:
    schema = language_schema()
    parts = {"": schema, **schema["$defs"]}
    bare = [
        f"{name}.{key}"
        for name, part in parts.items()
        for key, value in part["properties"].items()
        if not value.get("description")
    ]
    assert bare == []


@pytest.mark.parametrize(
    "keys",
    [
        {"retry": {"max_attempts": None, "total_budget": None, "jitter": 0}},
        {"compensate": "none"},
        {"compensate": {"path": "/b", "method": "DELETE", "input": {"x": None}}},
        {"when": True},
        {"when": "${input.a > 1}"},
        {"for_each": "${input.l}", "max_parallel": 1_000, "tolerated_failures": 3},
        {"for_each": [1, 2]},
        {"on_status": {"409": "refused", "202": "pending"}},
        {"status": {"path": "/s", "budget": "1.5m"}},
        {"output_schema": {"type": "object"}},
        {"input": {"any": [None, "${input.x}"]}},
    ],
)
def test_what_registers_fits(keys: dict[str, Any]) -> None:
    document = {"name": "d", "steps": [{**STEP, **keys}]}
    assert registers(document)
    assert fits(document)


@pytest.mark.parametrize(
    "step",
    [
        {"name": "a"},
        {"name": "a", "service": "s"},
        {"name": "a", "execute": "/a"},
        {**STEP, "name": "A"},
        {**STEP, "wait": {"duration": "1s"}},
        {**STEP, "exectue": "/a"},
        {**STEP, "execute": "a"},
        {**STEP, "timeout": "PT1S"},
        {**STEP, "timeout": 5},
        {**STEP, "join": "some"},
        {**STEP, "when": "input.a"},
        {**STEP, "when": 1},
        {**STEP, "max_parallel": 5},
        {**STEP, "for_each": "${input.l}", "max_parallel": 0},
        {**STEP, "for_each": "${input.l}", "max_parallel": 1_001},
        {**STEP, "retry": {"max_attempts": 0}},
        {**STEP, "retry": {"jitter": None}},
        {**STEP, "on_status": {"409": "maybe"}},
        {**STEP, "on_status": {"99": "done"}},
        {**STEP, "output_schema": {"type": "objekt"}},
        {**STEP, "workflow": "child"},
        {"name": "a", "wait": {}},
        {"name": "a", "wait": {"duration": "1s", "signal": "s"}},
        {"name": "a", "wait": {"duration": "1s", "timeout": "1s"}},
        {"name": "a", "wait": {"duration": "1s"}, "pivot": True},
    ],
)
def test_what_does_not_fit_does_not_register(step: dict[str, Any]) -> None:
    document = {"name": "d", "steps": [step]}
    assert not fits(document)
    assert not registers(document)
