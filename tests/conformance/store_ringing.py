"""Which steps the leader rings for again: each service in its turn, page by page."""

from __future__ import annotations

from datetime import timedelta

from sidecar.ports.records import Ringable
from sidecar.ports.store import Store
from sidecar.saga.workflow import WorkflowId
from tests.conformance.store_play import (
    Backend,
    Player,
    StoreFixtures,
    call,
    register,
    start_of,
)

SILENT = timedelta(seconds=20)
LONG = timedelta(seconds=10)


class RingingSuite(StoreFixtures):
    """Steps that nobody has claimed for long."""

    async def test_the_steps_of_one_service_do_not_hide_those_of_another(
        self, store: Store, payments: Player, inventory: Player, backend: Backend
    ) -> None:
        crowd = await register(store, call("charge"), name="crowd")
        for _ in range(4):
            await payments.start(crowd)
        late = await inventory.start(
            await register(store, call("reserve", service="inventory"), name="late")
        )
        await backend.pass_time(11)
        await payments.beat()
        await inventory.beat()
        found = await store.ringable_steps("default", SILENT, LONG, 2)
        assert [one.doorbell.service for one in found] == ["payments", "payments", "inventory"]
        assert found[-1].doorbell.workflow == late

    async def test_page_by_page_every_step_has_its_turn(
        self, store: Store, payments: Player, inventory: Player, backend: Backend
    ) -> None:
        both = await register(
            store, call("charge"), call("check", after=[]), call("audit", after=[])
        )
        # Started in one transaction, all are due at the same moment.
        starts = [start_of(both) for _ in range(3)]
        await payments.commit(payments.batch(starts=starts))
        lone = await inventory.start(
            await register(store, call("reserve", service="inventory"), name="lone")
        )
        await backend.pass_time(11)
        await payments.beat()
        await inventory.beat()
        whole = await store.ringable_steps("default", SILENT, LONG, 100)
        seen: list[tuple[WorkflowId, str]] = []
        after: dict[str, Ringable] = {}
        for size in (4, 4, 1, 0):
            found = await store.ringable_steps("default", SILENT, LONG, 4, after)
            page = [one for one in found if one.doorbell.service == "payments"]
            assert len(page) == size
            # A service that is left out begins anew.
            assert lone in {one.doorbell.workflow for one in found}
            seen += [(one.doorbell.workflow, one.doorbell.key.step) for one in page]
            after |= {"payments": page[-1]} if page else {}
        assert seen == [
            (one.doorbell.workflow, one.doorbell.key.step)
            for one in whole
            if one.doorbell.service == "payments"
        ]
        assert len(set(seen)) == 9

    async def test_a_page_may_begin_after_a_step_that_is_no_longer_there(
        self, store: Store, payments: Player, backend: Backend
    ) -> None:
        definition = await register(store, call("charge"))
        for _ in range(3):
            await payments.start(definition)
        await backend.pass_time(11)
        await payments.beat()
        first, second, third = await store.ringable_steps("default", SILENT, LONG, 3)
        await payments.claim_key(second.doorbell.workflow, "charge")
        found = await store.ringable_steps("default", SILENT, LONG, 3, {"payments": second})
        assert found == [third]
        found = await store.ringable_steps("default", SILENT, LONG, 3, {"nobody": second})
        assert found == [first, third]
