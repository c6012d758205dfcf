"""The shape of a definition, as pydantic models: which keys there are and what they may hold.

Every key that is not here is refused.

The text below a field says what it is for; `language` publishes it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from sidecar.definitions.calls import (
    FROM_CATALOGUE,
    NO_EFFECT,
    Call,
    CallbackTimeout,
    CallTimeout,
    Compat,
    OnStatus,
    Part,
    Pinned,
    PinnedCall,
    PinnedStatus,
    Retry,
    StatusPlan,
    read_call,
    read_path,
)
from sidecar.definitions.durations import Between
from sidecar.definitions.names import MAX_NAME, Name, ServiceName
from sidecar.definitions.shorthand import Short
from sidecar.saga.definition import MOST_ITEMS, MOST_PARALLEL
from sidecar.saga.priority import HIGHEST

MAX_STEPS = 1_000
MOST_AT_A_TIME = 100_000

_EXPRESSION = {"type": "string", "pattern": r"^\$\{[\s\S]*\}$"}


def _read_compensate(value: object) -> object:
    if value == "from_catalogue":
        return FROM_CATALOGUE
    return NO_EFFECT if value == "none" else read_path(value)


def _read_after(value: object) -> object:
    if isinstance(value, str):
        raise ValueError(f"must be a list; write [{value[:MAX_NAME]}]")  # noqa: TRY004
    return value


def _read_when(value: object) -> object:
    if not isinstance(value, (bool, str)):
        raise ValueError("must be one expression, like ${input.amount > 100}, or true or false")  # noqa: TRY004
    return value


def _read_items(value: object) -> object:
    if not isinstance(value, (list, str)):
        raise ValueError("must be one expression that gives a list, like ${input.lines}")  # noqa: TRY004
    if len(value) > MOST_ITEMS and isinstance(value, list):
        raise ValueError(f"holds more than {MOST_ITEMS} elements")
    return value


def _read_schema(value: object) -> object:
    if not isinstance(value, dict):
        raise ValueError("must be a JSON Schema: a mapping, like {type: object}")  # noqa: TRY004
    return value


Schema = Annotated[
    Any,
    BeforeValidator(_read_schema),
    WithJsonSchema({"$ref": "https://json-schema.org/draft/2020-12/schema"}),
]


Priority = Annotated[int, Field(ge=0, le=HIGHEST)]


class WaitPlan(Part):
    """A pause: for a span, until a moment, or for a signal. Exactly one of the three."""

    kind = "wait"
    duration: Annotated[timedelta, Between("1ms", "366d")] | None = None
    """How long to wait."""
    until: str | None = None
    """The moment to wait for: a time as RFC 3339, or an expression that gives one as text."""
    signal: Name | None = None
    """The signal to wait for; its body becomes the output of the step."""
    timeout: Annotated[timedelta, Between("1ms", "366d")] | None = None
    """How long to wait for the signal; then the step fails. Left out: without end."""


class StepTurnsPlan(Part):
    """Calls of this step with the same key take turns, in all workflows of this definition."""

    kind = "step_concurrency"
    key: str
    """What is the same for calls that take turns, like ${input.account} or ${each.item.shop}."""
    limit: Annotated[int, Field(ge=1, le=MOST_AT_A_TIME)] = 1
    """How many of them are under way at a time."""


class Step(Part):
    """One step: a call of a service (`execute` or `action`), a `wait`, or a child (`workflow`)."""

    kind = "step"
    name: Name
    """The name of the step, once in the definition."""
    service: ServiceName | None = None
    """The service that is called, through a sidecar beside it."""
    execute: Annotated[Call, BeforeValidator(read_call), Short("path")] | None = None
    """What does the step: a path of the service, or a mapping with more to say."""
    action: Name | None = None
    """In place of `execute`: an action that the service's catalogue offers."""
    compensate: (
        Annotated[
            Call,
            BeforeValidator(_read_compensate),
            Short("path", words=("none", "from_catalogue")),
        ]
        | None
    ) = None
    """What undoes it; `none`: there is nothing to undo; `from_catalogue`: what the catalogue says
    of the `action`. Left out: it cannot be undone; with an `action` what the catalogue says."""
    pinned: Pinned | None = None
    """What the catalogue said of the `action`; written when the document is registered."""
    after: Annotated[list[str], BeforeValidator(_read_after)] | None = None
    """The steps that must be over first; [] is none. Left out: the step above."""
    join: Literal["all", "any"] = "all"
    """Whether all steps in `after` must be over, or one that succeeded is enough."""
    when: (
        Annotated[
            bool | str,
            BeforeValidator(_read_when),
            WithJsonSchema({"oneOf": [{"type": "boolean"}, _EXPRESSION]}),
        ]
        | None
    ) = None
    """One expression that gives true or false; on false the step is skipped."""
    optional: bool = False
    """Whether the workflow goes on when this step fails."""
    for_each: (
        Annotated[
            str | list[Any],
            BeforeValidator(_read_items),
            WithJsonSchema({"oneOf": [_EXPRESSION, {"type": "array", "maxItems": MOST_ITEMS}]}),
        ]
        | None
    ) = None
    """One expression that gives a list (or a list): the step runs once for each element."""
    max_parallel: Annotated[int, Field(ge=1, le=MOST_PARALLEL)] | None = None
    """How many items of `for_each` are under way at a time."""
    tolerated_failures: Annotated[int, Field(ge=0, le=MOST_ITEMS)] | None = None
    """How many items of `for_each` may fail before the step does."""
    concurrency: StepTurnsPlan | None = None
    """Which calls of this step, or of its items, take turns. It does not belong to a child."""
    wait: WaitPlan | None = None
    """A pause in place of a call."""
    workflow: Name | None = None
    """The definition that a child of this workflow runs, in place of a call."""
    version: Annotated[int, Field(ge=1)] | None = None
    """The version of `workflow`. Left out: the newest when this definition is registered."""
    input: Any = None
    """What `execute` is sent. Left out: the workflow's input, or the element of `for_each`."""
    timeout: CallTimeout | None = None
    """How long one call may take."""
    retry: Retry | None = None
    """How `execute` is tried again."""
    on_status: OnStatus = ()
    """HTTP statuses that mean something else than usual."""
    compat: Compat | None = None
    """The convention by which the service answers, to `execute` and `compensate`, if it is not
    that of GoConductor."""
    status: Annotated[StatusPlan, BeforeValidator(read_path), Short("path")] | None = None
    """Where the service can be asked how an execute went whose outcome is unknown."""
    callback_timeout: CallbackTimeout | None = None
    """How long the service may take to call back after it answered 202."""
    output_schema: Schema | None = None
    """A JSON Schema (2020-12) that the step's output must satisfy."""
    pivot: bool = False
    """The point of no return: from its claim on the workflow only goes forward."""
    priority: Priority | None = None
    """Of calls that wait for a sidecar, those with a higher one come first. Left out: as all."""


