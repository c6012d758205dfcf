"""Runs the cases against one service, one after the other, each under keys of its own.

Bounds: a request takes at most the time-out that was given; a call that is told to wait is asked
again at most `Patience.tries` times and no longer than `Patience.seconds`. What a case has
executed and not undone is compensated at its end, as far as the service can; how that went is
no part of the verdict.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from sidecar.adapters.probe.bodies import body_of
from sidecar.adapters.probe.cases import CASES
from sidecar.adapters.probe.record import (
    AskStatus,
    Case,
    Count,
    Cut,
    Exchange,
    Move,
    Need,
    Record,
    Send,
    Sort,
    Together,
    Verdict,
    skipped,
    value_of,
)
from sidecar.adapters.probe.wire import HANG_UP_S, Wire
from sidecar.errors import ConfigError
from sidecar.ports.clock import Clock
from sidecar.ports.entropy import Entropy
from sidecar.ports.probe import Endpoint, Finding, Probed, Report, Severity
from sidecar.ports.service import Call
from sidecar.saga.definition import JsonText
from sidecar.saga.outcomes import OutcomeKind
from sidecar.saga.paths import path_fault
from sidecar.saga.states import Action
from sidecar.saga.workflow import DefinitionRef, StepKey, WorkflowId

MORE_HEADERS = {
    "GoConductor-Of-A-Later-Version": "1",
    "X-Of-Nobody": "1",
    "tracestate": "goconductor=probe",
}
"""What no contract names; a service must not mind."""

_WAITS = (OutcomeKind.BUSY, OutcomeKind.NOT_NOW)
_DEFINITION = DefinitionRef("default", "goconductor_probe", 1)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a service may say that it is busy, and how long a client holds before it breaks."""

    tries: int = 20
    seconds: float = 15.0
    gap_s: float = 0.25
    hang_up_s: float = HANG_UP_S


async def probe(
    probed: Probed, clock: Clock, entropy: Entropy, patience: Patience | None = None
) -> Report:
    """Run all cases. Raises `ServiceUnreachable`, `ConfigError`."""
    patience = patience or Patience()
    _check_paths(probed)
    async with Wire(probed.url, probed.headers, clock, patience.hang_up_s) as wire:
        await wire.reach(probed.timeout)
        findings: dict[str, Finding] = {}
        for case in CASES:
            verdict = _skip(case, probed, findings)
            if verdict is None:
                verdict = await _Run(probed, wire, clock, entropy, patience).verdict(case)
            findings[case.id] = _finding(case, verdict)
    return Report(tuple(findings.values()))


def _check_paths(probed: Probed) -> None:
    undo = probed.compensate.path if probed.compensate else None
    for path in (probed.execute.path, undo, probed.status, probed.effects):
        if path is not None and (fault := path_fault(path)) is not None:
            raise ConfigError(f"{path!r}: {fault}")


def _skip(case: Case, probed: Probed, findings: dict[str, Finding]) -> Verdict | None:
    """Say why a case cannot be tried."""
    given = {
        Need.COMPENSATE: probed.compensate,
        Need.STATUS: probed.status,
        Need.EFFECTS: probed.effects,
    }
    for need in case.needs:
        if given[need] is None:
            return skipped(need.value)
    for name in case.builds_on:
        if findings[name].severity not in (Severity.HOLDS, Severity.WARNS):
            return skipped(f"it builds on {name}, which does not hold")
    return None


def _finding(case: Case, verdict: Verdict) -> Finding:
    ill = verdict.severity in (Severity.BREAKS, Severity.WARNS)
    mend = (verdict.mend or case.mend) if ill else None
    return Finding(case.id, verdict.severity, case.sent, verdict.came, case.demanded, mend)


