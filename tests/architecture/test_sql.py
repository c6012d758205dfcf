"""SQL lives in named blocks of `.sql` files, beside the Python file of the same name.

So a statement can be read, explained and measured without hunting through strings, and none can
be glued together from a user's text.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from tests.architecture import house
from tests.architecture.house import PACKAGE, ROOT, Module

BLOCK = re.compile(r"^-- name: (\S+)[ \t]*$", re.MULTILINE)
STATEMENT = re.compile(
    r"\b(SELECT|INSERT|UPDATE|DELETE|MERGE|TRUNCATE)\s+[^/\s]"
    r"|(?i:^\s*(select\s.*\sfrom\s|insert\s+into\s|update\s+\S+\s+set\s|delete\s+from\s))",
    re.DOTALL,
)
LOADED_NAME = "SQL"


def _assert_none(findings: Iterator[str]) -> None:
    found = list(findings)
    assert not found, "\n" + "\n".join(found)


def test_no_statement_hides_in_a_python_string() -> None:
    _assert_none(
        module.at(text.lineno, "a statement in a string: give it a name in the .sql file")
        for module in house.modules(PACKAGE)
        for text in house.texts(module.tree)
        if isinstance(text.value, str) and STATEMENT.search(text.value)
    )


def test_the_ban_finds_statements_and_leaves_prose_alone() -> None:
    for statement in ("SELECT 1", "  select x from y", "delete from steps", "x; UPDATE a SET b=1"):
        assert STATEMENT.search(statement), statement
    for prose in ("DELETE", "select the queue", "DELETE /v1/tokens", "update it", "no UPDATE"):
        assert not STATEMENT.search(prose), prose


def test_every_block_lies_beside_its_python_and_is_used() -> None:
    _assert_none(
        f"{path.relative_to(ROOT)}:{line}: {finding}"
        for path in _named_files()
        for line, finding in _findings_of_sql(path)
    )


def test_every_statement_that_is_used_exists() -> None:
    _assert_none(
        module.at(line, f"there is no block {name!r} in {sql.relative_to(ROOT)}")
        for module, sql in _speakers()
        for name, line in _looked_up(module, sql)
        if name not in _blocks(sql)
    )


def test_the_reader_of_names_follows_every_way_a_statement_is_used() -> None:
    source = """
        async def _rows(self, statement, **values): return SQL[statement]
        async def direct(self): return SQL["one"]
        async def passed_on(self): return await self._rows("two", other="three")
    """
    module = Module(Path("x.py"), source, ast.parse(textwrap.dedent(source)))
    names = _names_of(module, doors=_doors(module))
    assert sorted(name for name, _ in names) == ["one", "two"]


def _named_files() -> Iterator[Path]:
    """Files of named statements; migrations and the whole schema are scripts."""
    for path in house.files(PACKAGE, ".sql"):
        if path.name != "schema.sql" and "migrations" not in path.parts:
            yield path


def _findings_of_sql(path: Path) -> Iterator[tuple[int, str]]:
    python = path.with_suffix(".py")
    if not python.exists():
        yield 1, f"there is no {python.name} beside it"
        return
    blocks = _blocks(path)
    if not blocks:
        yield 1, "no `-- name: …` block"
    # A name may be chosen in one adapter's module and looked up in another.
    spoken = {
        text.value
        for module in house.modules(PACKAGE / "adapters")
        for text in house.texts(module.tree)
    }
    for name, line in blocks.items():
        if name not in spoken:
            yield line, f"nobody uses the block {name!r}"


def _blocks(path: Path) -> dict[str, int]:
    """The names of a file's blocks, with their lines."""
    text = path.read_text() if path.exists() else ""
    return {
        found.group(1): text.count("\n", 0, found.start()) + 1 for found in BLOCK.finditer(text)
    }


def _speakers() -> Iterator[tuple[Module, Path]]:
    """Every module that uses statements, with the `.sql` file that they come from.

    It is the file beside the module that loads them; another may import its `SQL`.
    """
    for module in house.modules(PACKAGE):
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom) and LOADED_NAME in {a.name for a in node.names}:
                owner = ROOT.joinpath(*(node.module or "").split(".")).with_suffix(".sql")
                yield module, owner
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == LOADED_NAME:
                yield module, module.path.with_suffix(".sql")


def _looked_up(module: Module, sql: Path) -> list[tuple[str, int]]:
    doors = _doors(module)
    owner = sql.with_suffix(".py")
    if owner.exists():  # a subclass speaks through its parent's door
        doors |= _doors(house.read(owner))
    return _names_of(module, doors=doors)


def _doors(module: Module) -> set[str]:
    """The functions that take a statement's name and look it up: `SQL[statement]`."""
    return {
        function.name
        for function in ast.walk(module.tree)
        if isinstance(function, house.FUNCTIONS)
        for key in _keys(function)
        if isinstance(key, ast.Name) and key.id in {a.arg for a in _positional(function)}
    }


def _positional(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    return [*function.args.posonlyargs, *function.args.args]


def _keys(tree: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == LOADED_NAME:
            yield node.slice


def _names_of(module: Module, *, doors: set[str]) -> list[tuple[str, int]]:
    """The names looked up, directly or through a door, with their lines."""
    through_doors = [
        node.args[0]
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and node.args
        if ast.unparse(node.func).rpartition(".")[2] in doors
    ]
    return [
        (key.value, key.lineno)
        for key in (*_keys(module.tree), *through_doors)
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    ]
