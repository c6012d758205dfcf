"""The JSON of errors, as it is stored and shown."""

from __future__ import annotations

import json

from sidecar.saga.definition import JsonText


def error_body(code: str, message: str, **more: object) -> JsonText:
    """Return an error object: a stable `code`, a `message` for people, and details."""
    return JsonText(json.dumps({"code": code, "message": message, **more}, ensure_ascii=False))


def at_step(error: JsonText | None, step: str) -> JsonText:
    """Return an error of a step as the error of its workflow: the same, naming the step."""
    details = json.loads(error) if error else {"code": "failed", "message": "the step failed"}
    return JsonText(json.dumps({**details, "step": step}, ensure_ascii=False))