class _Run:
    """One case against the service."""

    def __init__(
        self, probed: Probed, wire: Wire, clock: Clock, entropy: Entropy, patience: Patience
    ) -> None:
        self._probed, self._wire, self._clock = probed, wire, clock
        self._entropy, self._patience = entropy, patience
        self._workflows: dict[int, WorkflowId] = {}
        self._traces: dict[int, str] = {}
        self._attempts: Counter[tuple[int, Action]] = Counter()
        self._executed: dict[int, Exchange] = {}
        self._record = Record()

    async def verdict(self, case: Case) -> Verdict:
        for move in case.script:
            await self._make(move)
        verdict = case.judge(self._record)
        await self._clean_up(case.script)
        return verdict

    async def _make(self, move: Move) -> None:
        match move:
            case Send():
                if self._endpoint(move.action) is not None:
                    self._record.answers.append(await self._send(move))
            case Together():
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._send(send)) for send in move.sends]
                self._record.answers.extend(task.result() for task in tasks)
            case Cut():
                await self._wire.cut(self._call(Send(Action.EXECUTE)), move.at)
            case AskStatus():
                if self._probed.status is not None:
                    call = self._call(Send(Action.EXECUTE))
                    self._record.answers.append(
                        await self._wire.get(self._probed.status, call.timeout, call)
                    )
            case Count():
                await self._count()

    async def _send(self, send: Send) -> Exchange:
        """Call, and again as long as the service says that it is busy."""
        patience = self._patience
        until = self._clock.monotonic() + patience.seconds
        more = MORE_HEADERS if send.more_headers else {}
        endpoint = self._endpoint(send.action)
        if endpoint is None:
            raise ConfigError("the case needs a path to compensate")
        tries = 0
        while True:
            tries += 1
            answer = await self._wire.call(self._call(send), endpoint.on_status, more)
            answer = replace(answer, tries=tries)
            pause = max(patience.gap_s, answer.retry_after or 0.0)
            late = self._clock.monotonic() + pause > until
            if answer.kind not in _WAITS or not send.patient or tries >= patience.tries or late:
                break
            await asyncio.sleep(pause)
        if send.action is Action.EXECUTE:
            self._executed[send.key] = answer
        return answer

    def _call(self, send: Send) -> Call:
        """One more attempt under the key."""
        probed, endpoint = self._probed, self._endpoint(send.action) or self._probed.execute
        workflow = self._workflows.setdefault(send.key, self._entropy.workflow_id())
        digits = workflow.replace("-", "")
        self._attempts[send.key, send.action] += 1
        body = body_of(probed, send.action, send.sort, workflow, self._executed.get(send.key))
        return Call(
            workflow=workflow,
            definition=_DEFINITION,
            key=StepKey(probed.action),
            action=send.action,
            attempt=self._attempts[send.key, send.action],
            path=endpoint.path,
            body=JsonText(body.decode()),
            timeout=probed.timeout,
            deadline=self._clock.now() + timedelta(seconds=probed.timeout),
            method=endpoint.method,
            trace=f"00-{digits}-{digits[16:]}-01",
        )

    def _endpoint(self, action: Action) -> Endpoint | None:
        return self._probed.execute if action is Action.EXECUTE else self._probed.compensate

    async def _count(self) -> None:
        """Ask how many effects there are: a number, or one under `effects`."""
        if self._probed.effects is None:
            return
        answer = await self._wire.get(self._probed.effects, self._probed.timeout)
        value = value_of(answer.body) if answer.status == 200 else None
        if isinstance(value, dict):
            value = value.get("effects")
        if not isinstance(value, int) or isinstance(value, bool):
            raise ConfigError(
                f"GET {self._probed.effects} must answer 200 with a number, or with"
                f' {{"effects": number}}; it answered: {answer.said}'
            )
        self._record.counts.append(value)

    async def _clean_up(self, script: Sequence[Move]) -> None:
        """Undo what the case has left."""
        sends = list(_sends(script))
        undone = {send.key for send in sends if send.action is Action.COMPENSATE}
        left = {send.key for send in sends if send.action is Action.EXECUTE} - undone
        if self._probed.compensate is not None:
            for key in sorted(left):
                await self._send(Send(Action.COMPENSATE, Sort.INPUT, key=key))


def _sends(script: Sequence[Move]) -> Iterator[Send]:
    for move in script:
        if isinstance(move, Send):
            yield move
        elif isinstance(move, Together):
            yield from move.sends
