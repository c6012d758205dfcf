"""The worked definitions in docs/examples: checked, simulated, listed; the whole language is there.

They are run by real sidecars in tests/e2e/test_examples.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from sidecar.cli.main import main
from sidecar.definitions.model import MODELS, DefinitionModel, Step

FOLDER = Path(__file__).parents[3] / "docs" / "examples"
FILES = sorted(FOLDER.glob("*.yaml"))
NAMES = [file.stem for file in FILES]
MAY_END_IN_ERROR = "compensation_failed"
"""The one fault that no definition can make good: a service that definitely cannot undo."""
CHILDREN = {"payment"}
"""What only others run."""


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def simulated(name: str, *more: str) -> Any:
    said = run(
        "simulate",
        FOLDER / f"{name}.yaml",
        f"--input=@{FOLDER}/inputs/{name}.json",
        f"--outputs=@{FOLDER}/outputs/{name}.json",
        *more,
        "--output=json",
    )
    assert said.exit_code == 0, said.stderr
    return json.loads(said.stdout)


def comment(file: Path) -> str:
    """The comment that a file begins with."""
    lines = file.read_text("utf-8").splitlines()
    end = next(number for number, line in enumerate(lines) if line.startswith("# yaml-language"))
    assert all(line.startswith("# ") for line in lines[:end])
    return " ".join(line[2:] for line in lines[:end])


def test_there_are_twelve() -> None:
    assert len(set(NAMES) - CHILDREN) == 12
    for what in ("inputs", "outputs"):
        assert [file.stem for file in sorted((FOLDER / what).glob("*.json"))] == NAMES


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_each_says_in_two_sentences_what_it_shows(file: Path) -> None:
    said = comment(file)
    assert len(re.findall(r"[.](?: |$)", said)) == 2
    listed = (FOLDER / "README.md").read_text("utf-8")
    assert f"\n- [{file.stem}]({file.name}): {said}\n" in listed
    assert yaml.safe_load(file.read_text("utf-8"))["name"] == file.stem


def test_the_list_names_no_other() -> None:
    listed = re.findall(r"^- \[(\w+)\]", (FOLDER / "README.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == NAMES


def test_the_checker_finds_nothing() -> None:
    said = run("check", "--strict", *FILES, "-o", "json")
    assert said.exit_code == 0
    for one in json.loads(said.stdout)["reports"]:
        assert (one["definition"], one["verdict"], one["findings"]) == (
            Path(one["file"]).stem,
            "proved",
            [],
        )


@pytest.mark.parametrize("name", NAMES)
def test_the_input_ends_well(name: str) -> None:
    told = simulated(name)
    assert (told["status"], told["left"], told["good"]) == ("completed", [], True)


@pytest.mark.parametrize("name", NAMES)
def test_no_single_fault_leaves_anything_undone(name: str) -> None:
    told = simulated(name, "--all-faults")
    assert told["left_out"] == 0
    for one in told["runs"]:
        assert one["broken"] == []
        if one["status"] == "error":
            assert [fault.partition("=")[2] for fault in one["faults"]] == [MAY_END_IN_ERROR]
        else:
            assert one["status"] in ("completed", "rolled_back"), one["faults"]
            assert (one["left"], one["good"]) == ([], True), one["faults"]


# -- the whole language -----------------------------------------------------------------------


def keys(kind: str, value: Any) -> Iterator[tuple[str, str]]:
    """Every key that is used, with the kind of mapping that it stands in."""
    for key, below in value.items():
        yield kind, key
        for one in below if key == "steps" else [below]:
            deeper = "step" if key == "steps" else key
            plain = key == "input" and kind != "definition"
            if isinstance(one, dict) and not plain and deeper in {"step", *MODELS}:
                yield from keys(deeper, one)


def documents() -> dict[str, Any]:
    return {file.stem: yaml.safe_load(file.read_text("utf-8")) for file in FILES}


def test_every_key_of_the_language_is_used() -> None:
    used = {one for document in documents().values() for one in keys("definition", document)}
    wanted = {("definition", key) for key in DefinitionModel.written()}
    wanted |= {("step", key) for key in Step.written()}
    wanted |= {(kind, key) for kind, model in MODELS.items() for key in model.written()}
    # What an action may say is the same in both; that it may be said there is enough.
    calls = {key for kind, key in used if kind in ("step", "execute", "compensate")}
    wanted -= {(kind, key) for kind in ("step", "execute", "compensate") for key in calls}
    # Actions need sidecars that offer them, and conventions services that have them.
    wanted -= {("step", "action"), ("step", "pinned"), ("step", "compat")}
    assert wanted - used == set()


@pytest.mark.parametrize(
    "written",
    [
        "compensate: none",
        "join: any",
        "mode: central",
        "order: sequential",
        "order: parallel",
        "max_attempts: null",
        "after: []",
        "for_each: [",
        "${workflow.id}",
        "$${",
        "${each.item",
        "${each.index",
        '.status == "succeeded"',
        "orValue",
    ],
)
def test_every_way_to_say_it_is_used(written: str) -> None:
    assert any(written in file.read_text("utf-8") for file in FILES)
