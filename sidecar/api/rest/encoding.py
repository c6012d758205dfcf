"""Views as JSON. Bodies go out as the text that the store keeps, without being parsed again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson

from sidecar.engine.queries import Page
from sidecar.engine.views import (
    CompensationView,
    DefinitionView,
    EventView,
    ItemsView,
    StartedView,
    StepView,
    WorkflowSummary,
    WorkflowView,
)
from sidecar.saga.definition import JsonText

Json = dict[str, Any]


def encode(body: Any) -> bytes:
    """Return JSON; parts may be text that is JSON already."""
    return orjson.dumps(body)


def stamp(time: datetime | None) -> str | None:
    """Return a time as RFC 3339 in UTC, always with microseconds."""
    if time is None:
        return None
    return time.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def _raw(text: JsonText | None) -> orjson.Fragment | None:
    """JSON text as a part of a larger document."""
    return None if text is None else orjson.Fragment(text)


def workflow_json(view: WorkflowView) -> Json:
    """Return a workflow as `WorkflowBody`."""
    return {
        "id": view.id,
        "namespace": view.namespace,
        "definition": view.definition,
        "version": view.version,
        "status": view.status,
        "reason": view.reason,
        "paused": view.paused,
        "waiting_on": view.waiting_on,
        "next_attempt_at": stamp(view.next_attempt_at),
        "last_error": _raw(view.last_error),
        "input": _raw(view.input),
        "output": _raw(view.output),
        "error": _raw(view.error),
        "labels": dict(view.labels),
        "created_at": stamp(view.created_at),
        "started_at": stamp(view.started_at),
        "ended_at": stamp(view.ended_at),
        "steps": [_step_json(step) for step in view.steps],
    }


def _step_json(view: StepView) -> Json:
    """A step as `StepBody`."""
    return {
        "name": view.name,
        "index": view.index,
        "service": view.service,
        "status": view.status,
        "attempt": view.attempt,
        "tries": view.tries,
        "input": _raw(view.input),
        "output": _raw(view.output),
        "error": _raw(view.error),
        "started_at": stamp(view.started_at),
        "ended_at": stamp(view.ended_at),
        "compensation": _compensation_json(view.compensation),
        "items": _items_json(view.items),
    }


def _items_json(view: ItemsView | None) -> Json | None:
    """The numbers of a fan-out as `ItemsBody`."""
    if view is None:
        return None
    return {
        "total": view.total,
        "pending": view.pending,
        "open": view.open,
        "failed": view.failed,
        "undoing": view.undoing,
        "not_undone": view.not_undone,
    }


def items_json(page: Page[StepView]) -> Json:
    """Return a page as `ItemPage`."""
    return {
        "items": [_step_json(one) for one in page.items],
        "next_cursor": page.next_cursor,
    }


def _compensation_json(view: CompensationView | None) -> Json | None:
    """A compensation as `CompensationBody`."""
    if view is None:
        return None
    return {
        "status": view.status,
        "attempt": view.attempt,
        "tries": view.tries,
        "input": _raw(view.input),
        "output": _raw(view.output),
        "error": _raw(view.error),
        "started_at": stamp(view.started_at),
        "ended_at": stamp(view.ended_at),
    }


def started_json(view: StartedView) -> Json:
    """Return what a start answers, as `StartedBody`."""
    body = {"id": view.id, "status": view.status}
    return body if view.deprecated is None else body | {"deprecated": view.deprecated}


def workflows_json(page: Page[WorkflowSummary]) -> Json:
    """Return a page as `WorkflowPage`."""
    return {
        "workflows": [
            {
                "id": one.id,
                "namespace": one.namespace,
                "definition": one.definition,
                "version": one.version,
                "status": one.status,
                "reason": one.reason,
                "paused": one.paused,
                "labels": dict(one.labels),
                "created_at": stamp(one.created_at),
                "ended_at": stamp(one.ended_at),
            }
            for one in page.items
        ],
        "next_cursor": page.next_cursor,
    }


def event_json(event: EventView) -> Json:
    """Return a line of a history as `EventBody`."""
    return {
        "seq": event.seq,
        "time": stamp(event.time),
        "kind": event.kind,
        "step": event.step,
        "index": event.index,
        "action": event.action,
        "from": event.before,
        "to": event.after,
        "attempt": event.attempt,
        "cause": event.cause,
        "actor": event.actor,
        "details": _raw(event.details),
    }


def events_json(page: Page[EventView]) -> Json:
    """Return a page as `EventPage`."""
    return {
        "events": [event_json(one) for one in page.items],
        "next_cursor": page.next_cursor,
    }


def definition_json(view: DefinitionView) -> Json:
    """Return a version as `DefinitionBody`."""
    return {**definition_line(view), "document": _raw(view.document)}


def definitions_json(page: Page[DefinitionView]) -> Json:
    """Return a page as `DefinitionPage`."""
    return {
        "definitions": [definition_line(one) for one in page.items],
        "next_cursor": page.next_cursor,
    }


def definition_line(view: DefinitionView) -> Json:
    """Return a version without its document, as `DefinitionLine`."""
    return {
        "namespace": view.namespace,
        "name": view.name,
        "version": view.version,
        "hash": view.hash,
        "created_at": stamp(view.created_at),
        "state": view.state,
    }
