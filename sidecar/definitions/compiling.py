"""From a document to a `Definition`, by way of everything that can be wrong with it.

Several checks look at the same plain data, each as far as it gets: the models (`shape`), what
belongs together (`kinds`), the order (`graph`), the expressions (`scopes`), the JSON Schemas
(`schemas`). All that they find is told at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.definitions.calls import FROM_CATALOGUE, NO_EFFECT, PINNED_NO_EFFECT, Pinned, meanings
from sidecar.definitions.documents import (
    MAX_BYTES,
    Document,
    canonical,
    digest,
    format_of,
    read_document,
)
from sidecar.definitions.findings import Findings, Path
from sidecar.definitions.graph import check_graph
from sidecar.definitions.kinds import check_kinds
from sidecar.definitions.model import MAX_STEPS, DefinitionModel, Step
from sidecar.definitions.schemas import compile_schemas
from sidecar.definitions.scopes import compile_templates
from sidecar.definitions.shape import check_shape
from sidecar.definitions.templates import CEL, TemplateCompiler
from sidecar.errors import DefinitionError
from sidecar.saga.definition import (
    DEFAULT_CALLBACK_TIMEOUT,
    DEFAULT_PARALLEL,
    DEFAULT_STATUS_BUDGET,
    DEFAULT_TIMEOUT,
    BodyCheck,
    Child,
    Compensation,
    Concurrency,
    Definition,
    FanOut,
    Join,
    JsonText,
    Order,
    StatusCheck,
    StepDefinition,
    Template,
    Wait,
)
from sidecar.saga.policy import COMPENSATION_DEFAULT, FORWARD_DEFAULT


@dataclass(frozen=True, slots=True)
class ParsedDefinition:
    """A document found to be good. `digest` is the SHA-256 (hex) of `document`."""

    name: str
    document: JsonText
    digest: str


def parse_definition(text: bytes | str, content_type: str = "application/yaml") -> ParsedDefinition:
    """Read and check a document in YAML or JSON.

    `content_type` may be the bare words `yaml` and `json`. Raises `DefinitionError` with
    every problem.
    """
    document = read_document(text, format_of(content_type))
    definition = _compile(document, "default", 0)
    written = canonical(document.value)
    if len(written.encode()) > MAX_BYTES:
        # What is stored is what is read again, by the same limit.
        raise DefinitionError(
            [("", f"is larger than {MAX_BYTES // 1024} KiB when it is written as JSON; split it")]
        )
    return ParsedDefinition(definition.name, written, digest(written))


def compile_stored(document: JsonText, namespace: str, name: str, version: int) -> Definition:
    """Compile a canonical document that was parsed before.

    The stored name wins over the document's. Raises `DefinitionError` if a version of this
    program that knew more has stored it.
    """
    compiled = _compile(read_document(document, "json"), namespace, version)
    return dataclasses.replace(compiled, name=name)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What was compiled of a document, by the paths where it stands."""

    templates: Mapping[Path, Template]
    schemas: Mapping[Path, tuple[JsonText, BodyCheck]]


def _compile(document: Document, namespace: str, version: int) -> Definition:
    findings = Findings(document.positions)
    raw = document.value
    if not isinstance(raw, dict):
        raise DefinitionError([("", "must be a mapping with `name` and `steps`")])
    model = check_shape(raw, findings)
    templates: dict[Path, Template] = {}
    steps = raw.get("steps")
    if isinstance(steps, list) and len(steps) <= MAX_STEPS:
        check_kinds(raw, findings)
        ancestors = check_graph(steps, findings)
        templates = compile_templates(raw, ancestors, TemplateCompiler(document, findings, CEL))
    schemas = compile_schemas(raw, findings)
    findings.check()
    if model is None:  # an unreadable model always leaves a finding
        raise DefinitionError([("", "cannot be read, for a reason that was not told")])
    return _definition(model, _Parts(templates, schemas), namespace, version)


# -- the definition ---------------------------------------------------------------------------


def _definition(model: DefinitionModel, parts: _Parts, namespace: str, version: int) -> Definition:
    schema, check = parts.schemas.get(("input", "schema"), (None, None))
    return Definition(
        name=model.name,
        version=version,
        steps=tuple(_step(step, index, model, parts) for index, step in enumerate(model.steps)),
        namespace=namespace,
        timeout=model.timeout,
        output=parts.templates.get(("output",)),
        input_schema=schema,
        input_check=check,
        order=Order(model.compensation.order),
        central=model.compensation.mode == "central",
        concurrency=_concurrency(model, parts),
        priority=model.priority,
    )


def _concurrency(model: DefinitionModel, parts: _Parts) -> Concurrency | None:
    if (plan := model.concurrency) is None:
        return None
    return Concurrency(parts.templates["concurrency", "key"], plan.limit, plan.release_on_error)


