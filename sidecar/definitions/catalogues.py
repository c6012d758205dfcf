"""Catalogues: the actions that a service offers, as the configuration of its sidecars names them.

An action says where it is done and undone, and how both are tried, in the words of a step of a
definition. Its sidecar publishes the whole catalogue under the hash of its canonical form, in
which the same span of time is always written alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from sidecar.definitions.calls import (
    NO_EFFECT,
    Call,
    CallbackTimeout,
    CallTimeout,
    Compat,
    Method,
    OnStatus,
    Part,
    Retry,
    StatusPlan,
    meanings,
    read_path,
)
from sidecar.definitions.documents import MAX_BYTES, canonical, read_document, walk
from sidecar.definitions.durations import duration_text
from sidecar.definitions.findings import Findings, Path, shown
from sidecar.definitions.names import Name, check_name
from sidecar.definitions.rates import RatePlan
from sidecar.definitions.shape import means_no_end, tell
from sidecar.saga.definition import JsonText, StepDefinition
from sidecar.saga.policy import COMPENSATION_DEFAULT, FORWARD_DEFAULT, RetryPolicy
from sidecar.saga.states import Action

MOST_ACTIONS = 1_000


def _read_compensate(value: object) -> object:
    return NO_EFFECT if value == "none" else read_path(value)


class Target(NamedTuple):
    """Where a call of an action goes, and what its answers mean there."""

    path: str
    method: str = "POST"
    on_status: tuple[tuple[int, str], ...] = ()


class ActionPlan(Part):
    """One action of a catalogue."""

    kind = "action"
    execute: Annotated[Call, BeforeValidator(read_path)]
    """What does it: a path of the service, or a mapping with more to say."""
    compensate: Annotated[Call, BeforeValidator(_read_compensate)] | None = None
    """What undoes it; `none`: there is nothing to undo. Left out: it cannot be undone."""
    status: Annotated[StatusPlan, BeforeValidator(read_path)] | None = None
    """Where the service can be asked how an execute went whose outcome is unknown."""
    method: Method | None = None
    """The HTTP method of `execute`."""
    timeout: CallTimeout | None = None
    """How long one call may take."""
    retry: Retry | None = None
    """How `execute` is tried again."""
    on_status: OnStatus = ()
    """HTTP statuses that mean something else than usual."""
    compat: Compat | None = None
    """The convention by which the service answers, to both calls, if it is not the usual one."""
    callback_timeout: CallbackTimeout | None = None
    """How long the service may take to call back after it answered 202."""
    rate_limit: RatePlan | None = None
    """How often the path of `execute` may be called, over all replicas."""

    def target(self, action: Action) -> Target | None:
        """Where the call goes; None if the service offers no such thing for this action."""
        match action:
            case Action.EXECUTE:
                call = self.execute
                method, own = self.method or call.method, self.on_status or call.on_status
                return Target(call.path, method, meanings(self.compat, own))
            case Action.COMPENSATE:
                undo = self.compensate
                if undo is None or undo is NO_EFFECT:
                    return None
                return Target(undo.path, undo.method, meanings(self.compat, undo.on_status))
            case Action.STATUS:
                return None if self.status is None else Target(self.status.path, "GET")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The actions of one service by name; version 0 is one that was not published."""

    actions: Mapping[str, ActionPlan] = field(default_factory=dict)
    version: int = 0

    def document(self) -> JsonText:
        """The canonical form: the same for the same actions, however they were written."""
        return canonical({name: plain(plan) for name, plan in self.actions.items()})


def nothing_to_undo(step: StepDefinition, plan: ActionPlan | None) -> bool:
    """Whether a step that was registered before its action was known turns out to need no undoing.

    One whose action was known keeps what was pinned of it.
    """
    return step.catalogue is None and plan is not None and plan.compensate is NO_EFFECT


def not_offered(step: StepDefinition, action: Action, plan: ActionPlan | None) -> str:
    """Say that a catalogue tells nothing of a call of a step, and what can be done about it."""
    has = f"the catalogue of {step.service} has"
    deploy = f"deploy sidecars of {step.service} that offer it"
    match action:
        case Action.EXECUTE:
            return f"{has} no action {step.action}; {deploy}, or cancel the workflow"
        case Action.STATUS:
            return f"{has} no status path for {step.action}; {deploy}, or resolve the step"
        case Action.COMPENSATE:
            what = f"{has} nothing that undoes {step.action}"
            if plan is not None and plan.compensate is NO_EFFECT:
                what = (
                    f"{has} `compensate: none` for {step.action}, but the definition of this "
                    "workflow was registered when it had to be undone"
                )
            return f"{what}; {deploy}, or undo it by hand and say so: `goconductor resolve`"


