"""Filling compiled templates from the state of a workflow.

One transition renders many templates: what they read is read once, measured once and paid from
one budget. Only what belongs to an item of a fan-out (`each`, and what its own step gave) is
exchanged from one to the next.
"""

from __future__ import annotations

from typing import Any

from sidecar.definitions.bodies import read_json, write_json
from sidecar.definitions.data import Data
from sidecar.definitions.findings import shown, written
from sidecar.definitions.templates import Compiled, Slot
from sidecar.definitions.work import MOST_FORWARD, MOST_WORK, SLOT, Work
from sidecar.errors import IncompleteState, RenderError
from sidecar.saga.definition import Each, JsonText, Scope, Template

MAX_RESULT = 1024 * 1024
"""The largest rendered input, in bytes of UTF-8."""


class _Seen:
    """What one transition has seen: read once, however many templates read it."""

    def __init__(self, scope: Scope) -> None:
        self._texts: dict[str, JsonText] = {}
        self._steps: dict[str, dict[str, Any]] = {}
        self._each: Each | None = None
        workflow = {
            "id": scope.workflow_id,
            "definition": scope.definition,
            "version": scope.version,
        }
        self._values: dict[str, Any] = {"steps": self._steps, "workflow": workflow}
        self._forward = Work(MOST_FORWARD)
        self._back: Work | None = None
        self.data = Data(self._values, self._forward)

    def take(self, compiled: Compiled, scope: Scope) -> None:
        """Make ready what a template reads, and the budget that pays for it."""
        if compiled.undo:
            self._back = self._back or Work(MOST_WORK - self._forward.done)
        self.data.work = self._back or self._forward
        self.data.work.spend(len(compiled.parts) * SLOT)
        for names in compiled.chains:
            if names[0] == "input" and "input" not in self._values:
                self._values["input"] = self._parsed(scope.input, "input")
            elif names[0] == "steps":
                self._take_step(names[1], names[2], scope)
            elif names[0] == "each" and self._each is not scope.each:
                self._take_each(scope.each)

    def _take_step(self, name: str, field: str, scope: Scope) -> None:
        """What a step of a fan-out gave is another thing for each of its items."""
        step = self._steps.setdefault(name, {})
        if field == "status":
            step.pop("status", None)
            if name in scope.statuses:
                step["status"] = scope.statuses[name]
        elif (text := scope.outputs.get(name)) is None:
            step["output"] = None
            self._texts.pop(name, None)
        elif self._texts.get(name) is not text:
            step["output"] = self._parsed(text, name)
            self._texts[name] = text

    def _take_each(self, each: Each | None) -> None:
        if each is None:
            self._values.pop("each", None)
        else:
            item = self._parsed(each.item, "each.item")
            self._values["each"] = {"index": each.index, "item": item}
        self._each = each

    def _parsed(self, text: JsonText, what: str) -> Any:
        try:
            return read_json(text, self.data.work)
        except ValueError as error:
            raise RenderError(f"{shown(what)} cannot be read as JSON") from error


def render(template: Template, scope: Scope) -> JsonText:
    """Fill a template: the `Render` that the machine is given. Raises `RenderError`.

    Whatever else goes wrong is one too: a transition ends with a step that failed and says why,
    never with an exception that would come again at every try. Only that something was not read
    yet is for the machine to hear.
    """
    if template.constant:
        return template.source
    try:
        return _rendered(template.compiled, scope)
    except (RenderError, IncompleteState):
        raise
    except Exception as error:
        raise RenderError(f"cannot be rendered: {type(error).__name__}") from error


def _rendered(compiled: Compiled, scope: Scope) -> JsonText:
    seen = scope.kept.get("seen")
    if seen is None:
        seen = scope.kept["seen"] = _Seen(scope)
    seen.take(compiled, scope)
    rendered: list[str] = []
    size = 0
    for part in compiled.parts:
        text = part if isinstance(part, str) else _fill(part, seen.data)
        size += len(text)
        if size > MAX_RESULT:
            raise RenderError(f"the rendered input is larger than {MAX_RESULT // 1024} KiB")
        rendered.append(text)
    whole = "".join(rendered)
    try:
        encoded = len(whole.encode())
    except UnicodeEncodeError as error:
        raise RenderError("the rendered input holds half of a surrogate pair") from error
    if encoded > MAX_RESULT:
        raise RenderError(f"the rendered input is larger than {MAX_RESULT // 1024} KiB")
    return JsonText(whole)


def _fill(slot: Slot, data: Data) -> str:
    try:
        value = slot.expression.evaluate(data)
        text = write_json(value, data.work)
        if not slot.in_text:
            return text
        return text[1:-1] if isinstance(value, str) else write_json(text, data.work)[1:-1]
    except RenderError as error:
        raise RenderError(f"{written(slot.path)}: {error.message}") from error
