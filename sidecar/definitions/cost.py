"""An upper bound of what an expression costs, known before it is evaluated.

The CEL library stops a run-away loop (10 000 rounds in all), but not growth: `a + a` inside
`map` inside `map` takes gigabytes in a few rounds. So before each evaluation the tree is
walked once with the true sizes of what it reads, and refused if the bound is too high.

Sizes are about the characters of a value's JSON. Inside a loop the size of the element is not
known, only that all elements together are no larger than the list; bounds are therefore
linear in the sizes of the loops' elements (`Bound`), and a loop sums them up: what is
proportional to the element adds up to the list, what is constant counts once per round.
Where two sizes are multiplied, one of them is taken for the largest that it can be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sidecar.definitions.patterns import MOST_PROGRAM, program_size
from sidecar.definitions.tree import Build, Call, Constant, Fold, Ident, Node, Select, children
from sidecar.definitions.work import CHARACTERS, CONVERT, LOOK, Work

MOST_SIZE = 4 * 1024 * 1024
"""The highest bound of a result's size that is evaluated. The result itself may be 1 MiB."""
MOST_ROUNDS = 10_000
"""After so many rounds of all loops together the CEL library gives up."""

_LEAST = 8
"""What anything weighs at least, so that a size bounds a number of elements."""
_SCALAR = 24
_COPY = 10
"""What copying one element of a list weighs: `map` and `filter` copy all they have so far in
every round, so they build lists of up to some 1 400 elements."""
_CALL = 20
"""What any operator or function takes, whatever it works on."""
_DATES = 4_000
"""What `string`, `timestamp` and `duration` take: writing a moment as text takes some 20 us."""
_COMPILE = 120
"""What compiling one instruction of a regular expression takes."""
_SEARCH = 64
"""How many characters of what is searched for are compared for one unit of work."""
_MEMBER = 3
"""How many elements of a list one member of an object counts for."""