class CompensationPlan(Part):
    """How the workflow is rolled back."""

    kind = "compensation"
    mode: Literal["service", "central"] = "service"
    """`central` wants every compensation named, and watches open rollbacks closely."""
    order: Literal["reverse", "sequential", "parallel"] = "reverse"
    """`reverse`: a step after all that depended on it; `sequential`: one by one; `parallel`."""


class InputPlan(Part):
    """What a workflow may be started with."""

    kind = "input"
    schema_: Annotated[Schema, Field(alias="schema")]
    """A JSON Schema (2020-12) that the workflow's input must satisfy."""


class ConcurrencyPlan(Part):
    """Workflows with the same key take turns."""

    kind = "concurrency"
    key: str
    """What is the same for workflows that take turns, like ${input.account}."""
    limit: Annotated[int, Field(ge=1, le=MOST_AT_A_TIME)] = 1
    """How many of them run at a time."""
    release_on_error: bool = False
    """Whether one in `error` lets the next one begin."""


class DefinitionModel(Part):
    """A workflow: a graph of steps that ends all done or all undone."""

    kind = "definition"
    name: Name
    """The name of the definition."""
    input: InputPlan | None = None
    """What a workflow may be started with."""
    timeout: Annotated[timedelta, Between("1ms", "366d")] | None = None
    """From the start of the workflow to its end; then it turns back. Left out: without end."""
    steps: Annotated[list[Step], Field(min_length=1, max_length=MAX_STEPS)]
    """The steps."""
    output: Any = None
    """The output of a completed workflow; expressions see all steps."""
    compensation: CompensationPlan = CompensationPlan()
    """How the workflow is rolled back."""
    concurrency: ConcurrencyPlan | None = None
    """Which workflows take turns."""
    priority: Priority = 0
    """Of workflows and of calls that wait, those with a higher priority come first."""


MODELS: dict[str, type[Part]] = {
    "execute": Call,
    "compensate": Call,
    "retry": Retry,
    "status": StatusPlan,
    "wait": WaitPlan,
    "compensation": CompensationPlan,
    "input": InputPlan,
    "concurrency": ConcurrencyPlan,
}
"""The models of mappings by the keys they stand under."""

PINNED: dict[str, type[Part]] = {
    "pinned": Pinned,
    "compensate": PinnedCall,
    "status": PinnedStatus,
    "retry": Retry,
}
"""The same for `pinned` and what stands in it."""
