"""What a probe of a service is asked, and what it finds; `docs/contract.md` is what it demands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from sidecar.saga.definition import JsonText


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one action is asked for, and what its statuses mean beyond the contract's table."""

    path: str
    method: str = "POST"
    on_status: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Probed:
    """One action of one service.

    `input` is a body that the service accepts, `undo_input` the body of its compensation where
    that is not the contract's own; in both `{unique}` stands for a text that is new for every
    key. `status` and `effects` are paths that are asked with GET; the second answers how many
    effects the whole service has: executed less undone. `timeout` is seconds for one request.
    """

    url: str
    action: str
    execute: Endpoint
    compensate: Endpoint | None = None
    status: str | None = None
    effects: str | None = None
    input: JsonText = JsonText("{}")  # noqa: RUF009 - a NewType, not a call with an effect
    undo_input: JsonText | None = None
    headers: Sequence[tuple[str, str]] = ()
    timeout: float = 10.0


class Severity(StrEnum):
    """How a case of the contract went."""

    HOLDS = "holds"
    WARNS = "warns"
    """Allowed, but worse than it could be."""
    BREAKS = "breaks"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One case: what was sent, what came back, what the contract demands, and how to mend it.

    `came` says why, where the case was skipped. `mend` is None where there is nothing to mend.
    """

    case: str
    severity: Severity
    sent: str
    came: str
    demanded: str
    mend: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """All findings of a probe, in the order of its cases."""

    findings: Sequence[Finding]

    def count(self, severity: Severity) -> int:
        """Return how many cases went so."""
        return sum(finding.severity is severity for finding in self.findings)

    @property
    def broken(self) -> bool:
        """Whether the service breaks the contract."""
        return self.count(Severity.BREAKS) > 0
