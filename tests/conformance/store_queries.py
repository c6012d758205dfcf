"""Queries: definitions, workflows, lists, history."""

from __future__ import annotations

import asyncio
from typing import Any

from sidecar.ports.records import WorkflowFilter
from sidecar.ports.store import Store
from sidecar.saga.definition import JsonText
from sidecar.saga.states import WorkflowStatus
from tests.conformance.store_play import (
    ALL,
    NAMESPACE,
    Backend,
    Player,
    StoreFixtures,
    assert_utc,
    call,
    new_id,
    refused,
    register,
    start_of,
)


class QuerySuite(StoreFixtures):
    """What can be read, and in which order."""

    async def test_a_store_answers_from_open_to_close(self, backend: Backend) -> None:
        store = await backend.open_store()
        await store.ping()
        await store.close()
        await store.close()

    async def test_the_same_document_again_is_the_same_version(self, store: Store) -> None:
        one, other = JsonText('{"b":1,"a":[1.50]}'), JsonText('{"b":2}')
        first, new = await store.put_definition("default", "order", one, "1a")
        assert (first.version, first.hash, first.document, new) == (1, "1a", one, True)
        assert_utc(first.created_at)
        assert await store.put_definition("default", "order", one, "1a") == (first, False)
        second, new = await store.put_definition("default", "order", other, "2b")
        assert (second.version, new) == (2, True)
        assert await store.get_definition("default", "order") == second
        assert await store.put_definition("default", "order", one, "1a") == (first, False)
        assert await store.get_definition("default", "order") == first
        assert await store.get_definition("default", "order", 2) == second
        assert await store.get_definition("default", "order", 1) == first
        assert await store.get_definition("default", "order", 3) is None
        assert await store.get_definition("default", "other") is None
        assert await store.get_definition("elsewhere", "order") is None

    async def test_versions_put_at_once_are_numbered_without_a_gap(
        self, store: Store, backend: Backend
    ) -> None:
        stores = [store, await backend.open_store()]
        documents = [JsonText(f'{{"n":{number}}}') for number in range(6)]
        stored = await asyncio.gather(
            *(
                stores[number % 2].put_definition("default", "order", document, f"{number}")
                for number, document in enumerate(documents)
            )
        )
        assert sorted(one.version for one, _ in stored) == [1, 2, 3, 4, 5, 6]

    async def test_definitions_are_listed_by_name_in_their_latest_version(
        self, store: Store
    ) -> None:
        for name in ("pear", "apple", "fig"):
            await store.put_definition("default", name, JsonText("{}"), "1")
        await store.put_definition("default", "fig", JsonText("[]"), "2")
        await store.put_definition("elsewhere", "kiwi", JsonText("{}"), "1")
        found = await store.list_definitions("default", None, 2)
        assert [(one.name, one.version) for one in found] == [("apple", 1), ("fig", 2)]
        found = await store.list_definitions("default", "fig", 2)
        assert [one.name for one in found] == ["pear"]

    async def test_a_workflow_is_seen_in_its_own_namespace_only(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(await register(store, call("charge")))
        assert await store.get_workflow("elsewhere", workflow) is None
        assert await store.list_workflows("elsewhere", WorkflowFilter()) == []
        assert await store.get_workflow("default", new_id()) is None

    async def test_two_handles_see_the_same(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        workflow = await payments.start(await register(store, call("charge")))
        await payments.answer(await payments.claim_one())
        other = await backend.open_store()
        assert await other.get_workflow("default", workflow) == await payments.see(workflow)
        assert list(await other.list_events(workflow, 0, ALL)) == list(
            await payments.events(workflow)
        )

    async def test_workflows_are_listed_newest_first_without_steps_and_bodies(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("charge"))
        ids = [await payments.start(definition, labels={"n": str(n)}) for n in range(3)]
        await payments.answer((await payments.claim())[0])
        found = await store.list_workflows("default", WorkflowFilter())
        assert [one.id for one in found] == ids[::-1]
        assert {one.status for one in found} == {
            WorkflowStatus.COMPLETED,
            WorkflowStatus.IN_PROGRESS,
        }
        assert [one.labels for one in found] == [{"n": "2"}, {"n": "1"}, {"n": "0"}]
        for one in found:
            assert (dict(one.steps), one.input, one.output) == ({}, None, None)
            assert one.definition == ("default", "order", 1)
            assert_utc(one.created_at)

    async def test_pages_stay_stable_while_workflows_are_added(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("charge"))
        ids = [await payments.start(definition) for _ in range(5)]
        seen = []
        after = None
        while page := await store.list_workflows("default", WorkflowFilter(after=after, limit=2)):
            seen += [one.id for one in page]
            after = page[-1].id
            await payments.start(definition)
        assert seen == ids[::-1]

    async def test_a_list_is_filtered_by_status_definition_and_labels(
        self, store: Store, payments: Player
    ) -> None:
        order = await register(store, call("charge"))
        other = await register(store, call("charge"), name="other")
        ended = await payments.start(order, labels={"shop": "north", "vip": "yes"})
        await payments.answer(await payments.claim_one())
        back = await payments.start(other, labels={"shop": "north"})
        await payments.answer(await payments.claim_one(), refused())
        open_one = await payments.start(order, labels={"shop": "south"})

        async def ids(**wanted: Any) -> list[str]:
            found = await store.list_workflows("default", WorkflowFilter(**wanted))
            return [one.id for one in found]

        assert await ids(status=frozenset({WorkflowStatus.COMPLETED})) == [ended]
        ends = frozenset({WorkflowStatus.COMPLETED, WorkflowStatus.ROLLED_BACK})
        assert await ids(status=ends) == [back, ended]
        assert await ids(definition="order") == [open_one, ended]
        assert await ids(definition="nothing") == []
        assert await ids(labels={"shop": "north"}) == [back, ended]
        assert await ids(labels={"shop": "north", "vip": "yes"}) == [ended]
        assert await ids(labels={"shop": "no"}) == []
        assert await ids(labels={"shop": "north"}, definition="order", status=ends) == [ended]

    async def test_history_is_contiguous_comes_in_pages_and_names_every_change(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(await register(store, call("a"), call("b")))
        await payments.answer(await payments.claim_one())
        await payments.answer(await payments.claim_one(), refused())
        await payments.answer(await payments.claim_one())
        events = await payments.events(workflow)
        assert [(one.step, one.before, one.after) for one in events] == [
            (None, "queued", "in_progress"),
            ("a", "pending", "queued"),
            ("a", "queued", "running"),
            ("a", "running", "succeeded"),
            ("b", "pending", "queued"),
            ("b", "queued", "running"),
            ("b", "running", "failed"),
            (None, "in_progress", "rolling_back"),
            ("a", "succeeded", "compensating"),
            ("a", "compensating", "compensating"),
            ("a", "compensating", "compensated"),
            (None, "rolling_back", "rolled_back"),
        ]
        assert [one.seq for one in events] == list(range(1, len(events) + 1))
        assert {one.kind for one in events} == {"workflow", "step", "compensation"}
        assert list(await store.list_events(workflow, 2, 3)) == list(events[2:5])
        assert list(await store.list_events(workflow, len(events), 3)) == []
        assert list(await store.list_events(new_id(), 0, 3)) == []

    async def test_statuses_are_told_for_those_that_exist(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(store, call("charge"))
        ended = await payments.start(definition)
        await payments.answer(await payments.claim_one())
        result = await payments.commit(payments.batch(starts=[start_of(definition)]))
        open_one = result.starts[0].workflow
        assert await store.statuses([ended, new_id(), open_one]) == {
            ended: WorkflowStatus.COMPLETED,
            open_one: WorkflowStatus.IN_PROGRESS,
        }
        assert await store.statuses([]) == {}

    async def test_a_key_is_made_once_and_shared_by_all_sidecars_of_a_namespace(
        self, store: Store, backend: Backend
    ) -> None:
        other = await backend.open_store()
        first, second = b"\x00first" * 4, b"second" * 4
        assert await store.get_key(NAMESPACE, "callbacks", first) == first
        assert await other.get_key(NAMESPACE, "callbacks", second) == first
        assert await other.get_key(NAMESPACE, "secrets", second) == second
        assert await other.get_key("elsewhere", "callbacks", second) == second
