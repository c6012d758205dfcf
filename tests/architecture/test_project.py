"""The repository speaks of the project alone, and its top level holds only what is meant to be."""

from __future__ import annotations

import re

from tests.architecture import house
from tests.architecture.house import ROOT

TOP_LEVEL = {
    ".ci", ".editorconfig", ".dockerignore", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md",
    "LICENSE", "Makefile", "README.md", "SECURITY.md", "deploy", "docs", "protos",
    "pyproject.toml", "sidecar", "tests",
}  # fmt: skip
TEST_ROOMS = {
    "unit", "conformance", "adapters", "simulation", "chaos", "e2e", "browser", "migrations",
    "architecture", "benchmarks", "faults", "servers", "__init__.py", "conftest.py",
}  # fmt: skip
TEXT_REQUIRED = {"CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "SECURITY.md"}
# A reference to a tracker explains nothing to who has only the files. Colours (`"#123"`) and
# anchors (`page#1`) are not references.
TRACKER = re.compile(
    r"(?<![\w\"'&/(#])#\d{1,6}\b|\bGH-\d+|\b(?:issues?|pull requests?|PR)\s+#?\d+"
    r"|/(?:issues|pull)/\d+",
    re.IGNORECASE,
)
# Where somebody happened to build it. Written in two parts, so as not to find itself.
MACHINE = re.compile(r"(?<![\w.\-}])/" + r"(?:work|home/\w+|Users/\w+)(?:/|\b)")
CHECKED_ENDINGS = {".py", ".md", ".toml", ".yaml", ".yml", ".sql", ".proto", ".xml", ".sh", ""}


def _lines_that_match(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {found.group()!r}"
        for path in house.project_files()
        if path.suffix in CHECKED_ENDINGS and path.name != "LICENSE"
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if (found := pattern.search(line))
    ]


def test_the_project_files_are_found() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in house.project_files()}
    assert {"pyproject.toml", "Makefile", "sidecar/__init__.py"} <= names


def test_no_tracker_is_cited() -> None:
    findings = _lines_that_match(TRACKER)
    assert not findings, "\n" + "\n".join(findings)


def test_no_path_of_a_machine_is_named() -> None:
    findings = _lines_that_match(MACHINE)
    assert not findings, "\n" + "\n".join(findings)


def test_the_patterns_find_what_they_are_for() -> None:
    for text in ("see #" + "12", "fixes issue " + "7", "GH" + "-3", "x/pull/" + "9"):
        assert TRACKER.search(text), text
    for text in ('colour "#123"', "page#1", "# 12 items", "&#39;"):
        assert not TRACKER.search(text), text
    assert MACHINE.search("in /" + "work/x")
    assert not MACHINE.search("docs/work/x and framework/")


def test_the_top_level_holds_only_what_is_meant_to_be() -> None:
    tops = {path.relative_to(ROOT).parts[0] for path in house.project_files()}
    assert tops <= TOP_LEVEL, f"give these a room: {sorted(tops - TOP_LEVEL)}"
    assert tops >= TEXT_REQUIRED


def test_the_tests_live_in_their_rooms() -> None:
    tests = [path.relative_to(ROOT).parts for path in house.project_files()]
    rooms = {parts[1] for parts in tests if parts[0] == "tests"}
    assert rooms <= TEST_ROOMS, f"not a room of the tests: {sorted(rooms - TEST_ROOMS)}"
