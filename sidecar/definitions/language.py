"""The language of definitions as a JSON Schema, for editors and other tools.

It is made from the models, so it knows every key with its bounds. What the models leave to
`kinds` (which keys belong together) is added here. References, expressions and the order of
steps are beyond it: a document that fits the schema may still be refused, with a reason.
"""

from __future__ import annotations

import ast
import inspect
from typing import Any

from sidecar.definitions import calls
from sidecar.definitions import model as models
from sidecar.definitions.calls import ENDLESS
from sidecar.definitions.kinds import CHILD_KEYS, FAN_OUT_KEYS, WAIT_KEYS, WAITS_FOR
from sidecar.definitions.model import DefinitionModel
from sidecar.definitions.schema_graph import DIALECT


def language_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a definition, as plain data."""
    made = DefinitionModel.model_json_schema(by_alias=True)
    parts: dict[str, Any] = made.pop("$defs")
    rules: dict[str, dict[str, Any]] = {
        "Step": {
            "oneOf": [
                _call("execute", "action", "pinned"),
                _call("action", "execute"),
                _only("wait", WAIT_KEYS),
                _only("workflow", CHILD_KEYS),
            ],
            "dependentRequired": {key: ["for_each"] for key in FAN_OUT_KEYS},
        },
        "WaitPlan": {
            "oneOf": [{"required": [key]} for key in WAITS_FOR],
            "dependentRequired": {"timeout": ["signal"]},
        },
    }
    told = _told()
    for name, part in parts.items():
        parts[name] = {**_tidied(part, told[name]), **rules.get(name, {})}
    whole = _tidied(made, told[DefinitionModel.__name__])
    parts = {name: parts[name] for name in _used(whole, parts)}
    return {"$schema": DIALECT, "title": "A GoConductor definition", **whole, "$defs": parts}


def _call(what: str, *others: str) -> dict[str, Any]:
    excluded = [{"required": [key]} for key in ("wait", "workflow", *others)]
    return {"required": ["service", what], "not": {"anyOf": excluded}}


def _only(key: str, keys: frozenset[str]) -> dict[str, Any]:
    return {"required": [key], "propertyNames": {"enum": sorted(keys)}}


def _told() -> dict[str, dict[str, str]]:
    """What the models say below each of their fields.

    Pydantic can look for it too, but only when a model is made, at every start of the program.
    """
    return {
        node.name: {
            field.target.id.rstrip("_"): text.value.value
            for field, text in zip(node.body, node.body[1:], strict=False)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
            if isinstance(text.value.value, str)
        }
        for module in (calls, models)
        for node in ast.parse(inspect.getsource(module)).body
        if isinstance(node, ast.ClassDef)
    }


def _tidied(part: dict[str, Any], told: dict[str, str]) -> dict[str, Any]:
    """A model's schema without its titles, and without null where null means nothing."""
    part = {key: value for key, value in part.items() if key != "title"}
    part["properties"] = {
        name: {**_property(name, value), "description": told[name]}
        for name, value in part["properties"].items()
    }
    return part


def _property(name: str, given: dict[str, Any]) -> dict[str, Any]:
    kept = {
        key: value
        for key, value in given.items()
        if key != "title" and not (key == "default" and value in (None, []))
    }
    forms = kept.get("anyOf")
    if forms and name not in ENDLESS:
        forms = [form for form in forms if form != {"type": "null"}]
        del kept["anyOf"]
        kept = {**forms[0], **kept} if len(forms) == 1 else {**kept, "anyOf": forms}
    return kept


def _used(whole: dict[str, Any], parts: dict[str, Any]) -> list[str]:
    """The parts that something refers to, in the order of their names."""
    found: set[str] = set()
    todo: list[Any] = [whole]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            name = str(one.get("$ref", "")).removeprefix("#/$defs/")
            if name in parts and name not in found:
                found.add(name)
                todo.append(parts[name])
            todo.extend(one.values())
        elif isinstance(one, list):
            todo.extend(one)
    return sorted(found)
