"""What is known of workflows that this sidecar is at work on, so that it need not be read again.

A claim brings the state of its workflow with its revision. The settlement is decided on that
state and written only if the revision is still the same; otherwise it is forgotten here, and
the transition is decided once more under the workflow's lock. So a state that is out of date
costs time and never correctness: claims alone change a step without raising the revision, and
no decision that is made here takes a step out of the reach of a claim.

The database's clock is known in the same way: from the newest answer, and the time since then.
It lags behind by the way back of that answer and never runs ahead.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from datetime import datetime, timedelta

from sidecar.adapters.postgres.writing import Answer
from sidecar.adapters.postgres.written import Written
from sidecar.saga.states import WAIT_RETURNS
from sidecar.saga.workflow import Workflow, WorkflowId

KEPT = 2_000
BODIES_KEPT = 16_384
"""Characters of bodies for each workflow; one with more is read again."""
CLOCK_GOOD_FOR_S = 10.0
"""An older answer does not tell the time any more: the database's clock may have been set."""


class KeptStates:
    """The states of the workflows last claimed from, and the database's clock."""

    def __init__(self) -> None:
        self._states: OrderedDict[WorkflowId, Workflow] = OrderedDict()
        self._clock: tuple[datetime, float] | None = None

    def now(self) -> datetime | None:
        """Return the database's time, or None if it has not answered of late."""
        if self._clock is None:
            return None
        told, heard = self._clock
        passed = time.monotonic() - heard
        return told + timedelta(seconds=passed) if passed <= CLOCK_GOOD_FOR_S else None

    def get(self, workflow: WorkflowId) -> Workflow | None:
        """Return a workflow as it was when last heard of."""
        return self._states.get(workflow)

    def learn(self, answer: Answer, written: Written) -> None:
        """Keep what a commit has shown: what was written, and what was claimed."""
        self._clock = (answer.now, time.monotonic())
        for known, workflow in written.after.items():
            held = workflow.status not in WAIT_RETURNS and any(
                step.leased for step in workflow.steps.values()
            )
            if held and known not in answer.lost:
                self._put(workflow)
            else:
                self._states.pop(known, None)
        for workflow in answer.states:
            self._put(workflow)

    def forget_all(self) -> None:
        """Forget everything, after trouble with the store."""
        self._states.clear()
        self._clock = None

    def _put(self, workflow: Workflow) -> None:
        known = workflow.id
        earlier = self._states.pop(known, None)
        if earlier is not None and earlier.revision > workflow.revision:
            workflow = earlier
        if _bodies(workflow) <= BODIES_KEPT:
            self._states[known] = workflow
        if len(self._states) > KEPT:
            self._states.popitem(last=False)


def _bodies(workflow: Workflow) -> int:
    size = len(workflow.input or "")
    for step in workflow.steps.values():
        for text in (step.input, step.output, step.error, step.compensation_input):
            if text is not None:
                size += len(text)
    size += sum(map(len, workflow.elements.values()))
    return size + sum(len(one.payload) for one in workflow.signals)
