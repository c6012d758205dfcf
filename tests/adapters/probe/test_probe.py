"""Whoever keeps the contract passes the whole probe; whoever breaks it is found by that case."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest

from sidecar.adapters.clock import SystemClock
from sidecar.adapters.entropy import SystemEntropy
from sidecar.adapters.probe.cases import CASES
from sidecar.adapters.probe.running import Patience, probe
from sidecar.errors import ConfigError, ServiceUnreachable
from sidecar.ports.probe import Endpoint, Report, Severity
from sidecar.saga.definition import JsonText
from tests.adapters.probe.broken_services import BROKEN
from tests.adapters.probe.odd_services import (
    AlwaysAnswers,
    AnswersBytes,
    BusyAtFirst,
    Listens,
    NeedsNewOrders,
    NeverAnswers,
    NoKeys,
)
from tests.adapters.probe.sound_service import MemoryService, Service, probed, served

QUICK = Patience(tries=3, gap_s=0.01, hang_up_s=0.1)
ALL = {case.id for case in CASES}


async def report_on(service: Service, **changed: Any) -> Report:
    async with served(service) as url:
        return await probe(probed(url, **changed), SystemClock(), SystemEntropy(), QUICK)


def ids(report: Report, *severities: Severity) -> set[str]:
    return {one.case for one in report.findings if one.severity in severities}


async def test_a_sound_service_passes_every_case() -> None:
    report = await report_on(MemoryService())
    assert [one for one in report.findings if one.severity is Severity.BREAKS] == []
    # Of a key that never came it knows nothing, and says so.
    assert ids(report, Severity.WARNS) == {"status_unknown"}
    assert ids(report, Severity.HOLDS) == ALL - {"status_unknown"}
    assert not report.broken


@pytest.mark.parametrize("case", [case.id for case in CASES])
async def test_a_service_with_one_thing_wrong_is_found_by_that_case(case: str) -> None:
    report = await report_on(BROKEN[case]())
    assert ids(report, Severity.BREAKS) == {case}, report.findings
    assert report.broken
    (finding,) = (one for one in report.findings if one.case == case)
    assert finding.mend


def test_every_case_has_its_broken_service() -> None:
    assert set(BROKEN) == ALL
    assert len(CASES) == len(ALL)


def test_what_a_case_builds_on_stands_before_it() -> None:
    seen: set[str] = set()
    for case in CASES:
        assert set(case.builds_on) <= seen
        seen.add(case.id)


async def test_it_works_over_a_unix_socket(tmp_path: Path) -> None:
    async with served(MemoryService(), tmp_path / "app.sock") as url:
        report = await probe(probed(url), SystemClock(), SystemEntropy(), QUICK)
    assert not report.broken


async def test_without_a_count_the_answers_alone_are_judged() -> None:
    report = await report_on(MemoryService(), effects=None)
    assert ids(report, Severity.SKIPPED) == {"compensate_at_once"}
    assert not report.broken
    said = {one.case: one.came for one in report.findings}
    for case in ("same_key_twice", "same_key_at_once", "compensate", "lost_answer"):
        assert "judged by the answers alone" in said[case]


async def test_who_knows_nothing_of_keys_is_found_by_the_answers_alone() -> None:
    report = await report_on(NoKeys(), effects=None)
    assert ids(report, Severity.BREAKS) == {
        "same_key_twice",
        "same_key_at_once",
        "same_key_other_body",
        "execute_after_compensate",
        "repeat_after_compensate",
        "status_known",
    }


async def test_what_was_not_given_is_skipped_with_the_reason() -> None:
    report = await report_on(MemoryService(), compensate=None, status=None)
    skipped = {one.case: one.came for one in report.findings if one.severity is Severity.SKIPPED}
    assert skipped["compensate"] == "no path to compensate was given"
    assert skipped["status_known"] == "no status path was given"
    assert not report.broken


@pytest.mark.parametrize("wait", [409, 425, 429, 503])
async def test_a_service_that_is_busy_for_a_moment_is_asked_again(wait: int) -> None:
    report = await report_on(BusyAtFirst(wait))
    assert not report.broken, report.findings


@pytest.mark.parametrize(
    ("status", "word"),
    [(409, "busy"), (422, "refused"), (404, "misconfigured"), (500, "unknown"), (503, "not_now")],
)
async def test_a_first_execute_that_is_not_done_says_what_it_is_taken_for(
    status: int, word: str
) -> None:
    report = await report_on(AlwaysAnswers(status))
    assert ids(report, Severity.BREAKS) == {"first_execute"}
    (finding,) = (one for one in report.findings if one.case == "first_execute")
    assert str(status) in finding.came
    assert finding.came.endswith(f"takes this as: {word}")
    assert len(ids(report, Severity.SKIPPED)) == len(ALL) - 2


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        (b"[" + b"1," * 700_000 + b"1]", {}, "larger than 1048576 bytes"),
        (b'"\\u0000"', {}, "NUL"),
        (b"[" * 65 + b"]" * 65, {}, "deeper than 64"),
        (b"NaN", {}, "not JSON"),
        (b"{}", {"Content-Encoding": "br"}, "encoding"),
        (zlib.compress(b"0" * 2_000_000), {"Content-Encoding": "deflate"}, "larger than"),
    ],
)
async def test_a_body_that_cannot_be_kept_is_found(
    body: bytes, headers: dict[str, str], said: str
) -> None:
    report = await report_on(AnswersBytes(body, headers))
    assert ids(report, Severity.BREAKS) == {"answer_body"}
    assert said in report.findings[2].came


async def test_a_status_that_a_definition_reads_otherwise_is_read_so() -> None:
    endpoint = Endpoint("/charges", on_status={422: "done"})
    report = await report_on(AlwaysAnswers(422), execute=endpoint, compensate=None)
    assert "first_execute" in ids(report, Severity.HOLDS)


async def test_every_header_of_the_contract_is_sent() -> None:
    service = Listens()
    await report_on(service, headers=[("Authorization", "Bearer x")])
    for heard in service.heard:
        assert heard["Authorization"] == "Bearer x"
        workflow, step, action = heard["Idempotency-Key"].strip('"').split("/")
        assert (workflow, step) == (heard["GoConductor-Workflow"], heard["GoConductor-Step"])
        assert action == heard["GoConductor-Action"]
        assert step == "charge"
        names = {"Attempt", "Definition", "Namespace", "Timeout-Ms", "Deadline"}
        assert {f"GoConductor-{name}" for name in names} <= set(heard)
        assert {"traceparent", "Accept-Encoding", "Content-Type", "User-Agent"} <= set(heard)
    # Attempts at one key rise, and every case has keys of its own.
    seen = [(one["Idempotency-Key"], one["GoConductor-Attempt"]) for one in service.heard]
    assert len(set(seen)) == len(seen)


async def test_what_is_to_be_unique_in_an_input_is_new_for_every_key() -> None:
    report = await report_on(NeedsNewOrders(), input=JsonText('{"order": "{unique}"}'))
    assert not report.broken
    report = await report_on(NeedsNewOrders(), input=JsonText('{"order": "12"}'))
    assert "other_key" not in ids(report, Severity.HOLDS)
    assert report.broken


async def test_what_a_case_has_done_is_undone_at_its_end() -> None:
    service = MemoryService()
    await report_on(service)
    assert service.acted.total() == 0


async def test_a_service_that_is_not_there_is_told_as_such(tmp_path: Path) -> None:
    async with served(MemoryService()) as url:
        pass
    for away in (url, f"unix://{tmp_path}/app.sock"):
        with pytest.raises(ServiceUnreachable, match="no service can be reached"):
            await probe(probed(away), SystemClock(), SystemEntropy(), QUICK)


async def test_a_service_that_does_not_answer_in_time_is_told_so() -> None:
    report = await report_on(NeverAnswers(), timeout=0.2)
    assert ids(report, Severity.BREAKS) == {"first_execute"}
    assert "none came within 0.2 s" in report.findings[1].came


async def test_a_count_that_is_no_number_is_told_as_such() -> None:
    with pytest.raises(ConfigError, match="must answer 200 with a number"):
        await report_on(MemoryService(), effects="/charges/status")


@pytest.mark.parametrize("name", ["status", "effects"])
async def test_a_path_cannot_leave_the_host(name: str) -> None:
    with pytest.raises(ConfigError):
        await report_on(MemoryService(), **{name: "//elsewhere/x"})
