"""The recipes of docs/barriers.md keep the contract on real servers, two callers at once included.

Each part of the SQL that a race depends on is taken away once, to show that the race is then lost:
a test of a race that cannot fail would prove nothing.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress

import psycopg
import pymysql
import pytest

from tests.e2e.conftest import MARIADB
from tests.e2e.recipes import Elsewhere, OnPostgres, Recipe, Reply, forgetting
from tests.servers.facts import until

ROUNDS = 40
CALLERS = 4
MEETING_S = 0.5
"""How long one caller in a transaction waits for the other, where the lock lets only one in."""

DONE: Reply = (201, {"receipt": "r-w/charge"})


async def at_once(*calls: Callable[[], Reply]) -> list[Reply]:
    """All calls in threads, let go at the same moment."""
    gate = threading.Barrier(len(calls))

    def one(call: Callable[[], Reply]) -> Reply:
        gate.wait(timeout=30)
        return call()

    return await asyncio.gather(*(asyncio.to_thread(one, call) for call in calls))


def meeting(recipe: Recipe, callers: int = 2) -> None:
    """Let callers wait for each other inside of their transactions, if the lock lets them in."""
    inside = threading.Barrier(callers)

    def meet() -> None:
        with suppress(threading.BrokenBarrierError):
            inside.wait(timeout=MEETING_S)

    recipe.meet = meet


def test_an_execute_that_comes_again_is_answered_again(recipe: Recipe) -> None:
    assert recipe.execute("w/charge") == DONE
    assert recipe.execute("w/charge") == DONE
    assert recipe.execute("v/charge")[0] == 201
    assert recipe.effects() == 2


def test_a_compensation_undoes_once(recipe: Recipe) -> None:
    recipe.execute("w/charge")
    assert recipe.compensate("w/charge") == (200, None)
    assert recipe.effects() == 0
    assert recipe.compensate("w/charge") == (200, None)
    assert recipe.effects() == 0
    assert recipe.execute("w/charge") == (410, None)
    assert recipe.effects() == 0


def test_an_execute_that_was_overtaken_is_refused(recipe: Recipe) -> None:
    assert recipe.compensate("w/charge") == (200, None)
    assert recipe.state("w/charge") == "compensated"
    assert recipe.execute("w/charge") == (410, None)
    assert recipe.effects() == 0


def test_a_no_stays_a_no(recipe: Recipe) -> None:
    recipe.stock = 0
    no = (422, {"detail": "no stock"})
    assert recipe.execute("w/charge") == no
    recipe.stock = 1
    assert recipe.execute("w/charge") == no
    assert recipe.compensate("w/charge") == (200, None)
    assert recipe.effects() == 0
    assert recipe.execute("w/charge") == (410, None)


def test_work_that_fails_leaves_nothing(recipe: Recipe) -> None:
    with suppress(ZeroDivisionError), recipe.call("w/charge") as call:
        call.act(1)
        call.settle("done", {"receipt": "r-w/charge"})
        raise ZeroDivisionError
    assert recipe.effects() == 0
    assert recipe.state("w/charge") is None
    assert recipe.execute("w/charge") == DONE
    assert recipe.effects() == 1


async def test_the_same_execute_at_once_has_one_effect(recipe: Recipe) -> None:
    for number in range(ROUNDS):
        step = f"{number}/charge"
        replies = await at_once(*[lambda step=step: recipe.execute(step)] * CALLERS)
        assert replies == [(201, {"receipt": f"r-{step}"})] * CALLERS
    assert recipe.effects() == ROUNDS


async def test_whatever_meets_nothing_is_done_and_not_undone(recipe: Recipe) -> None:
    met = set()
    for number in range(ROUNDS):
        step = f"{number}/charge"
        execute = lambda step=step: recipe.execute(step)  # noqa: E731
        undo = lambda step=step: recipe.compensate(step)  # noqa: E731
        # Who is let go first has a little lead: each action has it in every second round.
        calls = (execute, undo, undo, execute) if number % 2 else (undo, execute, execute, undo)
        statuses = sorted([status for status, _ in await at_once(*calls)])
        assert statuses[:2] == [200, 200]
        assert set(statuses[2:]) <= {201, 410}
        assert recipe.effects() == 0, step
        assert recipe.execute(step) == (410, None)
        met |= set(statuses[2:])
    assert met == {201, 410}, "no race was run: one of the two always came first"


@pytest.mark.parametrize("action", ["execute", "compensate"])
async def test_who_comes_second_waits_and_finds_what_was_done(recipe: Recipe, action: str) -> None:
    with recipe.call("w/charge") as call:
        second = asyncio.create_task(asyncio.to_thread(getattr(recipe, action), "w/charge"))
        await until(lambda: recipe.waiting() == 1)
        call.act(1)
        call.settle("done", {"receipt": "r-w/charge"})
    assert await second == (DONE if action == "execute" else (200, None))
    assert recipe.effects() == (1 if action == "execute" else 0)


async def test_who_waits_for_one_that_rolls_back_acts_itself(recipe: Recipe) -> None:
    with suppress(ZeroDivisionError), recipe.call("w/charge") as call:
        call.act(1)
        second = asyncio.create_task(asyncio.to_thread(recipe.execute, "w/charge"))
        await until(lambda: recipe.waiting() == 1)
        raise ZeroDivisionError
    assert await second == DONE
    assert recipe.effects() == 1


async def test_an_execute_that_waits_for_its_compensation_is_refused(recipe: Recipe) -> None:
    with recipe.call("w/charge") as call:
        late = asyncio.create_task(asyncio.to_thread(recipe.execute, "w/charge"))
        await until(lambda: recipe.waiting() == 1)
        call.settle("compensated")
    assert await late == (410, None)
    assert recipe.effects() == 0


@pytest.mark.parametrize("action", ["execute", "compensate"])
async def test_who_waits_too_long_is_told_that_it_is_busy(recipe: Recipe, action: str) -> None:
    begin = [one.replace("'5s'", "'100ms'").replace("= 5", "= 1") for one in recipe.blocks["begin"]]
    assert begin != recipe.blocks["begin"]
    recipe.blocks["begin"] = begin
    with recipe.call("w/charge") as call:
        assert await asyncio.to_thread(getattr(recipe, action), "w/charge") == (409, None)
        call.act(1)
        call.settle("done", {"receipt": "r-w/charge"})
    assert recipe.execute("w/charge") == DONE
    assert recipe.effects() == 1


@pytest.mark.parametrize("other", ["a/charge", "w/charge[1]", "z/charge"])
async def test_other_steps_do_not_wait(recipe: Recipe, other: str) -> None:
    """Neighbours in the index neither, whether they are there yet or not."""
    with recipe.call("w/charge") as call:
        assert (await asyncio.to_thread(recipe.execute, other))[0] == 201
        assert (await asyncio.to_thread(recipe.compensate, other))[0] == 200
        call.settle("done")
    with recipe.call("w/charge"):
        assert (await asyncio.to_thread(recipe.compensate, f"{other}/more"))[0] == 200


@pytest.mark.parametrize("then", ["execute", "compensate"])
def test_an_effect_elsewhere_outlives_a_crash_and_is_known(recipe: Recipe, then: str) -> None:
    elsewhere = Elsewhere()

    def crash() -> None:
        if elsewhere.charged:
            raise ZeroDivisionError

    recipe.meet = crash
    with suppress(ZeroDivisionError):
        recipe.execute_elsewhere("w/charge", elsewhere)
    recipe.meet = lambda: None
    assert recipe.state("w/charge") == "started"
    assert list(elsewhere.charged) == ["w/charge"]
    if then == "execute":
        reply = recipe.execute_elsewhere("w/charge", elsewhere)
        assert reply == (201, {"charge": "c-w/charge"})
        assert list(elsewhere.charged) == ["w/charge"]
    assert recipe.compensate_elsewhere("w/charge", elsewhere) == (200, None)
    assert elsewhere.charged == {}
    assert recipe.execute_elsewhere("w/charge", elsewhere) == (410, None)
    assert elsewhere.charged == {}


def test_an_effect_elsewhere_that_was_overtaken_is_never_asked_for(recipe: Recipe) -> None:
    elsewhere = Elsewhere()
    assert recipe.compensate_elsewhere("w/charge", elsewhere) == (200, None)
    assert recipe.execute_elsewhere("w/charge", elsewhere) == (410, None)
    assert elsewhere.charged == {}


async def test_what_was_undone_is_not_undone_by_a_second_at_the_same_time(recipe: Recipe) -> None:
    recipe.execute("w/charge")
    meeting(recipe)
    undo = lambda: recipe.compensate("w/charge")  # noqa: E731
    assert await at_once(undo, undo) == [(200, None)] * 2
    assert recipe.effects() == 0


async def test_without_the_insert_two_executes_would_both_act(recipe: Recipe) -> None:
    recipe.blocks["lock"] = recipe.blocks["lock"][1:]
    meeting(recipe)
    execute = lambda: recipe.execute("w/charge")  # noqa: E731
    await at_once(execute, execute)
    assert recipe.effects() == 2


@pytest.mark.postgres
async def test_without_for_update_two_compensations_would_both_undo(database: str) -> None:
    recipe = OnPostgres(database)
    recipe.make()
    recipe.execute("w/charge")
    recipe.blocks["lock"] = [one.replace("FOR UPDATE", "") for one in recipe.blocks["lock"]]
    meeting(recipe)
    undo = lambda: recipe.compensate("w/charge")  # noqa: E731
    await at_once(undo, undo)
    assert recipe.effects() == -1


@pytest.mark.postgres
async def test_a_higher_isolation_level_is_told_to_come_again(database: str) -> None:
    recipe = OnPostgres(database)
    recipe.make()
    begin = [one.replace("READ COMMITTED", "REPEATABLE READ") for one in recipe.blocks["begin"]]
    assert begin != recipe.blocks["begin"]
    recipe.blocks["begin"] = begin
    with recipe.call("w/charge") as call:
        second = asyncio.create_task(asyncio.to_thread(recipe.execute, "w/charge"))
        await until(lambda: recipe.waiting() == 1)
        call.act(1)
        call.settle("done", {"receipt": "r-w/charge"})
    assert await second == (409, None)
    assert recipe.execute("w/charge") == DONE


@pytest.mark.mariadb
@pytest.mark.parametrize("recipe", [MARIADB], indirect=True)
async def test_insert_ignore_would_be_a_deadlock(recipe: Recipe) -> None:
    insert, select = recipe.blocks["lock"]
    ignoring = insert.replace("INSERT", "INSERT IGNORE").partition(" ON DUPLICATE")[0]
    recipe.blocks["lock"] = [ignoring, select]
    with recipe.call("w/charge") as call:
        others = [
            asyncio.create_task(asyncio.to_thread(recipe.execute, "w/charge")) for _ in range(2)
        ]
        await until(lambda: recipe.waiting() == 2)
        call.act(1)
        call.settle("done", {"receipt": "r-w/charge"})
    assert sorted([(await one)[0] for one in others]) == [201, 409]


def test_keys_that_differ_by_the_case_of_a_letter_are_two(recipe: Recipe) -> None:
    recipe.execute("a/charge")
    assert recipe.execute("A/charge")[0] == 201
    assert recipe.effects() == 2


def test_a_key_as_long_as_they_come_fits(recipe: Recipe) -> None:
    step = f"{uuid.uuid4()}/{'s' * 63}[1000000]"
    assert recipe.execute(step)[0] == 201
    assert recipe.state(step) == "done"


@pytest.mark.mariadb
@pytest.mark.parametrize("recipe", [MARIADB], indirect=True)
def test_a_key_that_is_too_long_is_an_error(recipe: Recipe) -> None:
    with pytest.raises(pymysql.DataError):
        recipe.execute("w/" + "x" * 300)


def test_a_state_that_is_none_is_refused(recipe: Recipe) -> None:
    with pytest.raises((psycopg.DatabaseError, pymysql.OperationalError)):  # noqa: SIM117
        with recipe.call("w/charge") as call:
            call.settle("finished")


def test_old_rows_are_forgotten(recipe: Recipe) -> None:
    recipe.execute("old/charge")
    recipe.execute("w/charge")
    recipe.one(recipe.AGE, "old/charge")
    recipe.one(forgetting(recipe.FORGET))
    assert recipe.state("old/charge") is None
    assert recipe.state("w/charge") == "done"
