"""A skip speaks of the way forward or of the undoing, and is never taken for the other."""

from __future__ import annotations

import pytest

from sidecar.errors import IllegalTransition
from sidecar.saga.changes import Verdict
from sidecar.saga.events import SkipRequested
from sidecar.saga.outcomes import OutcomeKind
from sidecar.saga.states import Action, StepStatus
from sidecar.saga.workflow import StepKey
from tests.unit.saga.worlds import Run, definition, step


def test_what_was_undone_is_skipped_already_but_not_on_the_way_forward() -> None:
    run = Run(definition(step("a"), step("b", "a"), step("c", "b")))
    run.done("a", "b")
    run.answer("c", OutcomeKind.REFUSED)
    run.done("b")
    assert run.status("b") is StepStatus.COMPENSATED
    back = SkipRequested(StepKey("b"), "not needed", action=Action.COMPENSATE)
    assert run.apply(back).verdict is Verdict.IGNORED
    with pytest.raises(IllegalTransition, match="compensated"):
        run.apply(SkipRequested(StepKey("b"), "not needed"))
