"""Expressions: CEL, behind two Protocols, so that its library can be exchanged.

An expression is compiled once, when its definition is registered: syntax, functions, types
and names are checked then. What is left for later is what only data can show, a missing key
or a division by zero, and that is a `RenderError`.

Available are the standard CEL functions and macros and the optional syntax
(`input.?note.orValue("")`). Evaluation is bounded: see `sidecar.definitions.cost`.

Data must be free of NUL, as every `JsonText` is: the library cuts a text at its first NUL.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from cel_expr_python import cel
from cel_expr_python.ext import ext_optional

from sidecar.definitions.cost import INDEX, MOST_SIZE, bound, chain_of, plain
from sidecar.definitions.data import Data, outermost
from sidecar.definitions.findings import shown
from sidecar.definitions.tree import Call, Fold, Ident, Node, Select, children, decode
from sidecar.definitions.work import CONVERT, EVALUATE, NODE, PLAIN_NODE, TAKE, Work
from sidecar.errors import RenderError

MAX_SOURCE = 4 * 1024
"""The longest expression, in characters."""
MAX_DOUBLING = 4
"""How many `optMap` and `optFlatMap` one expression may hold: each writes down what stands before
it twice, so the tree doubles every time."""

_MOST_UNSURE = MOST_SIZE // 4
"""The same as `MOST_SIZE` for results that must be taken apart piece by piece."""

VARIABLES = ("input", "steps", "workflow", "each")


@dataclass(frozen=True, slots=True)
class Reference:
    """A chain of names beginning with a variable: `steps.charge.output.risk`.

    With a `key`, another chain, only the member of that name is read: `input.prices[each.item]`.
    """

    names: tuple[str, ...]
    offset: int
    key: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with the source of an expression; `offset` is in characters."""

    message: str
    offset: int


class Expression(Protocol):
    """A compiled expression."""

    @property
    def references(self) -> tuple[Reference, ...]:
        """All it reads."""
        ...

    @property
    def nodes(self) -> int:
        """How large it is: compiling and bounding it take so much longer."""
        ...

    @property
    def gives(self) -> str:
        """The kind of its result as far as it is known: `BOOL`, `LIST`, ..., or `DYN`."""
        ...

    def evaluate(self, data: Data) -> Any:
        """Return plain JSON data. Raises `RenderError`, never anything else."""
        ...


class Language(Protocol):
    """A language for expressions."""

    def compile(self, source: str) -> Expression | list[Flaw]:
        """Compile, or say all that is wrong."""
        ...


class Cel:
    """CEL by `cel-expr-python`, Google's implementation in C++."""

    def __init__(self) -> None:
        self._environment = cel.NewEnv(
            variables=dict.fromkeys(VARIABLES, cel.Type.DYN),
            extensions=[ext_optional.ExtOptional()],
        )

    def compile(self, source: str) -> Expression | list[Flaw]:
        """Compile, or say all that is wrong."""
        if not source.strip():
            return [Flaw("the expression is empty; write one, like ${input.amount}", 0)]
        if len(source) > MAX_SOURCE:
            return [Flaw(f"the expression is longer than {MAX_SOURCE} characters", 0)]
        doublings = list(_DOUBLING.finditer(source))
        if len(doublings) > MAX_DOUBLING:
            where = doublings[MAX_DOUBLING].start()
            return [Flaw(f"there are more than {MAX_DOUBLING} `optMap` in one expression", where)]
        try:
            program = self._environment.compile(source)
            kind, serialized = program.return_type().name(), program.serialize()
        except (RuntimeError, ValueError, TypeError, SystemError) as error:
            return _flaws(source, str(error))
        tree = decode(serialized)
        chain = chain_of(tree)
        if chain is not None and chain[0] not in VARIABLES:
            return [Flaw(f"{shown(chain[0])!r} is a type, not a value", 0)]
        if "optional_type" in kind:
            return [Flaw("the result is an optional, which has no JSON form; " + _END_IT, 0)]
        return _CelExpression(source, program, tree, kind, self._activation)

    def _activation(self, data: Mapping[str, Any]) -> Any:
        return self._environment.Activation(data={name: data.get(name) for name in VARIABLES})


