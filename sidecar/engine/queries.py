"""What a client can read, by page where there may be much.

A cursor is opaque to clients: it says where the last page ended, and nothing else, so a list
may be read on while it changes; what is there all the time is shown once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from sidecar.engine.compiled import CompiledDefinitions
from sidecar.engine.cursors import bad_cursor as _bad_cursor
from sidecar.engine.cursors import cursor_of as _cursor
from sidecar.engine.cursors import position_of as _position
from sidecar.engine.views import (
    DefinitionView,
    EventView,
    StepView,
    WorkflowSummary,
    WorkflowView,
    definition_view,
    event_view,
    item_view,
    workflow_summary,
    workflow_view,
)
from sidecar.errors import NotFound
from sidecar.ports.clock import Clock
from sidecar.ports.records import Holder, WorkflowFilter
from sidecar.ports.store import Store
from sidecar.saga.definition import Definition
from sidecar.saga.explain import may_be_held
from sidecar.saga.states import WorkflowStatus
from sidecar.saga.turns import TurnKey, waited_for
from sidecar.saga.workflow import NO_INDEX, Workflow, WorkflowId

T = TypeVar("T")

MAX_PAGE = 100
DEFAULT_PAGE = 50

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SEQUENCE = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of a list; `next_cursor` asks for the part after it, None at the end."""

    items: tuple[T, ...]
    next_cursor: str | None = None


class Queries:
    """The queries of one sidecar. All raise `StoreUnavailable`."""

    def __init__(self, store: Store, compiled: CompiledDefinitions, clock: Clock) -> None:
        self._store = store
        self._compiled = compiled
        self._clock = clock

    async def get(self, namespace: str, workflow: str) -> WorkflowView:
        """Return one workflow, whole. Raises `NotFound`."""
        found = await self.require(namespace, workflow_id(workflow))
        definition = await self._definition_of(found)
        now = self._clock.now()
        put_off = any(may_be_held(step, now) for step in found.steps.values())
        promised = await self._store.promised_steps(found.id) if put_off else ()
        return workflow_view(definition, found, now, promised, await self._holders(found))

    async def _holders(self, workflow: Workflow) -> dict[TurnKey, list[str]]:
        """Say who has the places that a workflow waits for, each with what it is at."""
        if workflow.paused:
            return {}
        return {
            turn: [_named(one) for one in await self._store.turn_holders(turn)]
            for turn in waited_for(workflow)
        }

    async def _definition_of(self, workflow: Workflow) -> Definition:
        kept = self._compiled.kept(workflow.definition)
        return await self._compiled.get(workflow.definition) if kept is None else kept

    async def require(self, namespace: str, workflow: WorkflowId) -> Workflow:
        """Return one workflow as the store has it. Raises `NotFound`."""
        found = await self._store.get_workflow(namespace, workflow)
        if found is None:
            raise NotFound(f"There is no workflow {workflow}.", field="id")
        return found

    async def list(
        self,
        namespace: str,
        *,
        status: frozenset[WorkflowStatus] = frozenset(),
        definition: str | None = None,
        labels: Mapping[str, str] | None = None,
        cursor: str | None = None,
        limit: int = DEFAULT_PAGE,
    ) -> Page[WorkflowSummary]:
        """Return workflows, newest first. Raises `InvalidRequest`."""
        after = None if cursor is None else _workflow(_position(cursor, "w"))
        wanted = WorkflowFilter(
            status=status, definition=definition, labels=labels or {}, after=after, limit=limit
        )
        # One more than asked for tells whether there is a next page.
        found = await self._store.list_workflows(namespace, replace(wanted, limit=limit + 1))
        items = tuple(workflow_summary(one) for one in found[:limit])
        return Page(items, _cursor("w", items[-1].id) if len(found) > limit else None)

    async def events(
        self, namespace: str, workflow: str, *, cursor: str | None = None, limit: int = DEFAULT_PAGE
    ) -> Page[EventView]:
        """Return a workflow's history in its order. Raises `NotFound`, `InvalidRequest`."""
        after = 0 if cursor is None else _sequence(_position(cursor, "e"))
        known = workflow_id(workflow)
        await self.require(namespace, known)
        found = await self._store.list_events(known, after, limit + 1)
        items = tuple(event_view(one) for one in found[:limit])
        return Page(items, event_cursor(items[-1].seq) if len(found) > limit else None)

    async def items(
        self,
        namespace: str,
        workflow: str,
        step: str,
        *,
        cursor: str | None = None,
        limit: int = DEFAULT_PAGE,
    ) -> Page[StepView]:
        """Return the items of a fan-out by their index; none before it has begun.

        Raises `NotFound`, also for a step that is no fan-out, and `InvalidRequest`.
        """
        after = -1 if cursor is None else _sequence(_position(cursor, "i"))
        found = await self.require(namespace, workflow_id(workflow))
        definition = await self._definition_of(found)
        written = definition.by_name.get(step)
        if written is None:
            raise NotFound(f"There is no step {step} of workflow {found.id}.", field="step")
        if written.fan_out is None:
            raise NotFound(f"Step {step} is no fan-out, and has no items.", field="step")
        rows = await self._store.list_items(found.id, step, after, limit + 1)
        items = tuple(item_view(written, one) for one in rows[:limit])
        more = len(rows) > limit
        return Page(items, _cursor("i", str(items[-1].index)) if more else None)

    async def definitions(
        self, namespace: str, *, cursor: str | None = None, limit: int = DEFAULT_PAGE
    ) -> Page[DefinitionView]:
        """Return the latest version of each definition, by name. Raises `InvalidRequest`."""
        after = None if cursor is None else _position(cursor, "d")
        found = await self._store.list_definitions(namespace, after, limit + 1)
        items = tuple(definition_view(one, with_document=False) for one in found[:limit])
        return Page(items, _cursor("d", items[-1].name) if len(found) > limit else None)

    async def definition(
        self, namespace: str, name: str, version: int | None = None
    ) -> DefinitionView:
        """Return one version of a definition, or the latest. Raises `NotFound`."""
        stored = await self._store.get_definition(namespace, name, version)
        if stored is None:
            which = "" if version is None else f" version {version} of"
            raise NotFound(f"There is no{which} definition {name}.", field="name")
        return definition_view(stored)


def workflow_id(text: str) -> WorkflowId:
    """Return a workflow's id as the store writes it. Raises `NotFound` for what is none."""
    lower = text.lower()
    if _UUID.fullmatch(lower) is None:
        raise NotFound("There is no such workflow: an id is a UUID.", field="id")
    return WorkflowId(lower)


def _named(one: Holder) -> str:
    workflow, step = one.who
    whole = step is None or step.index == NO_INDEX
    stands = f"{one.status}, paused" if one.paused else one.status
    return f"{workflow} ({stands})" if whole else f"{step} of {workflow} ({stands})"


def event_cursor(seq: int) -> str:
    """Return the cursor that continues a history after event `seq` (0: from the beginning)."""
    return _cursor("e", str(seq))


def _workflow(position: str) -> WorkflowId:
    """The id in a cursor. Raises `InvalidRequest`."""
    if _UUID.fullmatch(position) is None:
        raise _bad_cursor()
    return WorkflowId(position)


def _sequence(position: str) -> int:
    """The number of an event in a cursor. Raises `InvalidRequest`."""
    if _SEQUENCE.fullmatch(position) is None:
        raise _bad_cursor()
    return int(position)
