"""Turns: who waits for a place among those with the same key, and who has one.

Workflows take turns, and so do steps: one mechanism for both. Who waits and who has a place is
read off the state and nothing else, so a place cannot be forgotten: a workflow has it from its
admission to its end, a step from before its first claim to the end of its way forward. Undoing
needs none.

A store keeps a row for each that waits or has a place, and writes it with the transition that
changes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from msgspec import Struct

from sidecar.saga.definition import Definition
from sidecar.saga.states import OPEN, WORKFLOW_ENDS, StepStatus, WorkflowStatus
from sidecar.saga.workflow import Step, StepKey, Workflow, WorkflowId

MAX_TURN_KEY = 1_024
"""Bytes of a key by which somebody takes turns: more may not fit into an index."""


class TurnKey(NamedTuple):
    """Those who share places: workflows of one definition with one key, or a step of theirs.

    All versions of the definition share them.
    """

    namespace: str
    definition: str
    key: str
    step: str = ""


class InLine(NamedTuple):
    """Who takes a turn: a workflow or, with `step`, a step of it or an item of that."""

    workflow: WorkflowId
    step: StepKey | None = None


class Standing(StrEnum):
    """How somebody stands to a place."""

    NONE = "none"
    WAITS = "waits"
    HAS_PLACE = "has_place"


class Stand(Struct, frozen=True):
    """Where somebody stands after a transition, and `since` when.

    `limit` is how many may have a place by the definition version that `who` runs; of those that
    wait one of a higher `priority` comes first. `freed` says that a place was given back.
    """

    who: InLine
    turn: TurnKey
    limit: int
    priority: int
    since: datetime
    standing: Standing
    freed: bool = False


def waits_for_turn(step: Step) -> bool:
    """Whether a step cannot be claimed before there is a place for it."""
    return step.status is StepStatus.WAITING and step.turn is not None and not step.awaiting


def waiting_in_turn(key: str, limit: int) -> str:
    """Say of somebody that he waits for a place, of whose limit, and who could make way."""
    return (
        f"waiting for its turn, {limit} at a time with the key {key}; a place is given back by the"
        " end of one that has it: `waiting_on` names them, to be resolved, cancelled or terminated"
    )


def standing_of_step(step: Step) -> Standing:
    """How a step stands to a place of its key."""
    if step.turn is None or step.status not in OPEN or step.status is StepStatus.COMPENSATING:
        return Standing.NONE
    return Standing.WAITS if waits_for_turn(step) else Standing.HAS_PLACE


def standing_of_workflow(definition: Definition, workflow: Workflow) -> Standing:
    """How a workflow stands to a place, if it took the one it waited for."""
    turns = definition.concurrency
    if workflow.turn is None or workflow.status in WORKFLOW_ENDS:
        return Standing.NONE
    if workflow.status is WorkflowStatus.QUEUED:
        return Standing.WAITS
    released = turns is not None and turns.release_on_error
    if workflow.status is WorkflowStatus.ERROR and released:
        return Standing.NONE
    return Standing.HAS_PLACE


def turn_of(workflow: Workflow, step: Step | None = None) -> TurnKey | None:
    """Whom a workflow, or a step of it, shares places with."""
    ref = workflow.definition
    if step is not None:
        if step.turn is None:
            return None
        return TurnKey(ref.namespace, ref.name, step.turn, step.key.step)
    return TurnKey(ref.namespace, ref.name, workflow.turn.key) if workflow.turn else None


def waited_for(workflow: Workflow) -> set[TurnKey]:
    """Return the places that a workflow and those of its steps wait for that were read."""
    if workflow.status is WorkflowStatus.QUEUED:
        mine = turn_of(workflow)
        return {mine} if mine else set()
    found = (turn_of(workflow, one) for one in workflow.steps.values() if waits_for_turn(one))
    return {turn for turn in found if turn is not None}


def limit_of(definition: Definition, workflow: Workflow, turn: TurnKey) -> int:
    """How many of a key may have a place, by the version that a workflow runs; 0 if it says none.

    Steps are asked for by their definition alone, so nothing of them need be read.
    """
    if not turn.step:
        return workflow.turn.limit if workflow.turn else 0
    turns = definition.by_name[turn.step].concurrency
    return turns.limit if turns else 0


def stands(
    definition: Definition,
    before: Workflow,
    after: Workflow,
    changed: Iterable[Step],
    now: datetime,
) -> tuple[Stand, ...]:
    """Return who stands elsewhere after a transition than before it; `changed` are its steps."""
    found = []
    turn = turn_of(after)
    if turn is not None:
        was = standing_of_workflow(definition, before)
        is_ = standing_of_workflow(definition, after)
        found.append((InLine(after.id), turn, was, is_))
    if definition.steps_take_turns:
        for step in changed:
            mine = turn_of(after, step)
            if mine is not None:
                earlier = before.steps.get(step.key)
                was = standing_of_step(earlier) if earlier else Standing.NONE
                who = InLine(after.id, step.key)
                found.append((who, mine, was, standing_of_step(step)))
    return tuple(
        Stand(
            who,
            key,
            limit_of(definition, after, key),
            _priority(definition, who),
            now,
            is_,
            freed=was is Standing.HAS_PLACE,
        )
        for who, key, was, is_ in found
        if is_ is not was and not _without_a_turn(was, is_)
    )


def _priority(definition: Definition, who: InLine) -> int:
    """Of those who wait for a place, a step goes by its own priority."""
    return definition.by_name[who.step.step].priority if who.step else definition.priority


def _without_a_turn(was: Standing, is_: Standing) -> bool:
    """Whether somebody goes on without a place: one in `error` had given it back, and is mended.

    So does a child that had completed and is turned back. A place is only for those who waited.
    """
    return was is Standing.NONE and is_ is Standing.HAS_PLACE
