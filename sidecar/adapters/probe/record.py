"""What a case can do, and what is kept of it: exchanges, and counts of effects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

import orjson

from sidecar.adapters.http_contract.bodies import printable
from sidecar.ports.probe import Severity
from sidecar.saga.outcomes import OutcomeKind
from sidecar.saga.states import Action

MAX_SAID = 100
"""How many characters of a body are told."""


class Sort(Enum):
    """The body of a request."""

    INPUT = auto()
    """What the service accepts; of a compensation: what the contract says, with the output."""
    OTHER = auto()
    """The input with one more member."""
    LARGE = auto()
    DEEP = auto()
    NOT_JSON = auto()
    OUTPUT_UNKNOWN = auto()
    """Of a compensation: nobody knows whether the execute happened, so its output is null."""


class CutAt(Enum):
    """Where a client breaks a connection."""

    IN_THE_BODY = auto()
    BEFORE_THE_ANSWER = auto()


@dataclass(frozen=True, slots=True)
class Send:
    """One call, asked again while the service is busy. `key` numbers the keys of a case."""

    action: Action
    sort: Sort = Sort.INPUT
    key: int = 0
    more_headers: bool = False
    patient: bool = True


@dataclass(frozen=True, slots=True)
class Together:
    """Calls that are sent at the same time."""

    sends: tuple[Send, ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """An execute whose connection breaks."""

    at: CutAt


@dataclass(frozen=True, slots=True)
class AskStatus:
    """GET the status of the execute under key 0."""


@dataclass(frozen=True, slots=True)
class Count:
    """Ask how many effects there are, where the service can be asked."""


Move = Send | Together | Cut | AskStatus | Count


@dataclass(frozen=True, slots=True)
class Exchange:
    """What came of one move: the last answer, if it was asked more than once.

    `kind` is the class of the status alone; what keeps its body from being kept is in `bad_body`.
    `fault` says why there is no answer.
    """

    action: Action
    kind: OutcomeKind
    status: int | None = None
    body: bytes = b""
    bad_body: str | None = None
    fault: str | None = None
    retry_after: float | None = None
    tries: int = 1

    @property
    def done(self) -> bool:
        """Whether what was asked is done."""
        return self.kind is OutcomeKind.DONE

    @property
    def redirected(self) -> bool:
        """Whether the answer points elsewhere."""
        return self.status is not None and 300 <= self.status < 400

    @property
    def server_fault(self) -> bool:
        """Whether there was no answer, or one of 500 and above."""
        return self.status is None or self.status >= 500

    @property
    def said(self) -> str:
        """The answer in words."""
        again = f" (still, after asking {self.tries} times)" if self._in_vain else ""
        if self.status is None:
            return f"no answer: {self.fault}{again}"
        text = printable(self.body[: 4 * MAX_SAID].decode("utf-8", "replace")).strip()
        cut = f"{text[:MAX_SAID]}..." if len(text) > MAX_SAID else text
        return f"{self.status}{f' {cut}' if cut else ' without a body'}{again}"

    @property
    def _in_vain(self) -> bool:
        return self.tries > 1 and self.kind in (OutcomeKind.BUSY, OutcomeKind.NOT_NOW)

    def same_answer(self, other: Exchange) -> bool:
        """Whether both have one status and one body; how JSON is laid out does not matter."""
        return self.status == other.status and value_of(self.body) == value_of(other.body)


def value_of(body: bytes) -> object:
    """Return the JSON value of a body, or its bytes."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.strip()


@dataclass(slots=True)
class Record:
    """What was seen of a case: an exchange for each call, in order, and the counts."""

    answers: list[Exchange] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def effects(self, since: int = 0) -> int | None:
        """Return by how much the count rose since that one; None if nothing counts them."""
        return self.counts[-1] - self.counts[since] if self.counts else None


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a case went, and in words what came; `mend` where there is better advice than usual."""

    severity: Severity
    came: str
    mend: str | None = None


def holds(came: str) -> Verdict:
    """Return the verdict that all is well."""
    return Verdict(Severity.HOLDS, came)


def warns(came: str, mend: str | None = None) -> Verdict:
    """Return the verdict that it is allowed, but could be better."""
    return Verdict(Severity.WARNS, came, mend)


def breaks(came: str, mend: str | None = None) -> Verdict:
    """Return the verdict that the contract is broken."""
    return Verdict(Severity.BREAKS, came, mend)


def skipped(reason: str) -> Verdict:
    """Return the verdict that nothing can be said."""
    return Verdict(Severity.SKIPPED, reason)


class Need(Enum):
    """What must be known of a service for a case to be tried; the value says what is missing."""

    COMPENSATE = "no path to compensate was given"
    STATUS = "no status path was given"
    EFFECTS = "only a count of effects could tell (--effects)"


@dataclass(frozen=True, slots=True)
class Case:
    """One case of the contract. It is tried if the cases that it `builds_on` hold."""

    id: str
    sent: str
    demanded: str
    mend: str
    script: Sequence[Move]
    judge: Callable[[Record], Verdict]
    builds_on: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
