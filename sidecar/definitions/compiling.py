"""From a document to a `Definition`, by way of everything that can be wrong with it.

Three checks look at the same plain data, each as far as it gets: the models (shape), the
graph (order), the templates (expressions). All that they find is told at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from sidecar.definitions.documents import (
    MAX_BYTES,
    Document,
    canonical,
    digest,
    format_of,
    read_document,
    walk,
)
from sidecar.definitions.findings import Findings, Path, sentence
from sidecar.definitions.graph import check_graph
from sidecar.definitions.model import (
    ENDLESS,
    LATER,
    MAX_STEPS,
    NO_EFFECT,
    UNSUPPORTED,
    Call,
    CompensationPlan,
    DefinitionModel,
    Part,
    Retry,
    Step,
)
from sidecar.definitions.templates import CEL, TemplateCompiler, Visible
from sidecar.errors import DefinitionError
from sidecar.saga.definition import (
    DEFAULT_TIMEOUT,
    Compensation,
    Definition,
    JsonText,
    StepDefinition,
    Template,
)
from sidecar.saga.policy import COMPENSATION_DEFAULT, FORWARD_DEFAULT, RetryPolicy


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
    return Definition(
        name=name,
        version=version,
        steps=compiled.steps,
        namespace=namespace,
        timeout=compiled.timeout,
    )


def _compile(document: Document, namespace: str, version: int) -> Definition:
    findings = Findings(document.positions)
    raw = document.value
    if not isinstance(raw, dict):
        raise DefinitionError([("", "must be a mapping with `name` and `steps`")])
    model = _check_shape(raw, findings)
    templates: dict[Path, Template] = {}
    steps = raw.get("steps")
    if isinstance(steps, list) and len(steps) <= MAX_STEPS:
        ancestors = check_graph(steps, findings)
        compiler = TemplateCompiler(document, findings, CEL)
        templates = _compile_templates(steps, ancestors, compiler)
    findings.check()
    if model is None:  # an unreadable model always leaves a finding
        raise DefinitionError([("", "cannot be read, for a reason that was not told")])
    return Definition(
        name=model.name,
        version=version,
        steps=tuple(_step(step, index, model, templates) for index, step in enumerate(model.steps)),
        namespace=namespace,
        timeout=model.timeout,
    )


# -- shape ------------------------------------------------------------------------------------

_MODELS: dict[str, type[Part]] = {
    "execute": Call,
    "compensate": Call,
    "retry": Retry,
    "compensation": CompensationPlan,
}


def _check_shape(raw: Any, findings: Findings) -> DefinitionModel | None:
    # `timeout:` with nothing after it is a slip, not a wish for the default.
    empty = {path for path, value in walk(raw) if value is None and _means_nothing(path)}
    for path in sorted(empty, key=str):
        findings.add(path, "is empty; give it a value or leave it out")
    try:
        model = DefinitionModel.model_validate(raw)
    except ValidationError as error:
        for one in error.errors(include_url=False, include_input=False):
            if one["loc"] not in empty:
                _add(one, raw, findings)
        return None
    for index, step in enumerate(model.steps):
        _check_step(step, ("steps", index), findings)
    return model


def _means_nothing(path: Path) -> bool:
    """Whether null may not stand at `path`: it may in inputs, and where it means "no end"."""
    inside_input = "input" in path[:-1] and path[0] == "steps"
    no_end = len(path) > 1 and path[-2] == "retry" and path[-1] in ENDLESS
    return not inside_input and not no_end


def _existing(path: Path, raw: Any) -> Path:
    """The path without the key that a bare `/path` has only in the model."""
    for length, part in enumerate(path):
        if isinstance(raw, str):
            return path[:length]
        if isinstance(raw, dict):
            raw = raw.get(part)
        elif isinstance(raw, list) and isinstance(part, int):
            raw = raw[part]
    return path


def _add(error: ErrorDetails, raw: Any, findings: Findings) -> None:
    path = _existing(tuple(error["loc"]), raw)
    if error["type"] != "extra_forbidden":
        findings.add(path, sentence(error))
        return
    model, key = _model_at(path[:-1]), str(path[-1])
    if (words := UNSUPPORTED.get(model.kind, {}).get(key)) is not None:
        what, _, instead = words.partition("; ")
        findings.add(path, f"{what} {LATER}{f'; {instead}' if instead else ''}")
    else:
        findings.add_unknown(path, "there is no key", key, model.model_fields)


def _model_at(path: Path) -> type[Part]:
    """The model of the mapping that stands at `path`."""
    if not path:
        return DefinitionModel
    if isinstance(path[-1], int):
        return Step
    return _MODELS[path[-1]]


def _check_step(step: Step, path: Path, findings: Findings) -> None:
    """What the models cannot say: keys that exclude each other, policies in disorder."""
    for key in ("input", "timeout", "retry", "on_status"):
        if key in step.model_fields_set and key in step.execute.model_fields_set:
            findings.add((*path, "execute", key), f"`{key}` is given for the step too; keep one")
    policies: list[tuple[Path, Retry | None, RetryPolicy]] = [
        ((*path, "retry"), step.retry, FORWARD_DEFAULT),
        ((*path, "execute", "retry"), step.execute.retry, FORWARD_DEFAULT),
    ]
    if step.compensate is not None and step.compensate is not NO_EFFECT:
        where = (*path, "compensate", "retry")
        policies.append((where, step.compensate.retry, COMPENSATION_DEFAULT))
    for where, retry, default in policies:
        if retry is not None and (text := retry.disorder(default)) is not None:
            findings.add(where, text)


# -- templates --------------------------------------------------------------------------------


def _compile_templates(
    steps: list[Any],
    ancestors: Mapping[str, frozenset[str]] | None,
    compiler: TemplateCompiler,
) -> dict[Path, Template]:
    """Compile all inputs. Without an order (None) every step counts as seen by every other."""
    names = [step.get("name") for step in steps if isinstance(step, dict)]
    known = frozenset(name for name in names if isinstance(name, str))
    compiled: dict[Path, Template] = {}
    for index, step in enumerate(steps):
        if not isinstance(step, dict):
            continue
        name = step.get("name")
        name = name if isinstance(name, str) else f"steps[{index}]"
        before = known if ancestors is None else ancestors.get(name, known)
        forward = Visible(name, before, known)
        backward = Visible(name, before | {name}, known)
        for keys, visible in (
            (("input",), forward),
            (("execute", "input"), forward),
            (("compensate", "input"), backward),
        ):
            holder = step if len(keys) == 1 else step.get(keys[0])
            if isinstance(holder, dict) and holder.get("input") is not None:
                path: Path = ("steps", index, *keys)
                compiled[path] = compiler.compile(holder["input"], path, visible)
    return compiled


# -- the definition ---------------------------------------------------------------------------


def _step(
    step: Step, index: int, model: DefinitionModel, templates: Mapping[Path, Template]
) -> StepDefinition:
    above = () if index == 0 else (model.steps[index - 1].name,)
    path: Path = ("steps", index)
    call = step.execute
    retry = step.retry or call.retry
    return StepDefinition(
        name=step.name,
        service=step.service,
        path=call.path,
        after=above if step.after is None else tuple(step.after),
        method=call.method,
        timeout=_timeout(step.timeout or call.timeout),
        retry=retry.over(FORWARD_DEFAULT) if retry else FORWARD_DEFAULT,
        compensation=_compensation(step, (*path, "compensate"), templates),
        no_effect=step.compensate is NO_EFFECT,
        pivot=step.pivot,
        input=templates.get((*path, "input")) or templates.get((*path, "execute", "input")),
        on_status=step.on_status or call.on_status,
    )


def _compensation(
    step: Step, path: Path, templates: Mapping[Path, Template]
) -> Compensation | None:
    call = step.compensate
    if call is None or call is NO_EFFECT:
        return None
    return Compensation(
        path=call.path,
        method=call.method,
        timeout=_timeout(call.timeout),
        retry=call.retry.over(COMPENSATION_DEFAULT) if call.retry else COMPENSATION_DEFAULT,
        input=templates.get((*path, "input")),
        on_status=call.on_status,
    )


def _timeout(given: timedelta | None) -> timedelta:
    return DEFAULT_TIMEOUT if given is None else given
