"""The shape of a definition, as pydantic models: which keys there are and what they may hold.

Every key that is not here is refused. Keys that belong to the language of definitions but
that this version does not run are refused with words of their own (`UNSUPPORTED`).
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from sidecar.definitions.durations import Between, duration_text
from sidecar.saga.paths import path_fault
from sidecar.saga.policy import RetryPolicy

MAX_STEPS = 1_000
MAX_NAME = 63
MAX_PATH = 1_024

LATER = "is not supported yet in this version"

UNSUPPORTED: dict[str, dict[str, str]] = {
    "definition": {
        "input": "`input` (a JSON Schema of the input)",
        "output": "`output`",
        "concurrency": "`concurrency`",
        "labels": "`labels`",
    },
    "step": {
        "action": "`action` (a catalogue); write `execute` and `compensate` with paths",
        "when": "`when`",
        "for_each": "`for_each`",
        "max_parallel": "`max_parallel`",
        "wait": "`wait`",
        "workflow": "`workflow` (a child)",
        "optional": "`optional`",
        "status": "`status` (a status path)",
        "callback_timeout": "`callback_timeout`",
        "compat": "`compat`",
    },
    "call": {
        "status": "`status` (a status path)",
        "callback_timeout": "`callback_timeout`",
        "compat": "`compat`",
    },
}
"""For each kind of mapping the keys of the language that this version refuses, in words."""

_NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
_SERVICE = re.compile(r"[a-z][a-z0-9_-]*", re.ASCII)
_PATH = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]*(\?[A-Za-z0-9\-._~!$&'()*+,;=:@%/?]*)?")
_ENCODED = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HIDDEN = re.compile("%(2f|5c|0[0-9a-f]|1[0-9a-f])", re.IGNORECASE)

STATUS_WORDS = ("done", "refused", "unknown", "busy", "not_now", "misconfigured")


def check_name(name: str) -> str:
    """A name of a definition or step. Raises `ValueError` with a sentence for people."""
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise ValueError(
            "must begin with a letter a-z and hold only a-z, 0-9 and _ "
            f"(at most {MAX_NAME} characters), like order_processing"
        )
    return name


def check_service(name: str) -> str:
    """A name of a service. Raises `ValueError` with a sentence for people."""
    if not _SERVICE.fullmatch(name) or len(name) > MAX_NAME:
        raise ValueError(
            "must begin with a letter a-z and hold only a-z, 0-9, _ and - "
            f"(at most {MAX_NAME} characters), like payments"
        )
    return name


def check_path(path: str) -> str:
    """A path of a service, never a host. Raises `ValueError` with a sentence for people."""
    if "://" in path or path.startswith("//"):
        raise ValueError("must be a path like /charges; hosts belong to the sidecar's service_url")
    if "${" in path:
        raise ValueError("cannot hold an expression; put what varies into `input`")
    if not path.startswith("/"):
        raise ValueError("must begin with /, like /charges")
    if len(path) > MAX_PATH:
        raise ValueError(f"is too long; at most {MAX_PATH} characters")
    if not _PATH.fullmatch(path) or _ENCODED.search(path):
        raise ValueError(
            "holds a character that a path cannot have (a space, a control character, "
            "#, a backslash, or not ASCII); percent-encode it"
        )
    if _HIDDEN.search(path) or path_fault(path) is not None:
        raise ValueError("must not hold `.`, `..` or encoded slashes; write the path out")
    return path


Name = Annotated[str, AfterValidator(check_name)]
ServiceName = Annotated[str, AfterValidator(check_service)]
ServicePath = Annotated[str, AfterValidator(check_path)]
CallTimeout = Annotated[timedelta, Between("1ms", "1d")]
Method = Literal["POST", "PUT", "PATCH", "DELETE"]


def _read_statuses(value: object) -> object:
    """`on_status`: its keys are text in JSON and numbers in YAML; both mean a status."""
    if not isinstance(value, dict):
        raise ValueError("must be a mapping like {409: refused}")  # noqa: TRY004
    read: list[tuple[int, str]] = []
    for key, word in value.items():
        if not re.fullmatch("[2-5][0-9][0-9]", str(key), re.ASCII):
            raise ValueError("its keys must be HTTP statuses from 200 to 599, like 409")
        if word == "pending":
            raise ValueError(f"`pending` (callbacks) {LATER}")
        if word not in STATUS_WORDS:
            raise ValueError(f"its values must be one of: {', '.join(STATUS_WORDS)}")
        read.append((int(key), word))
    return tuple(sorted(read))


OnStatus = Annotated[tuple[tuple[int, str], ...], BeforeValidator(_read_statuses)]


ENDLESS = ("max_attempts", "total_budget")
"""The keys of `retry` for which null means "without end"."""


class Part(BaseModel):
    """What all mappings of a definition share: nothing unknown, nothing converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    kind: ClassVar[str] = ""


