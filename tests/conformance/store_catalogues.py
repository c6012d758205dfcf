"""Catalogues: numbered by what they hold, in force by who published last; and what is pinned."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sidecar.definitions.documents import digest
from sidecar.ports.catalogues import StoredCatalogue
from sidecar.ports.records import SidecarBeat
from sidecar.ports.store import Store
from sidecar.saga.definition import JsonText
from sidecar.saga.states import Action, StepStatus, WorkflowStatus
from tests.conformance.store_judge import assert_utc
from tests.conformance.store_play import (
    Backend,
    Player,
    StoreFixtures,
    call,
    refused,
    register,
    unknown,
)

FIRST = JsonText('{"charge":{"execute":{"path":"/charges"}}}')
SECOND = JsonText('{"charge":{"execute":{"path":"/payments"}}}')


async def publish(store: Store, document: JsonText, service: str = "payments") -> StoredCatalogue:
    return await store.publish_catalogue("default", service, document, digest(document))


async def in_force(store: Store, service: str = "payments") -> int | None:
    found = await store.get_catalogue("default", service)
    return None if found is None else found.version


def offered(name: str, **pinned: Any) -> dict[str, Any]:
    """A step that asks for an action of which the catalogue said so much."""
    return {
        "name": name,
        "service": "payments",
        "action": name,
        "pinned": {"catalogue": 1, **pinned},
    }


class CatalogueSuite(StoreFixtures):
    """What a store promises of catalogues."""

    async def test_a_catalogue_is_kept_under_a_number_of_its_service(self, store: Store) -> None:
        assert await in_force(store) is None
        stored = await publish(store, FIRST)
        assert (stored.namespace, stored.service, stored.version) == ("default", "payments", 1)
        assert (stored.hash, stored.document) == (digest(FIRST), FIRST)
        assert_utc(stored.created_at)
        assert (await publish(store, SECOND)).version == 2
        assert (await publish(store, SECOND, "inventory")).version == 1
        assert await store.get_catalogue("default", "payments", 1) == stored
        assert await store.get_catalogue("default", "payments", 3) is None
        assert await store.get_catalogue("elsewhere", "payments") is None

    async def test_the_same_again_is_the_same_version(self, store: Store) -> None:
        first = await publish(store, FIRST)
        again = await publish(store, FIRST)
        assert (again.version, again.created_at) == (first.version, first.created_at)
        assert again.published_at >= first.published_at
        assert await store.get_catalogue("default", "payments", 1) == again

    async def test_the_one_published_last_is_in_force(self, store: Store) -> None:
        await publish(store, FIRST)
        await publish(store, SECOND)
        assert await in_force(store) == 2
        await publish(store, FIRST)  # a deploy was taken back
        assert await in_force(store) == 1
        await publish(store, SECOND, "inventory")
        listed = await store.list_catalogues("default")
        assert [(one.service, one.version) for one in listed] == [("inventory", 1), ("payments", 1)]
        assert await store.list_catalogues("elsewhere") == []

    async def test_replicas_that_start_at_once_get_one_number(
        self, store: Store, backend: Backend
    ) -> None:
        stores = [store, await backend.open_store(), await backend.open_store()]
        documents = [FIRST, FIRST, SECOND]
        found = await asyncio.gather(
            *(publish(*one) for one in zip(stores, documents, strict=True)),
            *(publish(*one) for one in zip(stores, documents, strict=True)),
        )
        numbers = [one.version for one in found]
        assert numbers[0] == numbers[1] == numbers[3] == numbers[4]
        assert {numbers[0], numbers[2]} == {1, 2}
        assert numbers[2] == numbers[5]

    async def test_sidecars_tell_which_version_they_have(
        self, store: Store, backend: Backend
    ) -> None:
        for incarnation, version in (("a", 3), ("b", None)):
            await store.beat(
                SidecarBeat(
                    incarnation, "default", "payments", "1.0", "here", True, catalogue=version
                )
            )
        found = {one.beat.incarnation: one.beat for one in await store.list_sidecars("default")}
        assert (found["a"].catalogue, found["b"].catalogue) == (3, None)
        await store.beat(SidecarBeat("b", "default", "payments", "1.0", "here", True, catalogue=4))
        _, later = await store.list_sidecars("default")
        assert later.beat.catalogue == 4
        await backend.pass_time(30)
        await store.beat(found["a"])
        (seen,) = await store.list_sidecars("default", timedelta(seconds=20))
        assert seen.beat.incarnation == "a"
        assert len(await store.list_sidecars("default")) == 2

    async def test_the_versions_of_replicas_that_live_are_told(
        self, store: Store, backend: Backend
    ) -> None:
        def beat(name: str, service: str, version: int | None, **more: bool) -> SidecarBeat:
            return SidecarBeat(
                name, "default", service, "1.0", "here", True, catalogue=version, **more
            )

        within = timedelta(seconds=20)
        assert await store.live_versions("default", within) == {}
        await store.beat(beat("silent", "payments", 9))
        await backend.pass_time(30)
        for one in (
            beat("a", "payments", 3),
            beat("b", "payments", 3),
            beat("c", "payments", None),
            beat("leaving", "payments", 7, draining=True),
            beat("left", "payments", 8),
            beat("d", "shop", None),
            beat("last to leave", "carrier", 1, draining=True),
            replace(beat("stranger", "payments", 5), namespace="elsewhere"),
        ):
            await store.beat(one)
        await store.leave("left")
        found = await store.live_versions("default", within)
        assert found == {"payments": {3, None}, "shop": {None}}
        assert await store.live_versions("elsewhere", within) == {"payments": {5}}

    async def test_what_is_pinned_is_what_a_step_runs_by(
        self, store: Store, payments: Player
    ) -> None:
        definition = await register(
            store,
            offered("charge", timeout="7s", compensate={"timeout": "9s"}),
            offered("look", compensate="none", retry={"max_attempts": 1}),
            call("book"),
        )
        workflow = await payments.start(definition)
        charge = await payments.claim_one()
        assert (charge.key.step, charge.call_ms) == ("charge", 7_000)
        await payments.answer(charge)
        await payments.answer(await payments.claim_one())
        await payments.answer(await payments.claim_one(), refused())
        undo = await payments.claim_one()
        assert (undo.key.step, undo.action) == ("charge", Action.COMPENSATE)
        assert undo.call_ms == 9_000
        await payments.answer(undo)
        assert await payments.status(workflow) is WorkflowStatus.ROLLED_BACK
        assert await payments.statuses(workflow) == {
            "charge": StepStatus.COMPENSATED,
            "look": StepStatus.SUCCEEDED,
            "book": StepStatus.FAILED,
        }

    async def test_a_pinned_status_question_is_asked(self, store: Store, payments: Player) -> None:
        once = {"retry": {"max_attempts": 1}, "status": {"budget": "1m"}}
        definition = await register(store, offered("charge", compensate={}, **once))
        await payments.start(definition)
        await payments.answer(await payments.claim_one(), unknown())
        asked = await payments.claim_one()
        assert asked.action is Action.STATUS
