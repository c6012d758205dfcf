"""Rate limits: turns are given in order, over all handles, and what was promised is kept."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from datetime import timedelta

from sidecar.ports.rates import RateAnswer, RateAsk
from sidecar.ports.store import Store
from sidecar.saga.pacing import NEW_PATIENCE_US, RateLimit
from sidecar.saga.states import Action
from sidecar.saga.workflow import StepKey, WorkflowId
from tests.conformance.store_play import Backend, StoreFixtures, new_id

SECOND = 1_000_000
HOUR = RateLimit(2, timedelta(hours=2))
"""Two at once, then one an hour: what a test does meanwhile takes no time by it."""
MINUTE = RateLimit(2, timedelta(minutes=2))
NONE = NEW_PATIENCE_US // 100
"""How exact answers are: a real clock goes on between two of them."""
CHARGE = StepKey("charge")


def ask(
    workflow: WorkflowId | None = None,
    *,
    path: str = "/charges",
    limit: RateLimit = HOUR,
    key: StepKey = CHARGE,
    action: Action = Action.EXECUTE,
    patience: int = 0,
    tries: int = 0,
) -> RateAsk:
    """One call that wants its turn."""
    return RateAsk(path, limit, workflow or new_id(), key, action, patience, tries)


def about(answers: Sequence[RateAnswer]) -> list[tuple[bool, int]]:
    """Whether each was granted, and its wait in whole minutes."""
    return [(one.granted, round(one.wait / SECOND / 60)) for one in answers]


class RateSuite(StoreFixtures):
    """What `ask_rates` promises."""

    async def test_a_rested_action_may_be_called_as_often_as_the_limit_then_at_its_pace(
        self, store: Store
    ) -> None:
        answers = await store.ask_rates("default", "payments", [ask() for _ in range(5)])
        assert about(answers) == [(True, 0), (True, 0), (False, 60), (False, 120), (False, 180)]

    async def test_turns_are_given_in_order_from_one_question_to_the_next(
        self, store: Store, backend: Backend
    ) -> None:
        other = await backend.open_store()
        waits = []
        for handle in (store, other, store, other):
            waits += about(await handle.ask_rates("default", "payments", [ask()]))
        assert waits == [(True, 0), (True, 0), (False, 60), (False, 120)]

    async def test_however_many_ask_at_once_no_turn_is_given_twice(
        self, store: Store, backend: Backend
    ) -> None:
        handles = [store, await backend.open_store(), await backend.open_store()]
        questions = [
            handle.ask_rates("default", "payments", [ask(), ask()])
            for handle in handles
            for _ in range(5)
        ]
        found = [one for some in await asyncio.gather(*questions) for one in about(some)]
        assert sorted(wait for _, wait in found) == [0, 0, *(60 * n for n in range(1, 29))]
        assert sum(granted for granted, _ in found) == 2

    async def test_paths_services_and_namespaces_have_meters_of_their_own(
        self, store: Store
    ) -> None:
        await store.ask_rates("default", "payments", [ask(), ask()])
        places = [("default", "payments", "/refunds"), ("default", "shipping", "/charges")]
        places.append(("elsewhere", "payments", "/charges"))
        for namespace, service, path in places:
            answers = await store.ask_rates(namespace, service, [ask(path=path)])
            assert about(answers) == [(True, 0)]
        both = [ask(path="/refunds"), ask(), ask(path="/refunds")]
        answers = await store.ask_rates("default", "payments", both)
        assert about(answers) == [(True, 0), (False, 60), (False, 60)]

    async def test_whoever_was_sent_away_comes_back_to_its_own_turn_by_any_handle(
        self, store: Store, backend: Backend
    ) -> None:
        first, second = new_id(), new_id()
        await store.ask_rates("default", "payments", [ask(), ask(), ask(first), ask(second)])
        assert set(await store.promised_steps(first)) == {CHARGE}
        await backend.pass_time(3600)
        other = await backend.open_store()
        again = [ask(), ask(second), ask(first)]
        answers = await other.ask_rates("default", "payments", again)
        assert about(answers) == [(False, 120), (False, 60), (True, 0)]
        assert set(await store.promised_steps(first)) == set()
        assert set(await store.promised_steps(second)) == {CHARGE}

    async def test_whoever_comes_back_early_waits_for_its_own_turn(self, store: Store) -> None:
        """And is told the same again: it does not lose its place by asking."""
        early = new_id()
        await store.ask_rates("default", "payments", [ask(), ask(), ask(early)])
        patient = 2 * 3600 * SECOND
        answers = await store.ask_rates("default", "payments", [ask(early, patience=patient)])
        assert about(answers) == [(True, 60)]

    async def test_a_turn_that_can_be_waited_for_is_granted_and_no_promise_is_kept(
        self, store: Store
    ) -> None:
        quick = RateLimit(1, timedelta(seconds=0.5))
        waiting = [new_id() for _ in range(4)]
        asked = [ask(one, limit=quick, patience=5 * SECOND) for one in waiting]
        answers = await store.ask_rates("default", "payments", asked)
        assert [one.granted for one in answers] == [True, True, True, False]
        waits = [one.wait for one in answers]
        assert [later - earlier for earlier, later in itertools.pairwise(waits)] == (
            [SECOND // 2] * 3
        )
        kept = [set(await store.promised_steps(one)) for one in waiting]
        assert kept == [set(), set(), set(), {CHARGE}]

    async def test_a_new_call_waits_less_long_than_one_that_was_promised(
        self, store: Store, backend: Backend
    ) -> None:
        """Or calls that wait would take the slots of those that need not."""
        slow = RateLimit(1, timedelta(seconds=3))
        first = new_id()
        asked = [ask(limit=slow), ask(first, limit=slow, patience=5 * SECOND)]
        answers = await store.ask_rates("default", "payments", asked)
        assert [one.granted for one in answers] == [True, False]
        again = await store.ask_rates("default", "payments", asked[1:])
        assert again[0].granted
        assert 2 * SECOND < again[0].wait <= 3 * SECOND

    async def test_promises_that_nobody_came_for_do_not_add_up_to_a_burst(
        self, store: Store, backend: Backend
    ) -> None:
        late = [new_id() for _ in range(6)]
        await store.ask_rates("default", "payments", [ask(), ask(), *map(ask, late)])
        await backend.pass_time(6 * 3600)
        answers = await store.ask_rates("default", "payments", [ask(one) for one in late])
        assert about(answers) == [(True, 0), (True, 0), *((False, 60 * n) for n in (1, 2, 3, 4))]

    async def test_the_late_come_back_one_after_the_other_and_not_behind_the_whole_line(
        self, store: Store, backend: Backend
    ) -> None:
        """They keep their place: whoever of them asks together with others goes first."""
        waiting = [new_id() for _ in range(8)]
        await store.ask_rates("default", "payments", [ask(), ask(), *map(ask, waiting)])
        await backend.pass_time(4 * 3600)
        for these, expected in (
            (waiting[:3], [(True, 0), (True, 0), (False, 60)]),
            (waiting[3:4], [(False, 120)]),
        ):
            asked = [ask(one) for one in these]
            assert about(await store.ask_rates("default", "payments", asked)) == expected
        await backend.pass_time(2 * 3600)
        asked = [ask(one) for one in (*waiting[4:], waiting[3], waiting[2])]
        answers = await store.ask_rates("default", "payments", asked)
        assert about(answers)[4:] == [(True, 0), (True, 0)]

    async def test_a_turn_that_was_not_used_is_asked_for_again_from_the_same_place(
        self, store: Store, backend: Backend
    ) -> None:
        """Its sidecar may have gone. A try that was spent has had its place."""
        first, *others = [new_id() for _ in range(6)]
        await store.ask_rates("default", "payments", [ask(), ask(), *map(ask, (first, *others))])
        await backend.pass_time(3600)
        for tries, expected in ((0, (True, 0)), (0, (False, 60)), (1, (False, 360))):
            answers = await store.ask_rates("default", "payments", [ask(first, tries=tries)])
            assert about(answers) == [expected]
            kept = set(await store.promised_steps(first))
            assert kept == (set() if expected[0] else {CHARGE})

    async def test_a_turn_that_was_granted_long_ago_is_forgotten(
        self, store: Store, backend: Backend
    ) -> None:
        first, second = new_id(), new_id()
        await store.ask_rates("default", "payments", [ask(), ask(), ask(first), ask(second)])
        await backend.pass_time(3600)
        assert about(await store.ask_rates("default", "payments", [ask(first)])) == [(True, 0)]
        await backend.pass_time(600)
        await store.ask_rates("default", "payments", [ask(path="/refunds")])
        assert about(await store.ask_rates("default", "payments", [ask(first)])) == [(False, 110)]

    async def test_each_action_and_item_of_a_step_is_promised_its_own_turn(
        self, store: Store
    ) -> None:
        workflow = new_id()
        asked = [ask(), ask()]
        asked += [ask(workflow, key=StepKey("charge", index)) for index in (0, 1)]
        asked.append(ask(workflow, action=Action.COMPENSATE))
        answers = await store.ask_rates("default", "payments", asked)
        assert about(answers)[2:] == [(False, 60), (False, 120), (False, 180)]
        promised = {StepKey("charge", 0), StepKey("charge", 1), CHARGE}
        assert set(await store.promised_steps(workflow)) == promised
        assert set(await store.promised_steps(new_id())) == set()

    async def test_where_calls_may_come_faster_from_now_on_nobody_keeps_a_turn_far_off(
        self, store: Store
    ) -> None:
        """What was called counts on, as so many calls of the new limit."""
        waits = new_id()
        await store.ask_rates("default", "payments", [ask(), ask(), ask(), ask(waits)])
        new = [ask(limit=MINUTE), ask(limit=MINUTE)]
        answers = await store.ask_rates("default", "payments", new)
        assert about(answers) == [(False, 1), (False, 2)]
        again = await store.ask_rates("default", "payments", [ask(waits, limit=MINUTE)])
        assert about(again) == [(False, 1)]

    async def test_where_calls_may_come_less_often_from_now_on_those_before_count_for_more(
        self, store: Store
    ) -> None:
        early = new_id()
        called = [ask(limit=MINUTE), ask(limit=MINUTE), ask(early, limit=MINUTE)]
        await store.ask_rates("default", "payments", called)
        answers = await store.ask_rates("default", "payments", [ask(early), ask()])
        assert about(answers) == [(False, 60), (False, 120)]

    async def test_what_nobody_came_for_is_forgotten_in_the_end(
        self, store: Store, backend: Backend
    ) -> None:
        gone = new_id()
        await store.ask_rates("default", "payments", [ask(), ask(), ask(gone)])
        await backend.pass_time(2.5 * 3600)
        await store.ask_rates("default", "payments", [ask()])
        assert set(await store.promised_steps(gone)) == set()
