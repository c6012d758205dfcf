"""Running a workflow again: what both histories tell of it.

One that was terminated while effects are owed their undoing cannot be run again: its steps would
have them twice, and nobody would undo the first.
"""

from __future__ import annotations

import json

from sidecar.errors import IllegalTransition
from sidecar.saga.changes import Verdict
from sidecar.saga.definition import JsonText
from sidecar.saga.draft import Draft
from sidecar.saga.events import RerunRequested
from sidecar.saga.states import WORKFLOW_ENDS
from sidecar.saga.workflow import WorkflowId


def rerun(draft: Draft, event: RerunRequested) -> Verdict:
    """Note that a workflow is run again; nothing else becomes of it. Raises `IllegalTransition`."""
    state: str = draft.status
    if draft.parent is not None:
        state = "run by another workflow"
    elif draft.owes_since is not None:
        state = f"{state}, and owes effects their undoing"
    elif draft.status in WORKFLOW_ENDS:
        said = {"rerun": event.new, "reason": event.reason}
        draft.note("operator", "rerun", details=_object(said))
        return Verdict.APPLIED
    raise IllegalTransition("workflow", state, "rerun")


def origin(rerun_of: WorkflowId | None) -> JsonText | None:
    """What the beginning of a workflow tells of the one that is run again by it."""
    return None if rerun_of is None else _object({"rerun_of": rerun_of})


def _object(words: dict[str, str]) -> JsonText:
    given = {name: text for name, text in words.items() if text}
    return JsonText(json.dumps(given, ensure_ascii=False))
