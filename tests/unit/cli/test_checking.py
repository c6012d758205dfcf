"""The commands that need only a file: `check` and `simulate`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sidecar.cli.main import main

GOOD = "name: flow\nsteps: [{name: a, service: s, execute: /a, compensate: /a/undo}]\n"
FLAWED = GOOD.replace("]", ", {name: b, service: s, execute: /b}]")
WARNED = GOOD.replace("}", ", optional: true}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("good", GOOD), ("flawed", FLAWED), ("warned", WARNED), ("none", "name: 1")):
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_a_good_definition_passes(folder: Path) -> None:
    said = run("check", folder / "good.yaml")
    assert said.exit_code == 0
    assert "flow: every way ends completed or fully undone" in said.stdout


@pytest.mark.parametrize(
    ("name", "strict", "code"),
    [
        ("good", True, 0),
        ("warned", False, 0),
        ("warned", True, 1),
        ("flawed", False, 1),
        ("none", False, 1),
    ],
)
def test_only_what_has_no_error_passes(folder: Path, name: str, strict: bool, code: int) -> None:
    words = ["--strict"] if strict else []
    assert run("check", folder / f"{name}.yaml", *words).exit_code == code


def test_a_way_is_told(folder: Path) -> None:
    said = run("check", folder / "flawed.yaml").stdout
    assert "error GC104 steps[1]" in said
    assert "    3. what became of b stays unknown" in said


def test_programs_get_json_and_sarif(folder: Path) -> None:
    files = [folder / "good.yaml", folder / "flawed.yaml"]
    reports = json.loads(run("check", *files, "-o", "json").stdout)["reports"]
    assert [one["verdict"] for one in reports] == ["proved", "refuted"]
    log = json.loads(run("check", *files, "--sarif").stdout)
    assert [one["ruleId"] for one in log["runs"][0]["results"]] == ["GC104"]


def test_a_file_that_is_not_there_is_told(folder: Path) -> None:
    said = run("check", folder / "nowhere.yaml")
    assert said.exit_code == 1
    assert "cannot be read" in said.stderr


def test_a_run_is_told_line_by_line(folder: Path) -> None:
    said = run("simulate", folder / "good.yaml", "--fault", "a=refused")
    assert said.exit_code == 0
    assert "end: rolled_back (failed) after 0.100s" in said.stdout
    told = json.loads(run("simulate", folder / "good.yaml", "-o", "json").stdout)
    assert (told["status"], told["timeline"][-1]["text"]) == (
        "completed",
        "in_progress -> completed  all_steps_passed",
    )


def test_a_run_that_ends_badly_fails(folder: Path) -> None:
    assert run("simulate", folder / "flawed.yaml", "--fault", "b=unknown").exit_code == 1


@pytest.mark.parametrize(("name", "code"), [("good", 0), ("warned", 1)])
def test_all_faults_are_a_line_each(folder: Path, name: str, code: int) -> None:
    said = run("simulate", folder / f"{name}.yaml", "--all-faults")
    assert said.exit_code == code
    assert "a=compensation_unknown" in said.stdout
    runs = json.loads(run("simulate", folder / f"{name}.yaml", "--pairs", "-o", "json").stdout)
    assert runs["left_out"] == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--fault", "x=refused"), "there is no step"),
        (("--input", "{"), "--input is not JSON"),
        (("--input", "@nowhere.json"), "cannot be read"),
        (("--outputs", "x=1"), "there is no step 'x'"),
        (("--outputs", "x"), "with the name of a step"),
        (("--signal", "go=1@3s"), "the signals are: none"),
        (("--cancel", "soon"), "is not a span of time"),
    ],
)
def test_a_slip_is_told(folder: Path, words: tuple[str, ...], says: str) -> None:
    said = run("simulate", folder / "good.yaml", *words)
    assert said.exit_code == 1
    assert says in said.stderr


def test_an_input_that_the_schema_refuses_is_told(folder: Path) -> None:
    file = folder / "schema.yaml"
    file.write_text(GOOD + "input: {schema: {type: object, required: [id]}}\n")
    assert "does not satisfy the schema" in run("simulate", file, "--input", "{}").stderr
    assert run("simulate", file, "--input", '{"id": 1}').exit_code == 0


def test_what_steps_answer_is_read_from_a_file(folder: Path) -> None:
    definition, answers = folder / "good.yaml", folder / "answers.json"
    shown = "output: {e: '${steps.a.output.e}'}\n"
    definition.write_text(GOOD.replace("}]", ", output_schema: {required: [e]}}]") + shown)
    said = {}
    for body in ('{"a": {"e": 2.718}}', '{"b": 1}', '{"a": {}}', "[]", "{}"):
        answers.write_text(body)
        said[body] = run("simulate", definition, "--outputs", f"@{answers}")
    assert [one.exit_code for one in said.values()] == [0, 1, 1, 1, 1]
    assert 'output: {"e":2.718}' in said['{"a": {"e": 2.718}}'].stdout
    assert "there is no step 'b'" in said['{"b": 1}'].stderr
    assert "--outputs a does not satisfy the schema" in said['{"a": {}}'].stderr
    assert "holds no object" in said["[]"].stderr


CHILD = "name: pay\nsteps: [{name: charge, service: s, execute: /charge, %s}]\n"
PARENT = GOOD.replace(
    "name: a, service: s, execute: /a, compensate: /a/undo", "name: p, workflow: pay"
)
SHIPS = PARENT.replace("]", ", {name: ship, service: s, execute: /b, compensate: /b/undo}]")


@pytest.mark.parametrize(
    ("charge", "parent", "codes"),
    [
        ("compensate: /charge/undo", SHIPS, set()),
        ("pivot: true", SHIPS, {"GC101"}),
        ("pivot: true", PARENT, {"GC104"}),
        ("compensate: /charge/undo", "timeout: 1d\n" + PARENT, {"GC133"}),
    ],
)
def test_a_child_is_looked_for_among_the_files(
    folder: Path, charge: str, parent: str, codes: set[str]
) -> None:
    child, whole = folder / "child.yaml", folder / "parent.yaml"
    child.write_text(CHILD % charge)
    whole.write_text(parent)
    reports = json.loads(run("check", whole, child, "-o", "json").stdout)["reports"]
    assert {one["code"] for one in reports[0]["findings"]} == codes
    assert reports[1]["findings"] == []


def test_children_of_children_count(folder: Path) -> None:
    last, middle, root = (folder / f"{name}.yaml" for name in ("last", "middle", "root"))
    last.write_text(CHILD % "pivot: true")
    middle.write_text("name: middle\nsteps: [{name: pay, workflow: pay}]\n")
    root.write_text(SHIPS.replace("workflow: pay", "workflow: middle"))
    reports = json.loads(run("check", root, middle, last, "-o", "json").stdout)["reports"]
    assert [one["code"] for one in reports[0]["findings"]] == ["GC101"]


def test_a_definition_may_run_itself(folder: Path) -> None:
    """How deep that goes is the engine's to say; how long it takes is not known."""
    tree = folder / "tree.yaml"
    deeper = '{name: b, workflow: flow, when: "${input.deeper}"}'
    tree.write_text(GOOD.replace("]", f", {deeper}]"))
    (report,) = json.loads(run("check", tree, "-o", "json").stdout)["reports"]
    assert (report["verdict"], report["times"]["worst"]) == ("proved", None)
