"""The JSON of errors, as it is stored and shown."""

from __future__ import annotations

import json

from sidecar.saga.definition import BodyCheck, JsonText

NOT_OFFERED = "action_not_offered"
"""The code of a call that was not made: the sidecar that had the step offers no such action."""

MOST_TOLD = 1_000
"""So many characters of what a schema finds wrong are kept."""


def error_body(code: str, message: str, **more: object) -> JsonText:
    """Return an error object: a stable `code`, a `message` for people, and details."""
    return JsonText(json.dumps({"code": code, "message": message, **more}, ensure_ascii=False))


def at_step(error: JsonText | None, step: str) -> JsonText:
    """Return an error of a step as the error of its workflow: the same, naming the step."""
    details = json.loads(error) if error else {"code": "failed", "message": "the step failed"}
    return JsonText(json.dumps({**details, "step": step}, ensure_ascii=False))


def misfit(check: BodyCheck | None, body: JsonText | None, what: str) -> JsonText | None:
    """Return the error of a body (`what`: input, output) that does not fit its schema, or None."""
    problems = [] if check is None else check.problems(body or JsonText("null"))
    if not problems:
        return None
    told = "; ".join(f"{path or f'the {what}'} {text}" for path, text in problems)
    return error_body(f"{what}_invalid", f"the {what} does not fit its schema: {told}"[:MOST_TOLD])
