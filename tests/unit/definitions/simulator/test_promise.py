"""Random definitions under every fault and every two: the machine keeps its promise.

What services did is kept apart from what the machine believes, so this is about the world.
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter

from sidecar.definitions.simulator import Run, Scenario, every_run
from sidecar.saga.definition import Definition, JsonText, StepDefinition, Template
from tests.unit.definitions.checker.drawing import drawn

SEEDS = 15
LIST = Template(JsonText("[1,2,3]"), constant=True)


def _plain(definition: Definition) -> Definition:
    """The definition without expressions, which were made by hand and cannot be rendered."""
    return dataclasses.replace(definition, steps=tuple(map(_plain_step, definition.steps)))


def _plain_step(step: StepDefinition) -> StepDefinition:
    undo = step.compensation and dataclasses.replace(step.compensation, input=None)
    fan_out = step.fan_out and dataclasses.replace(step.fan_out, items=LIST)
    when = step.when if step.when and step.when.constant else None
    return dataclasses.replace(step, input=None, compensation=undo, fan_out=fan_out, when=when)


def test_all_is_done_or_all_undone_or_a_person_sees_it() -> None:
    ends: Counter[str] = Counter()
    for seed in range(SEEDS):
        definition = _plain(drawn(random.Random(seed), most=5))
        may_be_left = {
            step.name
            for step in definition.steps
            if step.optional or (step.fan_out and step.fan_out.tolerated)
        }
        for run in every_run(definition, Scenario(), pairs=True, most=200).runs:
            ends[run.workflow.status] += 1
            assert _is_well(run, may_be_left), (seed, [str(one) for one in run.faults])
    assert {"completed", "rolled_back", "error"} <= set(ends), ends


def _is_well(run: Run, may_be_left: set[str]) -> bool:
    if run.broken:
        return False
    if run.workflow.status == "completed":
        return {name.partition("[")[0] for name in run.left} <= may_be_left
    if run.workflow.status == "rolled_back":
        return not run.left
    return run.workflow.status == "error" or bool(run.waits_for)