class Retry(Part):
    """How an action is retried; what is left out comes from the action's default."""

    kind = "retry"
    max_attempts: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    initial_interval: Annotated[timedelta, Between("1ms", "1d")] | None = None
    backoff_coefficient: Annotated[float, Field(ge=1, le=100)] | None = None
    max_interval: Annotated[timedelta, Between("1ms", "7d")] | None = None
    jitter: Annotated[float, Field(ge=0, le=1)] | None = None
    total_budget: Annotated[timedelta, Between("1ms", "366d")] | None = None

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


def _read_call(value: object) -> object:
    """A bare path is short for a mapping with nothing but a path."""
    if value == "from_catalogue":
        raise ValueError(f"`from_catalogue` {LATER}; write the path")
    return {"path": value} if isinstance(value, str) else value


class Call(Part):
    """A call of the service: `/path`, or a mapping with more to say about it."""

    kind = "call"
    path: ServicePath
    method: Method = "POST"
    input: Any = None
    timeout: CallTimeout | None = None
    retry: Retry | None = None
    on_status: OnStatus = ()


NO_EFFECT = Call.model_construct(path="none")
"""What `compensate: none` reads as: there is nothing to undo."""


def _read_compensate(value: object) -> object:
    return NO_EFFECT if value == "none" else _read_call(value)


def _read_after(value: object) -> object:
    if isinstance(value, str):
        raise ValueError(f"must be a list; write [{value[:MAX_NAME]}]")  # noqa: TRY004
    return value


def _read_join(value: object) -> object:
    if value == "any":
        raise ValueError(f"`any` {LATER}")
    return value


class Step(Part):
    """One step: a call of a service."""

    kind = "step"
    name: Name
    service: ServiceName
    execute: Annotated[Call, BeforeValidator(_read_call)]
    compensate: Annotated[Call, BeforeValidator(_read_compensate)] | None = None
    after: Annotated[list[str], BeforeValidator(_read_after)] | None = None
    join: Annotated[Literal["all"], BeforeValidator(_read_join)] = "all"
    timeout: CallTimeout | None = None
    retry: Retry | None = None
    pivot: bool = False
    input: Any = None
    on_status: OnStatus = ()


def _read_mode(value: object) -> object:
    if value == "central":
        raise ValueError(f"`central` {LATER}")
    return value


def _read_order(value: object) -> object:
    if value in ("sequential", "parallel"):
        raise ValueError(f"`{value}` {LATER}")
    return value


class CompensationPlan(Part):
    """How the workflow is rolled back; this version knows one way."""

    kind = "compensation"
    mode: Annotated[Literal["service"], BeforeValidator(_read_mode)] = "service"
    order: Annotated[Literal["reverse"], BeforeValidator(_read_order)] = "reverse"


class DefinitionModel(Part):
    """A whole document."""

    kind = "definition"
    name: Name
    steps: Annotated[list[Step], Field(min_length=1, max_length=MAX_STEPS)]
    timeout: Annotated[timedelta, Between("1ms", "366d")] | None = None
    compensation: CompensationPlan = CompensationPlan()