def _step(step: Step, index: int, model: DefinitionModel, parts: _Parts) -> StepDefinition:
    above = () if index == 0 else (model.steps[index - 1].name,)
    path: Path = ("steps", index)
    templates = parts.templates
    schema, check = parts.schemas.get((*path, "output_schema"), (None, None))
    given: dict[str, Any] = {"output_schema": schema, "output_check": check}
    if step.execute is not None:
        call = step.execute
        retry = step.retry or call.retry
        given |= {
            "service": step.service,
            "path": call.path,
            "method": call.method,
            "timeout": step.timeout or call.timeout or DEFAULT_TIMEOUT,
            "retry": retry.over(FORWARD_DEFAULT) if retry else FORWARD_DEFAULT,
            "on_status": meanings(step.compat, step.on_status or call.on_status),
        }
    elif step.action is not None:
        given |= _offered(step, step.action)
    if step.execute is not None or step.action is not None:
        given["priority"] = model.priority if step.priority is None else step.priority
    if step.status is not None:
        budget = step.status.budget or DEFAULT_STATUS_BUDGET
        given["status_check"] = StatusCheck(step.status.path, budget)
    return StepDefinition(
        name=step.name,
        after=above if step.after is None else tuple(step.after),
        join=Join(step.join),
        when=templates.get((*path, "when")),
        optional=step.optional,
        wait=_wait(step, path, templates),
        fan_out=_fan_out(step, path, templates),
        # Which version is the newest is known at registration only: 0 stands for it here.
        child=Child(step.workflow, step.version or 0) if step.workflow else None,
        input=templates.get((*path, "input")) or templates.get((*path, "execute", "input")),
        compensation=_compensation(step, (*path, "compensate"), templates),
        no_effect=_has_no_effect(step),
        pivot=step.pivot,
        callback_timeout=step.callback_timeout
        or (step.pinned and step.pinned.callback_timeout)
        or DEFAULT_CALLBACK_TIMEOUT,
        concurrency=_step_concurrency(step, path, templates),
        **given,
    )


def _offered(step: Step, action: str) -> dict[str, Any]:
    """What the catalogue says of a step's action, as far as the step does not say it itself."""
    pinned = step.pinned or _NOT_PINNED
    retry = pinned.retry.over(FORWARD_DEFAULT) if pinned.retry else FORWARD_DEFAULT
    given: dict[str, Any] = {
        "service": step.service,
        "action": action,
        "catalogue": step.pinned.catalogue if step.pinned else None,
        "timeout": step.timeout or pinned.timeout or DEFAULT_TIMEOUT,
        "retry": step.retry.over(retry) if step.retry else retry,
        "on_status": meanings(step.compat, step.on_status),
    }
    if pinned.status is not None:
        given["status_check"] = StatusCheck("", pinned.status.budget or DEFAULT_STATUS_BUDGET)
    return given


_NOT_PINNED = Pinned(catalogue=0)


def _has_no_effect(step: Step) -> bool:
    """Whether there is never anything to undo."""
    if step.pinned is not None and step.compensate in (None, FROM_CATALOGUE):
        return step.pinned.compensate is PINNED_NO_EFFECT
    return step.compensate is NO_EFFECT or step.wait is not None


def _step_concurrency(
    step: Step, path: Path, templates: Mapping[Path, Template]
) -> Concurrency | None:
    if (plan := step.concurrency) is None:
        return None
    return Concurrency(templates[(*path, "concurrency", "key")], plan.limit)


def _wait(step: Step, path: Path, templates: Mapping[Path, Template]) -> Wait | None:
    if (plan := step.wait) is None:
        return None
    until = templates.get((*path, "wait", "until"))
    return Wait(plan.duration, until, plan.signal, plan.timeout)


def _fan_out(step: Step, path: Path, templates: Mapping[Path, Template]) -> FanOut | None:
    if step.for_each is None:
        return None
    return FanOut(
        items=templates[(*path, "for_each")],
        max_parallel=step.max_parallel or DEFAULT_PARALLEL,
        tolerated=step.tolerated_failures or 0,
    )


def _compensation(
    step: Step, path: Path, templates: Mapping[Path, Template]
) -> Compensation | None:
    call = step.compensate
    if step.action is not None and (call is None or call is FROM_CATALOGUE):
        return _offered_compensation(step)
    if call is None or call is NO_EFFECT:
        return None
    return Compensation(
        path=call.path,
        method=call.method,
        timeout=call.timeout or DEFAULT_TIMEOUT,
        retry=call.retry.over(COMPENSATION_DEFAULT) if call.retry else COMPENSATION_DEFAULT,
        input=templates.get((*path, "input")),
        on_status=meanings(step.compat, call.on_status),
    )


def _offered_compensation(step: Step) -> Compensation | None:
    """What the catalogue says; where none was known, what the step itself hopes for."""
    if step.pinned is None:
        undone = step.compensate is FROM_CATALOGUE
        return Compensation("", on_status=meanings(step.compat, ())) if undone else None
    pinned = step.pinned.compensate
    if pinned is None or pinned is PINNED_NO_EFFECT:
        return None
    return Compensation(
        path="",
        timeout=pinned.timeout or DEFAULT_TIMEOUT,
        retry=pinned.retry.over(COMPENSATION_DEFAULT) if pinned.retry else COMPENSATION_DEFAULT,
        on_status=meanings(step.compat, ()),
    )
