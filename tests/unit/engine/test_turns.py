"""Whoever waits for a turn is admitted in order, and nobody stands before others for good."""

from __future__ import annotations

from typing import Any, cast

from sidecar.engine.group_commit import Committer
from sidecar.engine.turns import Turns
from sidecar.errors import StoreDataError, StoreUnavailable
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
        self.looked: list[TurnKey] = []
        self.line = [InLine(FIRST), InLine(SECOND)]

    async def next_turns(self, turn: TurnKey) -> list[InLine]:
        self.looked.append(turn)
        return self.line if turn == KEY else []

    async def submit(self, member: Transition, *, within: float) -> Any:
        assert within > 0
        self.asked.append(member)
        if isinstance(member.event, Admitted) and member.workflow in self.refused:
            raise self.refused[member.workflow]

    def turns(self) -> Turns:
        return Turns(cast("Store", self), cast("Committer", self))


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
    await until(lambda: not turns._looking)
    assert [turn.key for turn in waiting.looked] == ["0", "2"]


async def test_one_that_can_never_begin_is_turned_back_and_the_next_begins() -> None:
    waiting = Waiting(first=StoreDataError("it would start too many children"))
    waiting.turns().look(KEY)
    await until(lambda: len(waiting.asked) == 3)
    assert told(waiting) == [(FIRST, Admitted), (FIRST, CancelRequested), (SECOND, Admitted)]
    assert "too many children" in cast("CancelRequested", waiting.asked[1].event).reason


async def test_a_store_that_is_away_leaves_the_rest_to_the_leader() -> None:
    waiting = Waiting(first=StoreUnavailable("away"))
    turns = waiting.turns()
    turns.look(KEY)
    await until(lambda: not turns._looking)
    assert told(waiting) == [(FIRST, Admitted)]


async def test_what_happens_during_a_look_is_looked_at_after_it() -> None:
    waiting = Waiting()
    turns = waiting.turns()
    for _ in range(3):
        turns.look(KEY)
    await until(lambda: len(waiting.asked) == 4)
    await until(lambda: not turns._looking)
    assert len(waiting.asked) == 4