class _CelExpression:
    """A CEL program with its tree."""

    def __init__(
        self,
        source: str,
        program: Any,
        tree: Node,
        kind: str,
        convert: Callable[[Mapping[str, Any]], Any],
    ) -> None:
        self._source, self._program, self._tree = source, program, tree
        self._convert = convert
        self.nodes = _count(tree)
        self.gives = kind.partition("<")[0]
        self._chain = chain_of(tree)
        self._bound = plain(tree)
        self._plain = not _makes_optionals(tree)
        found: dict[tuple[tuple[str, ...], ...], Reference] = {}
        for one in _references(tree, frozenset()):
            found.setdefault((one.names, one.key), one)
        self.references = tuple(found.values())
        self._reads = outermost([one.names for one in self.references if not one.key])
        self._picks = [(one.names, one.key) for one in self.references if one.key]

    def evaluate(self, data: Data) -> Any:
        """Return plain JSON data. Raises `RenderError`, never anything else."""
        if self._chain is not None:
            # A bare path is most of what people write: following it costs no conversion, and
            # keeps numbers beyond 64 bits as they are.
            return self._follow(data, self._chain)
        try:
            return self._evaluated(data)
        except RenderError as error:
            raise self._error(error.message + self._absent(data)) from error
        except TypeError as error:
            # What the library cannot turn into Python: an optional, a message.
            raise self._error("the result has no JSON form; " + _END_IT) from error
        except Exception as error:
            raise self._error(_without_code(str(error))) from error

    def _evaluated(self, data: Data) -> Any:
        """Pay for the evaluation, then make it, then pay for what came of it."""
        if self._bound is None:
            data.work.spend(EVALUATE + self.nodes * NODE)
            size, work = bound(self._tree, data.measured)
        else:
            data.work.spend(EVALUATE + self.nodes * PLAIN_NODE)
            size, work = self._bound.of(data.measured)
        if not size <= (MOST_SIZE if self._plain else _MOST_UNSURE):
            raise RenderError("the result could become too large on this data")
        data.work.spend(work)
        reads = self._reads
        if self._picks:
            reads = outermost([*reads, *(data.picked(*pick) for pick in self._picks)])
        result = self._program.eval(activation=data.converted(reads, self._convert))
        # An error comes back as a value, whose plain form is a text like any other.
        if result.type() == cel.Type.ERROR:
            raise RenderError(_without_code(str(result.plain_value())))
        plain = result.plain_value() if self._plain else _taken(result, data.work)
        return _json(plain, data.work)

    def _follow(self, data: Data, chain: tuple[str, ...]) -> Any:
        value, depth = data.follow(chain)
        if depth < len(chain):
            text = f"there is no {chain[depth]!r} in {'.'.join(chain[:depth])}"
            raise self._error(text + self._absent(data))
        return value

    def _absent(self, data: Data) -> str:
        """What to do if an output is null that was looked into, which is why this has failed."""
        for one in self.references:
            output = one.names[:3]
            deeper = len(one.names) > len(output) and output[0] == "steps"
            if deeper and data.follow(output) == (None, len(output)):
                name = shown(".".join(output))
                return f"; {name} is null, and null has no keys: ask `{name} == null` first"
        return ""

    def _error(self, text: str) -> RenderError:
        return RenderError(f"${{{shown(self._source)}}}: {text}")


