"""Habits of size, naming and honesty that no linter knows; each finding is printed as file:line."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.architecture import house
from tests.architecture.house import PACKAGE, ROOT, TESTS, Module

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
LINE_LENGTH_MAX = 100
TWIN_LINES = range(60, 251)
NAMES_THAT_SAY_NOTHING = {"util", "utils", "helper", "helpers", "common", "misc", "base"}
BACKENDS = re.compile(
    r"(?<![a-z])(kafka|kinesis|rabbitmq|amqp|nats|etcd|zookeeper|kazoo|postgres|postgresql|psycopg)(?![a-z])",
    re.IGNORECASE,
)
# Idleness is measured by letting time pass; a broker that is not ready yet is asked again.
MAY_SLEEP = (
    TESTS / "simulation",
    TESTS / "servers",
    TESTS / "benchmarks" / "idle.py",
    TESTS / "chaos" / "topics.py",
)
SLEEPS = {"time", "asyncio"}


def _assert_none(findings: Iterable[str]) -> None:
    found = list(findings)
    assert not found, "\n" + "\n".join(found)


def test_there_is_something_to_look_at() -> None:
    paths = {module.path for module in house.modules(PACKAGE, TESTS)}
    assert {PACKAGE / "__init__.py", TESTS / "conftest.py", Path(__file__)} <= paths


def test_no_file_is_too_long() -> None:
    _assert_none(
        f"{path.relative_to(ROOT)}:{lines}: {lines} lines, at most {FILE_LINES_MAX}"
        for folder in (PACKAGE, TESTS)
        for path in house.files(folder, ".py", ".sql")
        if path.name != "schema.sql"  # the whole schema in one place, for reading
        if (lines := len(path.read_text().splitlines())) > FILE_LINES_MAX
    )


def test_no_function_is_too_long() -> None:
    _assert_none(
        module.at(node.lineno, f"{node.name} has {lines} lines, at most {FUNCTION_LINES_MAX}")
        for module in house.modules(PACKAGE, TESTS)
        for node in ast.walk(module.tree)
        if isinstance(node, house.FUNCTIONS)
        if (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    )


def test_no_line_is_too_long() -> None:
    """The formatter leaves long strings and comments; only an address may stay long."""
    _assert_none(
        module.at(number, f"{len(line)} characters, at most {LINE_LENGTH_MAX}")
        for module in house.modules(PACKAGE, TESTS)
        for number, line in enumerate(module.source.splitlines(), 1)
        if len(line) > LINE_LENGTH_MAX and "://" not in line and "noqa" not in line
        if module.path != Path(__file__)
    )


def test_every_name_says_something() -> None:
    _assert_none(
        f"{path.relative_to(ROOT)}:1: a name that does not say what is inside"
        for folder in (PACKAGE, TESTS)
        for path in house.files(folder, ".py", ".sql")
        for part in path.relative_to(ROOT).with_suffix("").parts
        if NAMES_THAT_SAY_NOTHING & set(part.lower().split("_"))
    )


def test_every_module_says_what_it_is_for() -> None:
    _assert_none(
        module.at(1, "no module docstring")
        for module in house.modules(PACKAGE, TESTS)
        if not (ast.get_docstring(module.tree) or "").strip()
    )


def test_tests_wait_for_facts_and_do_not_sleep() -> None:
    _assert_none(
        finding
        for module in house.modules(TESTS)
        if not any(module.path.is_relative_to(folder) for folder in MAY_SLEEP)
        for finding in sleeps_of(module)
    )


def sleeps_of(module: Module) -> Iterator[str]:
    """Calls that wait for time to pass; `asyncio.sleep(0)` only lets others run."""
    imported = {
        alias.asname or alias.name
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom) and node.module in SLEEPS
        for alias in node.names
        if alias.name == "sleep"
    }
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            yields_only = [ast.unparse(argument) for argument in node.args] == ["0"]
            if (name in imported or name in {f"{m}.sleep" for m in SLEEPS}) and not yields_only:
                yield module.at(node.lineno, f"{name}: wait for a fact instead")


def test_the_engine_and_the_suites_name_no_backend() -> None:
    _assert_none(
        module.at(line, f"names the backend {name!r}; ask the port for a capability instead")
        for module in house.modules(PACKAGE / "engine", TESTS / "conformance")
        for line, name in backends_named_in(module)
    )


def backends_named_in(module: Module) -> Iterator[tuple[int, str]]:
    """Backends in names and strings; comments and docstrings may explain with them."""
    documentation = {node.lineno for node in house.docstrings(module.tree)}
    for token in tokenize.generate_tokens(io.StringIO(module.source).readline):
        explains = token.type == tokenize.COMMENT or (
            token.type == tokenize.STRING and token.start[0] in documentation
        )
        found = BACKENDS.search(token.string.replace("_", " "))
        if found and not explains:
            yield token.start[0], found.group()


def test_every_family_has_a_twin_within_its_budget() -> None:
    found: dict[str, dict[str, Path]] = {}
    for family, name, path in house.adapters():
        found.setdefault(family, {})[name] = path
    _assert_none(
        f"sidecar/adapters/{family}:1: has no in-process twin memory.py"
        for family, backends in found.items()
        if "memory" not in backends
    )
    twins = [backends["memory"] for backends in found.values() if backends["memory"].is_file()]
    _assert_none(
        f"{path.relative_to(ROOT)}:{lines}: a twin has {TWIN_LINES.start} to"
        f" {TWIN_LINES.stop - 1} lines, this one {lines}"
        for path in twins
        if (lines := len(path.read_text().splitlines())) not in TWIN_LINES
    )


def test_every_adapter_is_bound_to_its_conformance_suite() -> None:
    """A new backend is a new binding, not new tests: tests/adapters/<family>/test_<name>.py."""
    _assert_none(
        f"{path.relative_to(ROOT)}:1: {finding}"
        for family, name, path in house.adapters()
        for finding in _unbound(TESTS / "adapters" / family / f"test_{name}.py")
    )


def _unbound(binding: Path) -> Iterator[str]:
    where = binding.relative_to(ROOT)
    if not binding.exists():
        yield f"its binding {where} is missing"
    elif "tests.conformance" not in binding.read_text():
        yield f"{where} does not use the suite in tests/conformance"


def test_no_suite_hides_a_promise_of_another_behind_the_same_name() -> None:
    """The suites of a port are put together in one class, where the last of a name wins."""
    found: dict[tuple[str, str], list[str]] = {}
    for module in house.modules(TESTS / "conformance"):
        port = module.path.stem.partition("_")[0]
        for node in ast.walk(module.tree):
            if isinstance(node, house.FUNCTIONS) and node.name.startswith("test_"):
                found.setdefault((port, node.name), []).append(module.at(node.lineno, node.name))
    _assert_none(
        f"{place}: another suite of {port} has a test of this name"
        for (port, _), places in found.items()
        for place in places[1:]
    )