_TO_SCALAR = frozenset(
    (
        *("_-_", "_*_", "_/_", "_%_", "-_", "!_", "_&&_", "_||_"),
        *("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "@in", "hasValue"),
        *("size", "startsWith", "endsWith", "contains", "matches"),
        *("int", "uint", "double", "bool", "timestamp", "duration"),
    )
)
INDEX = ("_[_]", "_[?_]")
"""Taking one element or member of a list or map."""
_WILD = frozenset(("contains", "matches", "size"))
"""What takes products of sizes, or depends on the kind of what it is given."""
_HANDS_ON = frozenset(("_[_]", "_?._", "_[?_]", "value", "orValue", "or", "optional.of", "dyn"))


@dataclass(frozen=True, slots=True)
class Measured:
    """How large a value is; of a list or map also how many elements, and how large they are.

    `longest` is the largest of what a loop takes, of a map its keys; `largest` of what an index
    picks. `elements` are all that it holds, however deep; `text` is the value if it is text.
    """

    size: float
    count: int = 0
    longest: float = 0
    largest: float = 0
    elements: int = 1
    text: str | None = None

    @property
    def converting(self) -> float:
        """The work of handing it over to the CEL library."""
        return self.elements * CONVERT + self.size / CHARACTERS


def measure(value: object, work: Work | None = None) -> Measured:
    """The true size of plain data, whose walk is paid by `work`."""
    scales = _Scales(work or Work())
    if isinstance(value, Mapping):
        scales.enter(value)
        keys = [len(key) + _LEAST for key in value]
        members = list(map(scales.size, value.values()))
        size = _LEAST + sum(keys) + sum(members)
        longest, largest = max(keys, default=0), max(members, default=0)
        return Measured(size, len(value), longest, largest, scales.elements)
    if isinstance(value, list):
        scales.enter(value)
        sizes = list(map(scales.size, value))
        size = _LEAST + sum(sizes) + len(sizes)
        longest = max(sizes, default=0)
        return Measured(size, len(sizes), longest, longest, scales.elements)
    text = value if isinstance(value, str) else None
    return Measured(scales.size(value), text=text)


class _Scales:
    """Measures values, and counts what they hold."""

    def __init__(self, work: Work) -> None:
        self.elements = 1
        self._work = work

    def enter(self, value: Mapping[str, object] | list[object]) -> None:
        """Count a list or object before it is walked."""
        self._work.spend((len(value) + 1) * LOOK)
        self.elements += len(value) * (1 if isinstance(value, list) else _MEMBER)

    def size(self, value: object) -> int:
        """How much `value` weighs."""
        if isinstance(value, str):
            return len(value) + _LEAST
        if isinstance(value, Mapping):
            self.enter(value)
            keys = sum(map(len, value)) + len(value) * _LEAST
            return _LEAST + keys + sum(map(self.size, value.values()))
        if isinstance(value, list):
            self.enter(value)
            return _LEAST + len(value) + sum(map(self.size, value))
        return _LEAST


Measure = Callable[[tuple[str, ...]], Measured]
"""Measures what a chain of names, a variable first, stands for."""


@dataclass(frozen=True, slots=True)
class Bound:
    """`constant` plus, for each open loop, `by[loop]` times the size of its element.

    In a `Plain` bound the sizes of what is read stand for loops, by their numbers.
    """

    constant: float
    by: Mapping[int, float] = field(default_factory=dict)

    def __add__(self, other: Bound) -> Bound:
        by = dict(self.by)
        for loop, factor in other.by.items():
            by[loop] = by.get(loop, 0) + factor
        return Bound(self.constant + other.constant, by)

    def __mul__(self, factor: float) -> Bound:
        return Bound(self.constant * factor, {loop: f * factor for loop, f in self.by.items()})


_NOTHING = Bound(0)
_ONE = Bound(1)
_BINARY = 2


def bound(tree: Node, measured: Measure) -> tuple[float, float]:
    """The most that evaluating `tree` can produce, and the most work it can take."""
    size, work = _Walk(measured).node(tree, {})
    return size.constant, work.constant


@dataclass(frozen=True, slots=True)
class Plain:
    """A bound that is known but for the sizes of what is read, so that no walk is needed."""

    size: Bound
    work: Bound
    sizes: tuple[Callable[[Measure], float], ...]

    def of(self, measured: Measure) -> tuple[float, float]:
        """The same as `bound`."""
        sizes = [size(measured) for size in self.sizes]
        return _filled(self.size, sizes), _filled(self.work, sizes)


def _filled(one: Bound, sizes: Sequence[float]) -> float:
    return one.constant + sum(factor * sizes[number] for number, factor in one.by.items())


def plain(tree: Node) -> Plain | None:
    """The bound of a tree that grows in proportion to what it reads; None if it may not."""
    if _wild(tree):
        return None
    walk = _PlainWalk()
    size, work = walk.node(tree, {})
    return Plain(size, work, tuple(walk.sizes))


def _wild(node: Node) -> bool:
    if isinstance(node, Fold) or (isinstance(node, Call) and node.function in _WILD):
        return True
    return any(map(_wild, children(node)))


class _Walk:
    """One walk over a tree; loops are numbered as they are met."""

    def __init__(self, measured: Measure) -> None:
        self._measured = measured
        self._longest: list[float] = []

    def node(self, node: Node, scope: Mapping[str, Bound]) -> tuple[Bound, Bound]:
        """The size of what `node` produces, and the work it takes."""
        if (chain := _read(node, scope)) is not None:
            return self._sized(chain), _ONE
        match node:
            case Constant():
                return Bound(node.size), _NOTHING
            case Ident():
                return scope[node.name], _NOTHING
            case Select(test=True) if _read(node.operand, scope) is not None:
                return Bound(_SCALAR), _ONE
            case Select():
                size, work = self.node(node.operand, scope)
                return (Bound(_SCALAR) if node.test else size), work + _ONE
            case Build():
                size, work = self._all(node.elements, scope)
                return size + Bound(2 + len(node.elements)), work + _ONE
            case Call():
                return self._call(node, scope)
            case Fold():
                return self._fold(node, scope)
        raise TypeError(f"there is no node {type(node).__name__}")

    def _sized(self, chain: tuple[str, ...]) -> Bound:
        return Bound(self._measured(chain).size)

    def _picked(self, chain: tuple[str, ...]) -> Bound:
        """What an index can pick: an element, or of text and the like nothing."""
        return Bound(self._measured(chain).largest)

    def _all(self, nodes: tuple[Node, ...], scope: Mapping[str, Bound]) -> tuple[Bound, Bound]:
        sizes, works = _NOTHING, _NOTHING
        for node in nodes:
            size, work = self.node(node, scope)
            sizes, works = sizes + size, works + work
        return sizes, works

    def _call(self, node: Call, scope: Mapping[str, Bound]) -> tuple[Bound, Bound]:
        each = [self.node(one, scope) for one in node.arguments]
        if node.function in INDEX and (table := _read(node.arguments[0], scope)) is not None:
            return self._picked(table), each[1][1] + Bound(_CALL)
        sizes = sum((size for size, _ in each), _NOTHING)
        own = _DATES if node.function in ("string", "timestamp", "duration") else _CALL
        works = sum((work for _, work in each), Bound(own))
        if node.function == "_?_:_" or node.function in _HANDS_ON:
            return sizes, works
        if not (node.function == "size" and self._counted(node.arguments[0], scope)):
            works = works + sizes
        if node.function == "contains" and len(each) == _BINARY:
            works = works + each[0][0] * (1 + self._most(each[1][0]) / _SEARCH)
        elif node.function == "matches" and len(each) == _BINARY:
            program = self._program(node.arguments[1], scope)
            works = works + each[0][0] * program + Bound(program * _COMPILE)
        if node.function in _TO_SCALAR:
            return Bound(_SCALAR), works
        return sizes + Bound(_SCALAR), works

    def _counted(self, node: Node, scope: Mapping[str, Bound]) -> bool:
        """Whether `node` reads data that knows its size: a list or map, unlike text."""
        chain = _read(node, scope)
        return chain is not None and self._measured(chain).text is None

    def _program(self, node: Node, scope: Mapping[str, Bound]) -> int:
        """The most instructions of a pattern; one that is computed can be of any kind."""
        if isinstance(node, Constant):
            return program_size(node.text or "")
        chain = _read(node, scope)
        return MOST_PROGRAM if chain is None else program_size(self._measured(chain).text or "")

    def _fold(self, node: Fold, scope: Mapping[str, Bound]) -> tuple[Bound, Bound]:
        start, start_work = self.node(node.start, scope)
        if isinstance(node.source, Build) and not node.source.elements:
            # No loop at all: this is how a value gets a name.
            size, work = self.node(node.result, {**scope, node.accumulator: start})
            return size, work + start_work
        source, source_work = self.node(node.source, scope)
        loop = len(self._longest)
        self._longest.append(self._longest_of(node.source, source, scope))
        # Within a round the accumulator weighs nothing: macros only ever append to it.
        element = Bound(0, {loop: 1})
        inside = {**scope, node.accumulator: _NOTHING, node.variable: element}
        if node.second:
            inside[node.second] = element
        step, step_work = self.node(node.step, inside)
        _, condition_work = self.node(node.condition, inside)
        rounds = self._rounds(node.source, source, scope)
        grown = start + self._sum(step, loop, source, rounds)
        work = self._sum(step_work + condition_work + _ONE, loop, source, rounds)
        if isinstance(node.start, Build):
            work = work + rounds * (self._most(rounds) * _COPY / 2)
        size, result_work = self.node(node.result, {**scope, node.accumulator: grown})
        return size, start_work + source_work + work + result_work

    def _longest_of(self, node: Node, size: Bound, scope: Mapping[str, Bound]) -> float:
        if (chain := _read(node, scope)) is not None:
            return self._measured(chain).longest
        return self._most(size)

    def _rounds(self, node: Node, size: Bound, scope: Mapping[str, Bound]) -> Bound:
        if (chain := _read(node, scope)) is not None:
            return Bound(min(self._measured(chain).count, MOST_ROUNDS))
        rounds = size * (1 / _LEAST) + _ONE
        return rounds if rounds.by else Bound(min(rounds.constant, MOST_ROUNDS))

    def _sum(self, each: Bound, loop: int, source: Bound, rounds: Bound) -> Bound:
        total = source * each.by.get(loop, 0) + rounds * each.constant
        outer = {other: factor for other, factor in each.by.items() if other != loop}
        return total + Bound(0, outer) * self._most(rounds)

    def _most(self, one: Bound) -> float:
        return one.constant + sum(self._longest[loop] * factor for loop, factor in one.by.items())


class _PlainWalk(_Walk):
    """Leaves open how large things are."""

    def __init__(self) -> None:
        super().__init__(lambda _: Measured(0))
        self.sizes: list[Callable[[Measure], float]] = []

    def _open(self, size: Callable[[Measure], float]) -> Bound:
        self.sizes.append(size)
        return Bound(0, {len(self.sizes) - 1: 1})

    def _sized(self, chain: tuple[str, ...]) -> Bound:
        return self._open(lambda measured: measured(chain).size)

    def _picked(self, chain: tuple[str, ...]) -> Bound:
        return self._open(lambda measured: measured(chain).largest)


def chain_of(node: Node, *, optional: bool = False) -> tuple[str, ...] | None:
    """The names of `a.b.c`, or None if `node` is anything else.

    With `optional` also those of `a.?b.c`, which reads the same and makes an optional of it.
    """
    names: list[str] = []
    while not isinstance(node, Ident):
        match node:
            case Select(test=False):
                names.append(node.field)
                node = node.operand
            case Call(_, "_?._", (operand, Constant(_, _, str() as name))) if optional:
                names.append(name)
                node = operand
            case _:
                return None
    return (node.name, *reversed(names))


def _read(node: Node, scope: Mapping[str, Bound]) -> tuple[str, ...] | None:
    """The chain of data that `node` reads, if it does nothing else."""
    chain = chain_of(node, optional=True)
    return None if chain is None or chain[0] in scope else chain