_ACTIONS = TypeAdapter(dict[Name, ActionPlan])


def read_actions(raw: Any, findings: Findings, at: Path = ("actions",)) -> Catalogue:
    """Read plain data as a catalogue; what is wrong with it stands in `findings`, below `at`."""
    if not isinstance(raw, dict):
        findings.add(
            at, "must be a mapping of names to actions, like {charge: {execute: /charges}}"
        )
        return Catalogue()
    if len(raw) > MOST_ACTIONS:
        findings.add(at, f"holds more than {MOST_ACTIONS} actions")
        return Catalogue()
    empty = {path for path, value in walk(raw) if value is None and not means_no_end(path)}
    for path in sorted(empty, key=str):
        findings.add((*at, *path), "is empty; give it a value or leave it out")
    try:
        actions = _ACTIONS.validate_python(raw)
    except ValidationError as error:
        for one in error.errors(include_url=False, include_input=False):
            if one["loc"][-1] == "[key]":
                findings.add((*at, *one["loc"][:-1]), _name_fault(one["loc"][0]))
            elif one["loc"] not in empty:
                tell(one, raw, findings, _model_at, owner=ActionPlan, at=at)
        return Catalogue()
    for name, plan in actions.items():
        _check(plan, (*at, name), findings)
    found = Catalogue(actions)
    if too_large(found.document()):
        # What is published is what is read again, by the same limit.
        findings.add(
            at,
            f"is larger than {MAX_BYTES // 1024} KiB when it is written as JSON; take out what "
            "nobody uses, or split the service",
        )
    return found


def too_large(document: JsonText) -> bool:
    """Whether a catalogue is larger than can be read."""
    return len(document.encode()) > MAX_BYTES


def stored_catalogue(document: JsonText, version: int) -> Catalogue:
    """Read a catalogue that was published.

    Raises `DefinitionError` if a version of this program that knew more has published it.
    """
    findings = Findings()
    found = read_actions(read_document(document, "json").value, findings)
    findings.check()
    return Catalogue(found.actions, version)


def plain(part: Part) -> dict[str, Any]:
    """What is given in a mapping, as plain data; spans of time in their shortest writing."""
    return {
        name: _plain(getattr(part, name))
        for name in type(part).model_fields
        if name in part.model_fields_set
    }


def _plain(value: Any) -> Any:
    if value is NO_EFFECT:
        return "none"
    if isinstance(value, Part):
        return plain(value)
    if isinstance(value, timedelta):
        return duration_text(value)
    if isinstance(value, tuple):  # `on_status`
        return {str(status): word for status, word in value}
    return value


_MODELS: dict[str | int, type[Part]] = {
    "execute": Call, "compensate": Call, "retry": Retry, "status": StatusPlan,
    "rate_limit": RatePlan,
}  # fmt: skip


def _model_at(path: Path) -> type[Part]:
    return ActionPlan if len(path) == 1 else _MODELS[path[-1]]


def _name_fault(name: str | int) -> str:
    try:
        check_name(str(name))
    except ValueError as error:
        return str(error)
    return f"cannot be the name of an action: {shown(str(name))}"


def _check(plan: ActionPlan, path: Path, findings: Findings) -> None:
    """What the models cannot say: keys that exclude each other, policies in disorder."""
    for key in ("method", "timeout", "retry", "on_status"):
        if key in plan.model_fields_set and key in plan.execute.model_fields_set:
            findings.add((*path, "execute", key), f"`{key}` is given for the action too; keep one")
    policies: list[tuple[Path, Retry | None, RetryPolicy]] = [
        ((*path, "retry"), plan.retry, FORWARD_DEFAULT),
        ((*path, "execute", "retry"), plan.execute.retry, FORWARD_DEFAULT),
    ]
    calls: dict[str, Call] = {"execute": plan.execute}
    if plan.compensate is not None and plan.compensate is not NO_EFFECT:
        calls["compensate"] = plan.compensate
        where = (*path, "compensate", "retry")
        policies.append((where, plan.compensate.retry, COMPENSATION_DEFAULT))
    for key, call in calls.items():
        if "input" in call.model_fields_set:
            findings.add((*path, key, "input"), "belongs to definitions; leave it out")
    for where, retry, default in policies:
        if retry is not None and (text := retry.disorder(default)) is not None:
            findings.add(where, text)
