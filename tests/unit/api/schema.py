"""The part of JSON Schema 2020-12 that our OpenAPI document uses, as a checker.

A keyword that is not known here fails the test, so nothing is passed over in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}
_SAYS_NOTHING = {"title", "description", "default", "examples", "example"}


def problems(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "$") -> list[str]:
    """Return what is wrong with `value`."""
    if "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return problems(value, target, root, at)
    found: list[str] = []
    for keyword, wanted in schema.items():
        if keyword not in _SAYS_NOTHING:
            found += _CHECKS[keyword](value, wanted, schema, root, at)
    return found


def _type(value: Any, wanted: Any, *_: Any) -> list[str]:
    at = _[-1]
    return [] if _TYPES[wanted](value) else [f"{at}: {value!r} is no {wanted}"]


def _one_of(value: Any, wanted: Any, _schema: Any, _root: Any, at: str) -> list[str]:
    return [] if value in wanted else [f"{at}: {value!r} is none of {wanted}"]


def _const(value: Any, wanted: Any, _schema: Any, _root: Any, at: str) -> list[str]:
    return [] if value == wanted else [f"{at}: {value!r} is not {wanted!r}"]


def _any_of(value: Any, wanted: Any, _schema: Any, root: Any, at: str) -> list[str]:
    each = [problems(value, one, root, at) for one in wanted]
    return [] if any(not one for one in each) else [text for one in each for text in one]


def _required(value: Any, wanted: Any, _schema: Any, _root: Any, at: str) -> list[str]:
    return [
        f"{at}: {name} is missing"
        for name in wanted
        if isinstance(value, dict) and name not in value
    ]


def _properties(value: Any, wanted: Any, _schema: Any, root: Any, at: str) -> list[str]:
    return [
        text
        for name, schema in wanted.items()
        if isinstance(value, dict) and name in value
        for text in problems(value[name], schema, root, f"{at}.{name}")
    ]


def _additional(value: Any, wanted: Any, schema: Any, root: Any, at: str) -> list[str]:
    if not isinstance(value, dict):
        return []
    others = [name for name in value if name not in schema.get("properties", {})]
    if wanted is False:
        return [f"{at}: {name} is not in the schema" for name in others]
    if wanted is True:
        return []
    return [text for name in others for text in problems(value[name], wanted, root, at)]


def _items(value: Any, wanted: Any, _schema: Any, root: Any, at: str) -> list[str]:
    if not isinstance(value, list):
        return []
    return [
        text
        for index, one in enumerate(value)
        for text in problems(one, wanted, root, f"{at}[{index}]")
    ]


def _format(value: Any, wanted: Any, _schema: Any, _root: Any, at: str) -> list[str]:
    assert wanted == "date-time"
    if not (isinstance(value, str) and value.endswith("Z") and len(value) == 27):
        return [f"{at}: {value!r} is not a time in UTC with microseconds"]
    datetime.fromisoformat(value)
    return []


def _bound(ok: Callable[[Any, Any], bool]) -> Callable[..., list[str]]:
    def check(value: Any, wanted: Any, _schema: Any, _root: Any, at: str) -> list[str]:
        return [] if ok(value, wanted) else [f"{at}: {value!r} is out of bounds ({wanted})"]

    return check


_CHECKS: dict[str, Callable[..., list[str]]] = {
    "type": _type,
    "enum": _one_of,
    "const": _const,
    "anyOf": _any_of,
    "required": _required,
    "properties": _properties,
    "additionalProperties": _additional,
    "items": _items,
    "format": _format,
    "minimum": _bound(lambda value, bound: value >= bound),
    "exclusiveMaximum": _bound(lambda value, bound: value < bound),
    "minLength": _bound(lambda value, bound: len(value) >= bound),
    "maxLength": _bound(lambda value, bound: len(value) <= bound),
}
