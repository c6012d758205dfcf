"""Where calls go and what their headers say, for names and paths of any kind."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import urlsplit

from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace
from yarl import URL

from sidecar.adapters.http_contract.requests import (
    ACTION,
    ATTEMPT,
    CALLBACK,
    IDEMPOTENCY_KEY,
    STEP,
    TRACEPARENT,
    Target,
    header_value,
    headers,
    rfc3339,
    target,
)
from sidecar.saga.paths import path_fault
from sidecar.saga.states import Action
from sidecar.saga.workflow import DefinitionRef, StepKey, WorkflowId
from tests.conformance.service import a_call


def test_targets() -> None:
    assert target("http://127.0.0.1:8080") == Target("http://127.0.0.1:8080", "127.0.0.1", 8080)
    assert target("http://app") == Target("http://app:80", "app", 80)
    assert target("https://app/api/") == Target("https://app:443", "app", 443, "/api")
    assert target("http://[::1]:9") == Target("http://[::1]:9", "::1", 9)
    assert target("unix:///run/my%20app.sock").socket == "/run/my app.sock"


@example("/?")
@given(st.text(st.sampled_from("/.%2eEfF5cC\\?a@:#&;"), max_size=12))
def test_no_path_leaves_the_origin_or_its_prefix(path: str) -> None:
    if path_fault(path) is not None:
        return
    url = URL("http://127.0.0.1:8080/api" + path, encoded=True)
    assert (url.host, url.port, url.scheme) == ("127.0.0.1", 8080, "http")
    plain, _, query = path.partition("?")
    assert (url.raw_path, url.raw_query_string) == ("/api" + plain, query)
    assert urlsplit(str(url)).netloc == "127.0.0.1:8080"
    assert URL(str(url)).raw_path.startswith("/api/")  # also for a server that normalises


@given(st.text(), st.text(), st.text())
def test_headers_are_one_line_of_ascii_each(workflow: str, step: str, name: str) -> None:
    call = replace(
        a_call(),
        workflow=WorkflowId(workflow),
        key=StepKey(step),
        definition=DefinitionRef(name, name, 1),
        trace=name,
    )
    sent = headers(call)
    assert all(value.isascii() and value.isprintable() for value in sent.values())
    # A quoted string of a structured field (RFC 8941): nothing inside is left unescaped.
    assert re.fullmatch(r'"([^"\\]|\\["\\])*"', sent[next(iter(sent))])


@given(st.text(max_size=20), st.text(max_size=20))
def test_names_that_are_plain_stay_as_they_are_and_others_stay_apart(one: str, two: str) -> None:
    if one.isascii() and one.isprintable():
        assert header_value(one) == one
    elif one != two and "%" not in one + two and "\ufffd" not in one + two:
        assert header_value(one) != header_value(two)


def test_moments_are_rfc3339_in_utc() -> None:
    assert rfc3339(datetime(2026, 1, 2, 3, 4, 5, 6789, UTC)) == "2026-01-02T03:04:05.006Z"
    east = timezone(timedelta(hours=2))
    assert rfc3339(datetime(2026, 1, 2, 3, 4, 5, tzinfo=east)) == "2026-01-02T01:04:05.000Z"


def test_a_trace_is_sent_only_if_it_is_one() -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert headers(replace(a_call(), trace=trace))[TRACEPARENT] == trace
    assert "traceparent" not in headers(replace(a_call(), trace="00-nonsense"))
    assert "traceparent" not in headers(a_call())


def test_an_item_is_named_by_its_index() -> None:
    sent = headers(replace(a_call(), key=StepKey("reserve", 3)))
    assert sent[STEP] == "reserve[3]"
    assert sent[IDEMPOTENCY_KEY] == f'"{a_call().workflow}/reserve[3]/execute"'


def test_a_question_has_the_key_of_the_execute_and_nowhere_to_call_back() -> None:
    execute, status = headers(a_call()), headers(replace(a_call(Action.STATUS), attempt=4))
    assert status[IDEMPOTENCY_KEY] == execute[IDEMPOTENCY_KEY]
    assert (status[ACTION], status[ATTEMPT]) == ("execute", "4")
    assert CALLBACK in execute
    assert CALLBACK not in status
