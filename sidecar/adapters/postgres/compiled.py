"""Definitions that transitions need, compiled, the most recently used ones kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from sidecar.adapters.postgres.sql import Connection, load, send
from sidecar.errors import StoreDataError
from sidecar.saga.definition import Definition, JsonText
from sidecar.saga.workflow import DefinitionRef

SQL = load(__file__)
KEPT = 1_000

Compile = Callable[[JsonText, str, str, int], Definition]


class CompiledDefinitions:
    """A bounded cache; a version never changes, so nothing in it grows old."""

    def __init__(self, compile_document: Compile) -> None:
        self._compile = compile_document
        self._kept: OrderedDict[DefinitionRef, Definition] = OrderedDict()

    def keep(self, definition: Definition) -> None:
        """Keep a definition that somebody else has compiled."""
        ref = DefinitionRef(definition.namespace, definition.name, definition.version)
        self._put(ref, definition)

    def peek(self, ref: DefinitionRef) -> Definition | None:
        """Return a version if it is at hand."""
        return self._kept.get(ref)

    async def get(self, connection: Connection, ref: DefinitionRef) -> Definition:
        """Return a version, read on `connection` if need be. Raises `StoreDataError`."""
        found = self._kept.get(ref)
        if found is None:
            cursor = await send(connection, SQL["document"], **ref._asdict())
            row = await cursor.fetchone()
            if row is None:
                raise StoreDataError(f"there is no definition {ref.name} version {ref.version}")
            found = self._compile(JsonText(row["document"]), *ref)
        self._put(ref, found)
        return found

    def _put(self, ref: DefinitionRef, definition: Definition) -> None:
        self._kept[ref] = definition
        self._kept.move_to_end(ref)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
