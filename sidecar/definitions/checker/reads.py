"""What a template cannot do without: outputs of steps, and what it says about conditions.

Expressions are opaque to the checker, but for two things that can be seen in their text. One that
looks into an output (`steps.charge.output.id`) fails where there is none, unless it asks first:
`== null` or `.status`. (An output that is absent is null, and neither `has` nor `.?` can look into
null.) And two conditions with the same text come to the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from sidecar.definitions.splitting import Source, split
from sidecar.saga.definition import Template

_DEEP = re.compile(r"\bsteps\.([a-z][a-z0-9_]*)\.\??output\s*[.\[]")
_WHOLE = re.compile(r"\s*steps\.([a-z][a-z0-9_]*)\.output\s*")
_ASKS = re.compile(r"\bnull\b|\.status\b")
_CHAIN = r"[a-z_][\w.]*(?:\[[^\[\]]*\])*(?:\.[\w.]+)*"
_VALUE = r"(?:-?[\d.]+|\"[^\"\\]*\"|'[^'\\]*'|true|false|null)"
_COMPARISON = re.compile(rf"({_CHAIN})\s*(==|!=|<=|>=|<|>)\s*({_VALUE})")
_NOT = re.compile(rf"!\s*(?:\((.*)\)|({_CHAIN}))", re.DOTALL)
_OPPOSITE = {"!=": "==", ">=": "<", ">": "<="}


def expressions(template: Template) -> list[str]:
    """The texts of the expressions of a template."""
    if template.constant:
        return []
    try:
        value = json.loads(template.source)
    except ValueError:  # made by hand
        return []
    return [
        piece.text
        for text in _texts(value)
        if isinstance(pieces := split(text), list)
        for piece in pieces
        if isinstance(piece, Source)
    ]


def needs(template: Template, *, typed: bool = False) -> frozenset[str]:
    """The steps without whose outputs a template surely cannot be rendered.

    `typed` says that it must come to something of a kind, so that null will not do.
    """
    found: set[str] = set()
    for text in expressions(template):
        if not _ASKS.search(text):
            found |= set(_DEEP.findall(text))
        whole = _WHOLE.fullmatch(text)
        if typed and whole:
            found.add(whole[1])
    return frozenset(found)


def condition(template: Template) -> tuple[str, bool] | None:
    """What a condition asks, and whether it asks for the contrary; None if it may change.

    What reads only the input and outputs always comes to the same.
    """
    texts = expressions(template)
    if len(texts) != 1 or re.search(r"\.status\b", texts[0]):
        return None
    return _positive(" ".join(texts[0].split()))


def _positive(text: str) -> tuple[str, bool]:
    if (negated := _NOT.fullmatch(text)) is not None and _is_one(negated[1] or ""):
        inner, positive = _positive((negated[1] or negated[2]).strip())
        return inner, not positive
    if (compared := _COMPARISON.fullmatch(text)) is not None:
        left, sign, right = compared.groups()
        return f"{left} {_OPPOSITE.get(sign, sign)} {right}", sign not in _OPPOSITE
    return text, True


def _is_one(inside: str) -> bool:
    """Whether the brackets around `inside` belong together."""
    depth = 0
    for char in inside:
        depth += (char == "(") - (char == ")")
        if depth < 0:
            return False
    return depth == 0


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