def _json(value: Any, work: Work) -> Any:
    """The result as JSON data; raises `RenderError` if it has none."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        if "\x00" in value:
            raise RenderError("the result holds the character NUL")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise RenderError("the result is not a finite number")
        return value
    if isinstance(value, list):
        work.spent(len(value) * CONVERT)
        return [_json(one, work) for one in value]
    if isinstance(value, dict):
        work.spent(len(value) * CONVERT * 2)
        if not all(isinstance(key, str) for key in value):
            raise RenderError("the result is a map whose keys are not text")
        return {_json(key, work): _json(one, work) for key, one in value.items()}
    kind = _NAMES.get(type(value).__name__, type(value).__name__)
    raise RenderError(f"the result is {kind}, which has no JSON form; wrap it in string(...)")


def _makes_optionals(node: Node) -> bool:
    """Whether an optional can be anywhere in the result.

    Taking one out as a whole may even crash the library (0.1.3: where it stands in a map).
    """
    if isinstance(node, Call) and _OPTIONAL.search(node.function):
        return True
    return any(map(_makes_optionals, children(node)))


def _taken(result: Any, work: Work) -> Any:
    """Take a result apart piece by piece; raises `TypeError` where it has no plain form."""
    value = result.value()
    if isinstance(value, list):
        work.spend(len(value) * TAKE)
        return [_taken(one, work) for one in value]
    if isinstance(value, dict):
        work.spend(len(value) * TAKE)
        return {key: _taken(one, work) for key, one in value.items()}
    return value


_NAMES = {
    "bytearray": "bytes",
    "bytes": "bytes",
    "datetime": "a timestamp",
    "timedelta": "a duration",
    "Type": "a type",
}


def _references(node: Node, local: frozenset[str]) -> list[Reference]:
    """All chains of names that begin with a variable, not with a loop's own name."""
    chain = chain_of(node, optional=True)
    if chain is None and isinstance(node, Select):  # `has(a.b)` reads a.b
        operand = chain_of(node.operand, optional=True)
        chain = operand and (*operand, node.field)
    if chain is not None:
        return [] if chain[0] in local else [Reference(chain, _first(node))]
    if isinstance(node, Call) and node.function in INDEX:
        table, key = (chain_of(one, optional=True) for one in node.arguments)
        if table and key and not {table[0], key[0]} & local:
            one, other = (_first(argument) for argument in node.arguments)
            return [Reference(table, one, key), Reference(key, other)]
    if not isinstance(node, Fold):
        return [one for child in children(node) for one in _references(child, local)]
    outside = (node.source, node.start)
    inside = (node.condition, node.step)
    within = local | {node.variable, node.second, node.accumulator}
    return [
        *(one for part in outside for one in _references(part, local)),
        *(one for part in inside for one in _references(part, within)),
        *_references(node.result, local | {node.accumulator}),
    ]


def _count(node: Node) -> int:
    return 1 + sum(map(_count, children(node)))


def _first(node: Node) -> int:
    while isinstance(node, (Select, Call)):
        node = node.operand if isinstance(node, Select) else node.arguments[0]
    return max(node.offset, 0) if isinstance(node, Ident) else 0


_END_IT = "end it with .orValue(...)"
_OPTIONAL = re.compile(r"^_\?\._$|^_\[\?_\]$|opt", re.IGNORECASE)
_DOUBLING = re.compile(r"\bopt(?:Flat)?Map\b")
_ERROR = re.compile(r"^(?:[A-Z_]+: )?ERROR: [^:\n]*:(-?\d+):(-?\d+): ", re.MULTILINE)
_CODE = re.compile(r"^[A-Z_]+: | \[[A-Z_]+\]$")


def _without_code(text: str) -> str:
    """The library's own words, unless they repeat data or say nothing."""
    if "Integer value" in text and "out of range" in text:
        return "it reads a number beyond 64 bits"
    if "construction from null" in text:
        return "it reads text with half of a surrogate pair"
    return shown(_CODE.sub("", text), 200)


def _flaws(source: str, text: str) -> list[Flaw]:
    """Take the library's report apart: it tells all errors in one text, with drawings."""
    found: list[Flaw] = []
    for mark in _ERROR.finditer(text):
        body = text[mark.end() :]
        message = body.partition("\n")[0].partition(" expecting {")[0]
        message = _CODE.sub("", message).replace(" (in container '')", "")
        message = message.replace("'<EOF>'", "end").replace("mismatched input", "unexpected")
        flaw = Flaw(_hint(message), _offset(source, int(mark[1]), int(mark[2])))
        if flaw not in found:
            found.append(flaw)
    if found:
        return found[:3]
    if "recursion" in text:
        return [Flaw("the expression is nested too deeply; make it simpler", 0)]
    return [Flaw(_without_code(text), 0)]


def _hint(message: str) -> str:
    name = re.search(r"undeclared reference to '([^']*)'", message)
    if name is None:
        if "recursion depth" in message:
            return "the expression is nested too deeply; make it simpler"
        return shown(message, 200)
    return (
        f"there is no name or function {shown(name[1])!r}; an expression sees input, "
        "steps.<name>.output, steps.<name>.status, workflow.id|definition|version "
        "and in a fan-out each.item and each.index"
    )


def _offset(source: str, line: int, column: int) -> int:
    if line < 1 or column < 1:
        return 0
    before = source.split("\n")[: line - 1]
    return min(sum(len(one) + 1 for one in before) + column - 1, len(source))
