"""What queries promise: pages that cover a list once, and cursors that only we can make."""

from __future__ import annotations

import pytest

from sidecar.engine.queries import event_cursor
from sidecar.errors import InvalidRequest, NotFound
from sidecar.saga.states import WorkflowStatus
from tests.unit.engine.faces import DOCUMENT, Faces


@pytest.fixture
async def faces() -> Faces:
    made = Faces()
    await made.register()
    return made


async def test_pages_show_every_workflow_once_newest_first(faces: Faces) -> None:
    ids = [(await faces.start()).id for _ in range(5)]
    shown: list[str] = []
    cursor: str | None = None
    while True:
        page = await faces.queries.list("default", cursor=cursor, limit=2)
        shown += [one.id for one in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert shown == ids[::-1]


async def test_a_last_page_that_is_full_has_no_next(faces: Faces) -> None:
    await faces.start()
    await faces.start()
    assert (await faces.queries.list("default", limit=2)).next_cursor is None


async def test_filters_narrow_a_list(faces: Faces) -> None:
    done = await faces.start(labels={"tenant": "north"})
    await faces.start(labels={"tenant": "south"})
    faces.store.put(done, status=WorkflowStatus.COMPLETED)
    by_status = await faces.queries.list(
        "default", status=frozenset({WorkflowStatus.COMPLETED, WorkflowStatus.ERROR})
    )
    by_label = await faces.queries.list("default", labels={"tenant": "north"})
    nothing = await faces.queries.list("default", definition="other")
    assert [one.id for one in by_status.items] == [one.id for one in by_label.items] == [done.id]
    assert nothing.items == ()


async def test_history_comes_in_its_order_page_by_page(faces: Faces) -> None:
    workflow = await faces.start()
    await faces.verbs.cancel("default", workflow.id)
    whole = await faces.queries.events("default", workflow.id)
    first = await faces.queries.events("default", workflow.id, limit=1)
    rest = await faces.queries.events("default", workflow.id, cursor=first.next_cursor)
    assert first.items + rest.items == whole.items
    assert [one.seq for one in whole.items] == list(range(1, len(whole.items) + 1))


async def test_definitions_come_by_name_each_at_its_latest(faces: Faces) -> None:
    await faces.register(DOCUMENT.replace(b"name: order", b"name: billing"))
    await faces.register(DOCUMENT.replace(b"/charges", b"/v2/charges"))
    first = await faces.queries.definitions("default", limit=1)
    rest = await faces.queries.definitions("default", cursor=first.next_cursor)
    assert [(one.name, one.version) for one in first.items + rest.items] == [
        ("billing", 1),
        ("order", 2),
    ]


async def test_a_version_is_found_by_its_number_and_the_latest_without(faces: Faces) -> None:
    await faces.register(DOCUMENT.replace(b"/charges", b"/v2/charges"))
    assert (await faces.queries.definition("default", "order")).version == 2
    assert (await faces.queries.definition("default", "order", 1)).version == 1
    with pytest.raises(NotFound, match="no version 3"):
        await faces.queries.definition("default", "order", 3)


@pytest.mark.parametrize("cursor", ["", "x", "!!!!", event_cursor(3), "ä", "A" * 2000])
async def test_a_cursor_of_another_list_or_of_nobody_is_refused(faces: Faces, cursor: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await faces.queries.list("default", cursor=cursor)
    assert refused.value.field == "cursor"


async def test_a_cursor_of_a_list_is_none_of_a_history(faces: Faces) -> None:
    workflow = await faces.start()
    await faces.start()
    page = await faces.queries.list("default", limit=1)
    with pytest.raises(InvalidRequest):
        await faces.queries.events("default", workflow.id, cursor=page.next_cursor)
