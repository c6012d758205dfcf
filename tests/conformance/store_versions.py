"""Versions of definitions: which may be started, which are listed, which can be deleted."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from sidecar.ports.store import Outdated, Retired, Started, Store
from sidecar.ports.versions import Removal, VersionState
from sidecar.saga.states import WorkflowStatus
from tests.conformance.store_play import (
    Backend,
    Player,
    StoreFixtures,
    call,
    register,
    start_of,
)

MINUTE = timedelta(minutes=1)
RETIRED, DEPRECATED = VersionState.RETIRED, VersionState.DEPRECATED


class VersionSuite(StoreFixtures):
    """What a store promises of versions."""

    async def test_the_state_of_a_version_is_kept_and_told(self, store: Store) -> None:
        await register(store, call("charge"))
        stored = await store.get_definition("default", "order", 1)
        assert stored is not None
        assert stored.state is VersionState.ACTIVE
        for state in (DEPRECATED, DEPRECATED, RETIRED, VersionState.ACTIVE):
            changed = await store.set_version_state("default", "order", 1, state)
            assert changed is not None
            assert (changed.state, changed.document) == (state, stored.document)
            assert await store.get_definition("default", "order", 1) == changed
        assert await store.set_version_state("default", "order", 2, RETIRED) is None
        assert await store.set_version_state("elsewhere", "order", 1, RETIRED) is None

    async def test_the_latest_is_the_latest_that_may_be_started(self, store: Store) -> None:
        for step in ("one", "two", "three"):
            await register(store, call(step))

        async def latest() -> tuple[int, int]:
            stored = await store.get_definition("default", "order")
            (listed,) = await store.list_definitions("default", None, 10)
            assert stored is not None
            return stored.version, listed.version

        await store.set_version_state("default", "order", 3, RETIRED)
        assert await latest() == (2, 2)
        await store.set_version_state("default", "order", 2, DEPRECATED)
        assert await latest() == (2, 2)
        for version in (1, 2):
            await store.set_version_state("default", "order", version, RETIRED)
        assert await latest() == (3, 3)
        again = await register(store, call("two"))
        assert again.version == 2

    @pytest.mark.parametrize("key", [None, "k"])
    async def test_a_retired_version_is_not_started(
        self, store: Store, payments: Player, key: str | None
    ) -> None:
        old = await register(store, call("charge"))
        new = await register(store, call("pay"))
        before = await payments.start(old, start_key=key and "early")
        await store.set_version_state("default", "order", 1, RETIRED)
        await store.set_version_state("default", "order", 2, DEPRECATED)
        starts = [
            start_of(old, start_key=key),
            replace(start_of(old, start_key=key and "k2"), latest=True),
            replace(start_of(new, start_key=key and "k3"), latest=True),
        ]
        for _ in range(2):  # the second time the store has a clock, and may decide in advance
            result = await payments.commit(payments.batch(starts=starts))
            assert result.starts[:2] == (Retired(), Outdated())
            assert isinstance(result.starts[2], Started)
        assert await store.get_workflow("default", starts[0].id) is None
        assert await payments.status(before) is WorkflowStatus.IN_PROGRESS
        if key is not None:
            again = await payments.commit(payments.batch(starts=[start_of(old, start_key="early")]))
            assert again.starts == (Started(before, WorkflowStatus.IN_PROGRESS, existed=True),)
        await store.set_version_state("default", "order", 1, VersionState.ACTIVE)
        restored = await payments.commit(payments.batch(starts=starts[:2]))
        assert isinstance(restored.starts[0], Started)
        assert restored.starts[1] == Outdated()

    @pytest.mark.parametrize("key", [None, "k"])
    async def test_what_was_registered_last_is_what_starts_take(
        self, store: Store, payments: Player, key: str | None
    ) -> None:
        """So that a definition is taken back by registering what was there before."""
        first = await register(store, call("one"))
        second = await register(store, call("two"))

        async def current() -> list[tuple[int, bool]]:
            stored = await store.get_definition("default", "order")
            (listed,) = await store.list_definitions("default", None, 10)
            lines = await store.list_versions("default", "order", None, 10, 100)
            assert stored == listed
            assert stored is not None
            assert [stored.version] == [one.version for one in lines if one.current]
            return [(one.version, one.current) for one in lines]

        async def started(number: int) -> list[type]:
            starts = [
                replace(start_of(one, start_key=key and f"{key}{number}{one.version}"), latest=True)
                for one in (first, second)
            ]
            result = await payments.commit(payments.batch(starts=starts))
            return [type(one) for one in result.starts]

        assert await current() == [(2, True), (1, False)]
        assert await started(1) == [Outdated, Started]
        await register(store, call("one"))
        assert await current() == [(2, False), (1, True)]
        assert await started(2) == [Started, Outdated]
        await register(store, call("three"))
        await register(store, call("one"))
        await store.set_version_state("default", "order", 1, RETIRED)
        assert await current() == [(3, True), (2, False), (1, False)]
        await register(store, call("two"))
        assert await current() == [(3, False), (2, True), (1, False)]
        await store.set_version_state("default", "order", 1, VersionState.ACTIVE)
        assert await started(3) == [Outdated, Started]

    async def test_a_running_workflow_goes_on_with_a_retired_version(
        self, store: Store, payments: Player
    ) -> None:
        workflow = await payments.start(await register(store, call("one"), call("two")))
        await store.set_version_state("default", "order", 1, RETIRED)
        for _ in range(2):
            await payments.answer(await payments.claim_one())
        assert await payments.status(workflow) is WorkflowStatus.COMPLETED

    async def test_versions_are_listed_with_their_open_workflows(
        self, store: Store, payments: Player
    ) -> None:
        first = await register(store, call("one"))
        second = await register(store, call("two"))
        await register(store, call("three"))
        await store.set_version_state("default", "order", 2, RETIRED)
        for _ in range(3):
            await payments.start(first)
        await payments.answer((await payments.claim(1))[0])
        listed = await store.list_versions("default", "order", None, 10, 100)
        assert [(one.version, one.state.value, one.open) for one in listed] == [
            (3, "active", 0),
            (2, "retired", 0),
            (1, "active", 2),
        ]
        assert listed[1].hash != listed[2].hash
        assert second.version == 2
        (page,) = await store.list_versions("default", "order", 2, 1, 1)
        assert (page.version, page.open) == (1, 1)
        assert await store.list_versions("elsewhere", "order", None, 10, 100) == []

    async def test_only_a_retired_version_to_which_nothing_refers_is_deleted(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        used = await register(store, call("one"))
        unused = await register(store, call("two"))
        await payments.start(used)
        await payments.answer(await payments.claim_one())

        async def delete(version: int) -> Removal:
            return await store.delete_version("default", "order", version, MINUTE)

        assert await delete(3) is Removal.UNKNOWN
        assert await delete(2) is Removal.NOT_RETIRED
        for version in (1, 2):
            await store.set_version_state("default", "order", version, RETIRED)
        assert await delete(1) is Removal.IN_USE
        assert await delete(2) is Removal.TOO_SOON
        await backend.pass_time(61)
        await store.set_version_state("default", "order", 2, RETIRED)  # again: changes nothing
        assert await delete(1) is Removal.IN_USE
        assert await delete(2) is Removal.DONE
        assert await delete(2) is Removal.UNKNOWN
        assert await store.get_definition("default", "order", 2) is None
        assert await store.set_version_state("default", "order", 2, DEPRECATED) is None
        listed = await store.list_versions("default", "order", None, 10, 100)
        assert [one.version for one in listed] == [1]
        result = await payments.commit(payments.batch(starts=[start_of(unused)]))
        assert result.starts == (Retired(),)

    async def test_a_version_that_another_definition_runs_is_not_deleted(
        self, store: Store, backend: Backend
    ) -> None:
        child = await register(store, call("one"), name="child")
        await register(store, {"name": "run", "workflow": "child", "version": 1})
        for name in ("child", "order"):
            await store.set_version_state("default", name, 1, RETIRED)
        await backend.pass_time(61)

        async def delete(name: str) -> Removal:
            return await store.delete_version("default", name, 1, MINUTE)

        assert child.version == 1
        assert await delete("child") is Removal.PINNED
        assert await delete("order") is Removal.DONE
        assert await delete("child") is Removal.DONE

    async def test_the_number_of_a_deleted_version_is_never_given_again(
        self, store: Store, backend: Backend
    ) -> None:
        for step in ("one", "two"):
            await register(store, call(step))
        for version in (1, 2):
            await store.set_version_state("default", "order", version, RETIRED)
        await backend.pass_time(61)
        for version in (1, 2):
            assert await store.delete_version("default", "order", version, MINUTE) is Removal.DONE
        assert await store.get_definition("default", "order") is None
        assert await store.list_definitions("default", None, 10) == []
        assert (await register(store, call("two"))).version == 3
