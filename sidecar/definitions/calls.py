"""The shape of a call: where it goes, how long it may take, how it is tried again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from sidecar.definitions.durations import Between, duration_text
from sidecar.definitions.names import ServicePath
from sidecar.definitions.shorthand import Short
from sidecar.saga.policy import RetryPolicy

STATUS_WORDS = ("done", "refused", "unknown", "busy", "not_now", "misconfigured", "pending")

CallTimeout = Annotated[timedelta, Between("1ms", "1d")]
CallbackTimeout = Annotated[timedelta, Between("1ms", "366d")]
Method = Literal["POST", "PUT", "PATCH", "DELETE"]


class Part(BaseModel):
    """What all mappings of a definition share: nothing unknown, nothing converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    kind: ClassVar[str] = ""

    @classmethod
    def written(cls) -> list[str]:
        """The keys as they are written."""
        return [field.alias or name for name, field in cls.model_fields.items()]


def _read_statuses(value: object) -> object:
    """`on_status`: its keys are text in JSON and numbers in YAML; both mean a status."""
    if not isinstance(value, dict):
        raise ValueError("must be a mapping like {409: refused}")  # noqa: TRY004
    read: list[tuple[int, str]] = []
    for key, word in value.items():
        if not re.fullmatch("[2-5][0-9][0-9]", str(key), re.ASCII):
            raise ValueError("its keys must be HTTP statuses from 200 to 599, like 409")
        if word not in STATUS_WORDS:
            raise ValueError(f"its values must be one of: {', '.join(STATUS_WORDS)}")
        read.append((int(key), word))
    return tuple(sorted(read))


OnStatus = Annotated[
    tuple[tuple[int, str], ...],
    BeforeValidator(_read_statuses),
    WithJsonSchema(
        {
            "type": "object",
            "patternProperties": {"^[2-5][0-9][0-9]$": {"enum": list(STATUS_WORDS)}},
            "additionalProperties": False,
        }
    ),
]


Compat = Literal["dtm"]

_CONVENTIONS: Mapping[Compat, Mapping[int, str]] = {
    # There only 409 is a definite no, and all that is neither it nor 425 is tried again: another
    # 4xx proves nothing, though 429 asks to wait here as everywhere.
    "dtm": dict.fromkeys(range(400, 500), "unknown")
    | {409: "refused", 425: "busy", 429: "not_now"},
}
"""What statuses mean to services that were written for another system."""


@lru_cache(maxsize=1_000)
def meanings(
    compat: Compat | None, own: tuple[tuple[int, str], ...]
) -> tuple[tuple[int, str], ...]:
    """What HTTP statuses mean by a convention, but for those of which `own` speaks itself."""
    return own if compat is None else overruled(tuple(_CONVENTIONS[compat].items()), own)


@lru_cache(maxsize=1_000)
def overruled(
    usual: tuple[tuple[int, str], ...], own: tuple[tuple[int, str], ...]
) -> tuple[tuple[int, str], ...]:
    """What HTTP statuses mean, but for those of which `own` speaks itself."""
    return tuple(sorted({**dict(usual), **dict(own)}.items()))


MOST_VERSIONS = 2**31 - 1
"""The highest number that a version can have."""

ENDLESS = ("max_attempts", "total_budget")
"""The keys of `retry` for which null means "without end"."""


