"""When two states count as the same: what may still become of them is the same.

Times, attempts, bodies and history are left out. Going forward a step is as it is; on the way
back it is open, owes its compensation, could not be undone, or is over with. Branches that are
built alike may change places: what each of them has come to is sorted.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from sidecar.definitions.checker.abstraction import Choices, Roles
from sidecar.saga.definition import Compensation, Definition, Join, StepDefinition, Template
from sidecar.saga.states import OPEN, StepStatus
from sidecar.saga.undoing import owes_compensation
from sidecar.saga.workflow import Step, StepKey, Workflow

Key = Hashable
_PASSED = frozenset({StepStatus.SUCCEEDED, StepStatus.SKIPPED, StepStatus.FAILED})


class Keys:
    """Makes the keys of the states of one definition.

    `coarse` takes an effect that is sure to be undone, if need be, for none at all.
    """

    def __init__(self, definition: Definition, roles: Roles, *, coarse: bool = False) -> None:
        self._definition = definition
        self._roles = roles
        self._coarse = coarse
        self._needed = roles.needed
        self._sure = frozenset(
            step.name
            for step in definition.steps
            if step.no_effect or (step.compensation and not self._may_fail(step.compensation))
        )
        self._chooses = frozenset(
            name for step in definition.steps if step.join is Join.ANY for name in step.after
        )
        alike: dict[Hashable, list[tuple[str, ...]]] = {}
        for chain in self._chains():
            alike.setdefault(self._shape(chain), []).append(chain)
        self._groups = list(alike.values())

    def _may_fail(self, compensation: Compensation) -> bool:
        rendered = compensation.input is not None and not compensation.input.constant
        return (
            compensation.input is not None
            and rendered
            and bool(self._roles.of(compensation.input).needs)
        )

    def of(self, workflow: Workflow, choices: Choices) -> Key:
        """The key of a state."""
        items: dict[str, list[Step]] = {}
        for step in workflow.steps.values():
            if step.is_item:
                items.setdefault(step.key.step, []).append(step)
        back = workflow.turning_back
        code = self._code_back if back else self._code_forward
        groups = []
        for chains in self._groups:
            codes = [
                tuple(code(workflow.steps.get(StepKey(name)), items.get(name, ())) for name in one)
                for one in chains
            ]
            groups.append(codes[0] if len(codes) == 1 else tuple(sorted(codes)))
        return workflow.status, back, choices, tuple(groups)

    def _code_forward(self, step: Step | None, items: list[Step] | tuple[()]) -> str:
        if step is None:
            return ""
        if self._coarse and step.status in _PASSED and step.key.step in self._sure:
            return self._code_passed(step, items)
        effect = "+" if step.may_have_effect else "-"
        output = "!" if step.key.step in self._needed and step.output is not None else ""
        code = f"{step.status}{effect}{output}"
        if step.fan is None:
            return code
        fan = step.fan
        inner = ",".join(sorted(self._code_forward(item, ()) for item in items))
        return f"{code}{fan.total}.{fan.opened}.{fan.open}.{fan.failed}({inner})"

    def _code_passed(self, step: Step, items: list[Step] | tuple[()]) -> str:
        """The code of a step that somebody may go past, and that is undone if need be."""
        output = "!" if step.key.step in self._needed and step.output is not None else ""
        chosen = step.status is StepStatus.SUCCEEDED and step.key.step in self._chooses
        no_effect = self._definition.by_name[step.key.step].no_effect
        left = not no_effect and any(
            one.status is StepStatus.FAILED and one.may_have_effect for one in (step, *items)
        )
        return f"passed{output}{'?' * chosen}{'+' * left}"

    def _code_back(self, step: Step | None, items: list[Step] | tuple[()]) -> str:
        if step is None:
            return ""
        defined = self._definition.by_name[step.key.step]
        output = "!" if step.key.step in self._needed and step.output is not None else ""
        if step.status in OPEN:
            code = f"{step.status}{'+' if step.may_have_effect else '-'}"
        elif owes_compensation(defined, step):
            if self._coarse and step.key.step in self._sure:
                return f"over{output}"
            code = "owes"
        elif step.status is StepStatus.COMPENSATION_FAILED:
            return "kept"
        else:
            return f"over{output}"
        if step.fan is None:
            return f"{code}{output}"
        inner = ",".join(sorted(self._code_back(item, ()) for item in items))
        return f"{code}{output}{step.fan.undone}.{step.fan.undoing}.{step.fan.kept}({inner})"

    # -- branches that are built alike --------------------------------------------------------

    def _chains(self) -> Iterator[tuple[str, ...]]:
        """The steps in chains: each step is the only one before the next, and it after it."""
        definition = self._definition
        inside = set()
        for step in definition.steps:
            if len(step.after) == 1 and definition.successors[step.after[0]] == (step.name,):
                inside.add(step.name)
        for name in definition.topological:
            if name in inside:
                continue
            chain = [name]
            while len(after := definition.successors[chain[-1]]) == 1 and after[0] in inside:
                chain.append(after[0])
            yield tuple(chain)

    def _shape(self, chain: tuple[str, ...]) -> Hashable:
        """What must be the same for two chains to change places."""
        definition = self._definition
        return (
            frozenset(definition.by_name[chain[0]].after),
            frozenset(definition.successors[chain[-1]]),
            tuple(self._shape_of(definition.by_name[name]) for name in chain),
        )

    def _shape_of(self, step: StepDefinition) -> Hashable:
        """Whoever reads outputs, is read, or asks what another asks too is like nobody else."""
        special = (
            step.name in self._needed
            or self._roles.needing(step.name)
            or self._roles.asks_again(step.name)
        )
        wait = step.wait and (step.wait.signal, step.wait.timeout is None)
        fan_out = step.fan_out and (
            step.fan_out.max_parallel, step.fan_out.tolerated, _constant(step.fan_out.items),
        )  # fmt: skip
        return (
            step.name if special else "",
            step.compensation is not None,
            step.no_effect,
            step.pivot,
            step.optional,
            step.join,
            _constant(step.when),
            wait,
            fan_out,
        )


def _constant(template: Template | None) -> Hashable:
    """What a template always comes to; "?" if that is a choice."""
    if template is None:
        return None
    return template.source if template.constant else "?"
