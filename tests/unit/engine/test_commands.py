"""What commands promise: what they accept is durable and can be kept, what they refuse says why."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from sidecar.definitions import parse_definition
from sidecar.engine.intake import read_json
from sidecar.errors import (
    Conflict,
    DefinitionError,
    InvalidRequest,
    NotFound,
    RequestError,
    StartKeyReused,
)
from sidecar.saga.states import Reason, WorkflowStatus
from tests.unit.engine.faces import DOCUMENT, Faces, until

TOO_DEEP = b"[" * 1020 + b"1234567890123456789" + b"]" * 1020
"""The fast parser takes so many levels; the second look, which the number asks for, does not."""


@pytest.fixture
async def faces() -> Faces:
    made = Faces()
    await made.register()
    return made


async def test_the_same_document_again_is_the_same_version(faces: Faces) -> None:
    again, created, _ = await faces.commands.register_definition(
        "default", DOCUMENT, "application/yaml"
    )
    assert (again.version, created) == (1, False)


async def test_a_changed_document_is_the_next_version_and_the_one_that_starts(
    faces: Faces,
) -> None:
    changed = DOCUMENT.replace(b"/charges", b"/v2/charges")
    await faces.register(changed)
    assert (await faces.start()).definition.version == 2
    assert (await faces.start(version=1)).definition.version == 1


async def test_who_closes_a_circle_of_those_that_take_turns_is_told(faces: Faces) -> None:
    """Each of them is sound by itself, and only the last one registered can know."""
    call = "{name: go, service: s, execute: /go, compensate: /undo}"
    outer = (
        f"name: outer\nconcurrency: {{key: one}}\nsteps: [{call}, {{name: in, workflow: inner}}]"
    )
    told = []
    for document in (
        f"name: inner\nsteps: [{call}]",
        outer,
        f"name: inner\nsteps: [{call}, {{name: out, workflow: outer}}]",
    ):
        _, _, report = await faces.commands.register_definition(
            "default", document.encode(), "application/yaml"
        )
        told.append([(one.code, one.step) for one in report.findings])
    assert told == [[], [], [("GC135", "out")]]


async def test_a_document_that_is_refused_takes_no_number(faces: Faces) -> None:
    with pytest.raises(DefinitionError):
        await faces.register(b"name: order")
    assert [one.version for one in faces.store.definitions["default", "order"]] == [1]


async def test_a_document_that_could_not_be_read_back_is_not_stored(faces: Faces) -> None:
    grows = b"name: order\nsteps: [{name: a, service: b, execute: /a, input: {t: '%s'}}]"
    with pytest.raises(DefinitionError, match="larger than 256 KiB"):
        await faces.register(grows % (b'"' * 150_000))
    assert (await faces.start()).definition.version == 1


async def test_a_document_is_compiled_as_it_is_stored_before_it_is(
    faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise DefinitionError([("", "cannot be read back")])

    monkeypatch.setattr("sidecar.engine.commands.compile_stored", refuse)
    with pytest.raises(DefinitionError, match="read back"):
        await faces.register(DOCUMENT.replace(b"/charges", b"/v2/charges"))
    assert (await faces.start()).definition.version == 1


async def test_an_unknown_definition_or_version_is_not_found(faces: Faces) -> None:
    with pytest.raises(NotFound, match="no definition nothing") as found:
        await faces.commands.start("default", "nothing")
    assert found.value.field == "definition"
    with pytest.raises(NotFound) as found:
        await faces.start(version=7)
    assert found.value.field == "version"


async def test_starts_at_once_share_the_look_for_the_latest_version(faces: Faces) -> None:
    faces.store.asked.clear()
    faces.store.gate = asyncio.Event()
    starts = [asyncio.create_task(faces.start()) for _ in range(50)]
    await until(lambda: faces.store.asked)
    faces.store.gate.set()
    await asyncio.gather(*starts)
    assert faces.store.asked.count("get_definition") <= 2


async def test_a_start_supposes_that_the_version_last_seen_is_the_latest(faces: Faces) -> None:
    await faces.start()
    faces.store.asked.clear()
    await faces.start()
    assert "get_definition" not in faces.store.asked


async def test_a_version_that_another_sidecar_registered_is_the_one_that_starts(
    faces: Faces,
) -> None:
    await faces.start()
    for version in (2, 3):
        changed = DOCUMENT.replace(b"/charges", b"/v%d/charges" % version)
        parsed = parse_definition(changed, "application/yaml")
        await faces.store.put_definition("default", "order", parsed.document, parsed.digest)
        assert (await faces.start()).definition.version == version


async def test_whoever_asks_during_a_look_gets_one_that_began_afterwards(faces: Faces) -> None:
    faces.store.gate = asyncio.Event()
    early = asyncio.create_task(faces.compiled.latest("default", "order"))
    await asyncio.sleep(0)
    faces.store.gate.set()
    await faces.register(DOCUMENT.replace(b"/charges", b"/v2/charges"))
    late = await faces.compiled.latest("default", "order")
    await early
    assert late.version == 2


async def test_compiled_definitions_are_bounded(faces: Faces) -> None:
    for number in range(4):
        await faces.register(DOCUMENT.replace(b"name: order", b"name: order_%d" % number))
    small = type(faces.compiled)(faces.store, most=2)  # type: ignore[arg-type]
    for number in range(4):
        await small.latest("default", f"order_{number}")
    assert len(small._kept) == 2


async def test_a_start_key_returns_the_same_workflow(faces: Faces) -> None:
    first = await faces.commands.start("default", "order", None, {"a": 1, "b": 2}, "key")
    again = await faces.commands.start("default", "order", None, {"b": 2, "a": 1}, "key")
    assert (first.existed, again.existed, first.id) == (False, True, again.id)
    with pytest.raises(StartKeyReused) as reused:
        await faces.commands.start("default", "order", None, {"a": 2}, "key")
    assert reused.value.field == "start_key"


DEEP: Any = []
for _ in range(64):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"a": ["x", "nul\0"]}, "input.a[1]"),
        ({"a": {"nul\0": 1}}, "input.a"),
        ({"a": float("nan")}, "input.a"),
        ([float("inf")], "input[0]"),
        ("\ud800", "input"),
        (DEEP, "input"),
        ("x" * (1024 * 1024), "input"),
        (2**64, "input"),
    ],
    ids=["nul", "nul key", "nan", "infinity", "surrogate", "deep", "large", "large integer"],
)
async def test_an_input_that_cannot_be_kept_is_refused_by_its_field(
    faces: Faces, value: Any, field: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await faces.start(input=value)
    assert refused.value.field == field
    assert "submit" not in faces.store.asked


@pytest.mark.fault(10)
async def test_an_input_at_the_limits_is_kept_as_it_was_sent(faces: Faces) -> None:
    for value in (DEEP[0], "\\u0000", None, "x" * (1024 * 1024 - 2), 2**64 - 1, {"a": None}):
        workflow = await faces.start(input=value)
        assert workflow.input is not None
        assert read_json(workflow.input.encode()) == value


@pytest.mark.parametrize(
    "text",
    [b"18446744073709551616", b"-9223372036854775809", b"[1, 123456789012345678901234567890]"],
)
def test_an_integer_that_would_change_in_silence_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidRequest, match="64 bits"):
        read_json(text)


@pytest.mark.parametrize("text", [b"", b"{", b"NaN", b"\xff", b'"\\ud800"', b"1e999", TOO_DEEP])
def test_what_is_not_json_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidRequest, match="not JSON"):
        read_json(text)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"start_key": ""}, "start_key"),
        ({"start_key": "x" * 256}, "start_key"),
        ({"start_key": "a\nb"}, "start_key"),
        ({"labels": {str(number): "" for number in range(33)}}, "labels"),
        ({"labels": {"": "x"}}, "labels."),
        ({"labels": {"a b": "x"}}, "labels.a b"),
        ({"labels": {"a": "x" * 256}}, "labels.a"),
        ({"labels": {"a": "\x1b[2J"}}, "labels.a"),
    ],
)
async def test_keys_and_labels_have_bounds(
    faces: Faces, values: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await faces.start(**values)
    assert refused.value.field == field


async def test_a_valid_trace_is_taken_and_another_is_left_out(faces: Faces) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert (await faces.start(trace=trace)).trace == trace
    for bad in ("00-00000000000000000000000000000000-b7ad6b7169203331-01", "x", f"{trace}\n"):
        assert (await faces.start(trace=bad)).trace is None


async def test_cancel_turns_back_and_is_harmless_when_repeated(faces: Faces) -> None:
    workflow = await faces.start()
    first = await faces.verbs.cancel("default", workflow.id)
    again = await faces.verbs.cancel("default", workflow.id.upper())
    assert first.reason == again.reason == Reason.CANCELLED
    assert [step.status for step in again.steps] == ["cancelled", "cancelled"]


async def test_a_finished_workflow_cannot_be_cancelled(faces: Faces) -> None:
    workflow = await faces.start()
    faces.store.put(workflow, status=WorkflowStatus.COMPLETED)
    with pytest.raises(Conflict, match="it is completed"):
        await faces.verbs.cancel("default", workflow.id)


@pytest.mark.parametrize("id_", ["x", "", "00000000-0000-7000-8000-0000000000ff", "a\0b"])
async def test_what_is_not_there_cannot_be_cancelled(faces: Faces, id_: str) -> None:
    with pytest.raises(NotFound):
        await faces.verbs.cancel("default", id_)


async def test_a_workflow_of_another_namespace_is_not_there(faces: Faces) -> None:
    workflow = await faces.start()
    there = workflow.definition._replace(namespace="other")
    faces.store.workflows[workflow.id] = replace(workflow, definition=there)
    with pytest.raises(RequestError, match="no workflow"):
        await faces.verbs.cancel("default", workflow.id)
