"""Whoever waits for a turn is admitted in order, and nobody stands before others for good."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from sidecar.adapters.clock import ManualClock
from sidecar.engine.group_commit import Committer
from sidecar.engine.turns import LOOK_MOST, PUT_OFF_S, Turns
from sidecar.errors import StoreConflict, StoreDataError, StoreUnavailable
from sidecar.ports.store import Store, Transition
from sidecar.saga.changes import Changes
from sidecar.saga.events import Admitted, CancelRequested
from sidecar.saga.states import WorkflowStatus
from sidecar.saga.turns import InLine, Stand, Standing, TurnKey
from sidecar.saga.workflow import DefinitionRef, StepKey, Workflow, WorkflowId
from tests.unit.engine.faces import until
from tests.unit.saga.worlds import EPOCH

KEY = TurnKey("default", "payout", '"acme"')
FIRST, SECOND = WorkflowId("first"), WorkflowId("second")


class Waiting:
    """A store in which two wait, and a committer that refuses what it is told to."""

    def __init__(self, **refused: Exception) -> None:
        self.refused = refused
        self.asked: list[Transition] = []
        self.looked: list[list[TurnKey]] = []
        self.line = [InLine(FIRST), InLine(SECOND)]
        self.places = 2
        self.clock = ManualClock()
        self.held: dict[WorkflowId, asyncio.Event] = {}
        self.away = 0

    async def next_turns(
        self, turns: Sequence[TurnKey], limit: int, *, without: Collection[WorkflowId]
    ) -> list[tuple[TurnKey, InLine]]:
        self.looked.append(list(turns))
        if self.away:
            self.away -= 1
            raise StoreUnavailable("away")
        line = [one for one in self.line if one.workflow not in without]
        found = line[: self.places] if KEY in turns else []
        return [(KEY, one) for one in found][:limit]

    async def submit(self, member: Transition, *, within: float) -> Any:
        assert within > 0
        self.asked.append(member)
        if isinstance(member.event, Admitted):
            if member.workflow in self.held:
                await self.held[member.workflow].wait()
            if member.workflow in self.refused:
                raise self.refused[member.workflow]

    def turns(self) -> Turns:
        return Turns(cast("Store", self), cast("Committer", self), self.clock)


def workflow_of(known: WorkflowId) -> Workflow:
    ref = DefinitionRef("default", "payout", 1)
    return Workflow(known, ref, WorkflowStatus.IN_PROGRESS, EPOCH)


def told(waiting: Waiting) -> list[tuple[str, type]]:
    """Who was asked to do what."""
    return [(one.workflow, type(one.event)) for one in waiting.asked]


async def test_those_who_wait_are_admitted_in_their_order() -> None:
    waiting = Waiting()
    waiting.turns().look(KEY)
    await until(lambda: len(waiting.asked) == 2)
    assert told(waiting) == [(FIRST, Admitted), (SECOND, Admitted)]
    assert all(one.turn == KEY for one in waiting.asked)


async def test_a_step_is_admitted_by_its_name() -> None:
    waiting = Waiting()
    waiting.line = [InLine(FIRST, StepKey("pay", 3))]
    waiting.turns().look(KEY)
    await until(lambda: len(waiting.asked) == 1)
    assert waiting.asked == [Transition(FIRST, Admitted(StepKey("pay", 3)), turn=KEY)]


async def test_a_commit_makes_look_at_just_the_keys_that_it_moved() -> None:
    """Where somebody waits from now on, and where a place was given back."""
    waiting = Waiting()
    turns = waiting.turns()
    for number, (standing, freed) in enumerate(
        [(Standing.WAITS, False), (Standing.HAS_PLACE, False), (Standing.NONE, True)]
    ):
        who, key = InLine(FIRST, StepKey("pay", number)), KEY._replace(key=str(number))
        stand = Stand(who, key, 1, 0, EPOCH, standing, freed=freed)
        turns.follow([Changes(workflow_of(FIRST), turns=(stand,))])
    await until(lambda: turns.at_rest)
    assert [[turn.key for turn in page] for page in waiting.looked] == [["0", "2"]]


async def test_many_keys_are_looked_at_by_few_questions_one_after_the_other() -> None:
    waiting = Waiting()
    turns = waiting.turns()
    for number in range(2 * LOOK_MOST + 1):
        turns.look(KEY._replace(key=str(number)))
    await until(lambda: turns.at_rest)
    assert [len(page) for page in waiting.looked] == [LOOK_MOST, LOOK_MOST, 1]


async def test_all_of_one_look_are_submitted_before_any_is_answered() -> None:
    """So they share a transaction."""
    waiting = Waiting()
    waiting.held = {FIRST: asyncio.Event()}
    turns = waiting.turns()
    turns.look(KEY)
    await until(lambda: len(waiting.asked) == 2)
    assert told(waiting) == [(FIRST, Admitted), (SECOND, Admitted)]
    waiting.held[FIRST].set()
    await until(lambda: turns.at_rest)


async def test_what_found_no_room_in_one_answer_is_looked_at_again() -> None:
    waiting = Waiting()
    waiting.line = [InLine(WorkflowId(str(number))) for number in range(LOOK_MOST)]
    waiting.places = LOOK_MOST
    turns = waiting.turns()
    other = KEY._replace(key="other")
    turns.look(KEY)
    turns.look(other)
    await until(lambda: len(waiting.looked) == 2)
    assert waiting.looked[1] == [other]
    await until(lambda: len(waiting.looked) == 3)
    assert waiting.looked[2] == [KEY]
    await turns.stop()


async def test_one_that_stands_still_holds_up_no_other_key() -> None:
    waiting = Waiting()
    waiting.held = {FIRST: asyncio.Event()}
    turns = waiting.turns()
    turns.look(KEY)
    await until(lambda: waiting.asked)
    other = KEY._replace(key="other")
    turns.look(KEY)
    turns.look(other)
    await until(lambda: len(waiting.looked) == 2)
    assert waiting.looked[1] == [other]
    waiting.held[FIRST].set()
    await until(lambda: len(waiting.looked) == 3)
    assert waiting.looked[2] == [KEY]
    await until(lambda: turns.at_rest)


async def test_one_that_can_never_begin_is_turned_back_and_the_next_begins() -> None:
    waiting = Waiting(first=StoreDataError("it would start too many children"))
    waiting.places = 1
    turns = waiting.turns()
    turns.look(KEY)
    await until(lambda: waiting.asked[1:])
    waiting.line.pop(0)
    await until(lambda: turns.at_rest)
    assert told(waiting) == [(FIRST, Admitted), (FIRST, CancelRequested), (SECOND, Admitted)]
    assert "too many children" in cast("CancelRequested", waiting.asked[1].event).reason


async def test_one_that_cannot_be_admitted_is_put_off_and_the_next_has_his_place() -> None:
    waiting = Waiting(first=StoreConflict("its row is locked"))
    waiting.places = 1
    turns = waiting.turns()
    turns.look(KEY)
    await until(lambda: turns.at_rest)
    assert told(waiting) == [(FIRST, Admitted), (SECOND, Admitted)]
    waiting.refused.clear()
    waiting.line.pop()
    turns.look(KEY)
    await until(lambda: turns.at_rest)
    assert len(waiting.asked) == 2  # he is put off still
    waiting.clock.advance(PUT_OFF_S)
    turns.look(KEY)
    await until(lambda: turns.at_rest)
    assert told(waiting)[2:] == [(FIRST, Admitted)]


async def test_what_is_put_off_is_told_once_for_a_round_and_without_its_key() -> None:
    waiting = Waiting(first=StoreConflict("locked"), second=StoreConflict("locked"))
    turns = waiting.turns()
    with capture_logs() as lines:
        turns.look(KEY)
        await until(lambda: turns.at_rest)
    assert [(one["event"], one["waiting"]) for one in lines] == [("turns_put_off", 2)]
    assert "acme" not in str(lines)


async def test_a_store_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.engine.turns.ASK_AGAIN_S", 0.0)
    waiting = Waiting()
    waiting.away = 3
    turns = waiting.turns()
    turns.look(KEY)
    await until(lambda: turns.at_rest)
    assert waiting.looked == [[KEY]] * 4
    assert told(waiting) == [(FIRST, Admitted), (SECOND, Admitted)]


async def test_what_happens_during_a_look_is_looked_at_after_it() -> None:
    waiting = Waiting()
    waiting.held = {FIRST: asyncio.Event()}
    turns = waiting.turns()
    turns.look(KEY)
    await until(lambda: waiting.asked)
    for _ in range(3):
        turns.look(KEY)
    waiting.held[FIRST].set()
    await until(lambda: turns.at_rest)
    assert len(waiting.asked) == 4