class Retry(Part):
    """How an action is tried again; what is left out comes from the action's default."""

    kind = "retry"
    max_attempts: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """How many tries; null: without end."""
    initial_interval: Annotated[timedelta, Between("1ms", "1d")] | None = None
    """The first pause."""
    backoff_coefficient: Annotated[float, Field(ge=1, le=100)] | None = None
    """How pauses grow."""
    max_interval: Annotated[timedelta, Between("1ms", "7d")] | None = None
    """The longest pause."""
    jitter: Annotated[float, Field(ge=0, le=1)] | None = None
    """By what part a pause is spread, both ways."""
    total_budget: Annotated[timedelta, Between("1ms", "366d")] | None = None
    """From the first claim on; null: without end."""

    def over(self, default: RetryPolicy) -> RetryPolicy:
        """The policy that these keys make of `default`."""
        given = {key: getattr(self, key) for key in self.model_fields_set}
        kept = {key: getattr(default, key) for key in Retry.model_fields}
        return RetryPolicy(**{**kept, **given})

    def disorder(self, default: RetryPolicy) -> str | None:
        """What is wrong with the keys together, if anything is."""
        policy = self.over(default)
        if policy.initial_interval <= policy.max_interval:
            return None
        return (
            f"max_interval ({duration_text(policy.max_interval)}"
            f"{'' if 'max_interval' in self.model_fields_set else ' by default'}) is shorter than "
            f"initial_interval ({duration_text(policy.initial_interval)}); raise max_interval"
        )


def read_path(value: object) -> object:
    """A bare path is short for a mapping with nothing but a path."""
    return {"path": value} if isinstance(value, str) else value


def read_call(value: object) -> object:
    """The same for what does a step: a catalogue is named by `action`."""
    if value == "from_catalogue":
        raise ValueError("cannot be `from_catalogue`; write `action: NAME` in its place, or a path")
    return read_path(value)


class Call(Part):
    """A call of the service."""

    kind = "call"
    path: ServicePath
    """A path of the service, never a host."""
    method: Method = "POST"
    """The HTTP method."""
    input: Any = None
    """The body; expressions are filled in."""
    timeout: CallTimeout | None = None
    """How long one call may take."""
    retry: Retry | None = None
    """How it is tried again."""
    on_status: OnStatus = ()
    """HTTP statuses that mean something else than usual."""


NO_EFFECT = Call.model_construct(path="none")
"""What `compensate: none` reads as: there is nothing to undo."""

FROM_CATALOGUE = Call.model_construct(path="from_catalogue")
"""What `compensate: from_catalogue` reads as: the service's catalogue says what undoes it."""


class StatusPlan(Part):
    """Where the service can be asked how an execute went, and for how long it is asked."""

    kind = "status"
    path: ServicePath
    """A path of the service, asked with GET."""
    budget: Annotated[timedelta, Between("1ms", "7d")] | None = None
    """For how long it is asked; then the outcome counts as unknown."""


class PinnedCall(Part):
    """How a compensation of the catalogue is tried; where it goes is looked up at each call."""

    kind = "pinned compensation"
    timeout: CallTimeout | None = None
    """How long one call may take."""
    retry: Retry | None = None
    """How it is tried again."""


PINNED_NO_EFFECT = PinnedCall.model_construct()
"""What a pinned `compensate: none` reads as."""


def _read_pinned(value: object) -> object:
    return PINNED_NO_EFFECT if value == "none" else value


class PinnedStatus(Part):
    """That the action can be asked how it went, and for how long it is asked."""

    kind = "pinned status"
    budget: Annotated[timedelta, Between("1ms", "7d")] | None = None
    """For how long it is asked; then the outcome counts as unknown."""


class Pinned(Part):
    """What the catalogue said of the action when this document was registered.

    Written by registration. Workflows that run keep it, whatever becomes of the catalogue.
    """

    kind = "pinned"
    catalogue: Annotated[int, Field(ge=0, le=MOST_VERSIONS)]
    """The version of the service's catalogue."""
    compensate: (
        Annotated[PinnedCall, BeforeValidator(_read_pinned), Short(words=("none",))] | None
    ) = None
    """What undoes it; `none`: there is nothing to undo. Left out: it cannot be undone."""
    status: PinnedStatus | None = None
    """Whether it can be asked how it went."""
    timeout: CallTimeout | None = None
    """How long one call may take."""
    retry: Retry | None = None
    """How it is tried again."""
    callback_timeout: CallbackTimeout | None = None
    """How long the service may take to call back after it answered 202."""
