"""The codes of findings. A code keeps its meaning for ever; `docs/checker.md` tells of each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """Some way ends neither completed nor undone."""
    WARNING = "warning"
    """It may be meant so, but seldom is."""
    INFO = "info"
    """Good to know."""


@dataclass(frozen=True, slots=True)
class Code:
    """What a code stands for; `advice` says what to do."""

    name: str
    severity: Severity
    title: str
    advice: str


_E, _W, _I = Severity.ERROR, Severity.WARNING, Severity.INFO

CODES: dict[str, Code] = {
    one.name: one
    for one in (
        Code("GC100", _E, "The document is not a definition", "mend what the sentence names"),
        Code(
            "GC101",
            _E,
            "An effect that cannot be undone, and a later step can fail",
            "name a `compensate`, or `compensate: none` if there is nothing to undo; or put the "
            "step last and make it the `pivot`",
        ),
        Code(
            "GC102",
            _E,
            "An effect that cannot be undone, beside a step that can fail",
            "put the other step before it, and make it the `pivot`; or name a `compensate`",
        ),
        Code(
            "GC103",
            _E,
            "Several effects that cannot be undone, none of them behind a pivot",
            "make the first of them the `pivot` and put the others after it, or name what undoes "
            "them",
        ),
        Code(
            "GC104",
            _E,
            "An effect that cannot be undone, though it may be cancelled or stay unknown",
            "make it the `pivot`: from its claim on the workflow only goes forward",
        ),
        Code(
            "GC105",
            _E,
            "The workflow can turn back past its pivot",
            "let the pivot come after every step that can fail, with `join: all`",
        ),
        Code(
            "GC106",
            _E,
            "A step past the pivot can fail by itself",
            "make it `optional`, put it before the pivot, or take away what makes it fail: the "
            "time-out of its signal, a read of an output that may be absent",
        ),
        Code(
            "GC107",
            _W,
            "A completed workflow may keep an effect that nobody knows of",
            "say `compensate: none` if it does no harm; else do not let the step fail unheard",
        ),
        Code("GC108", _E, "Nothing more can happen", "report it: this must not be possible"),
        Code(
            "GC109",
            _W,
            "A pivot that may be skipped",
            "take the `when` off the pivot, so that it is plain where there is no way back: if it "
            "is skipped there still is one",
        ),
        Code(
            "GC110",
            _I,
            "A refusal past the pivot ends in `error`",
            "make sure that the service never refuses it, or put the step before the pivot",
        ),
        Code(
            "GC111",
            _E,
            "What undoes a step reads an output that may be absent",
            "ask first: `steps.x.output == null ? ... : steps.x.output.id`; or leave `input` out: "
            "then the service gets the step's own input, its output if there is one, and the "
            "outcome",
        ),
        Code(
            "GC112",
            _W,
            "A step reads an output that may be absent, and then fails",
            "ask first: `steps.x.output == null ? ... : ...`, or give the step the `when` of the "
            "other",
        ),
        Code(
            "GC113",
            _W,
            "The output of the workflow reads an output that may be absent",
            "ask first: `steps.x.output == null ? ... : ...`",
        ),
        Code("GC121", _W, "A step that is never done", "take it out, or mend its `when`"),
        Code(
            "GC122",
            _I,
            "A branch that nobody waits for can still turn the workflow back",
            "make it `optional`, or wait for it later",
        ),
        Code(
            "GC131",
            _E,
            "The workflow's time-out is shorter than its pauses alone",
            "give a longer `timeout`, or shorter waits",
        ),
        Code(
            "GC132",
            _I,
            "The workflow's time-out is shorter than its worst case",
            "nothing, if slow services are to turn the workflow back; else a longer `timeout`",
        ),
        Code(
            "GC133",
            _W,
            "A child may take longer than its parent has",
            "give the child a `timeout` shorter than that of its parent",
        ),
        Code(
            "GC134",
            _I,
            "A signal is waited for without end",
            "give the wait, or the workflow, a `timeout`, if somebody may forget it",
        ),
        Code(
            "GC135",
            _E,
            "A workflow can wait for one below it that waits for its place",
            "take `concurrency` off the definition that runs itself, and give it to one above it "
            "that does not",
        ),
        Code(
            "GC136",
            _W,
            "With the same key a workflow can wait for one below it that waits for its place",
            "let the `key` hold something that is different at each level, or give `concurrency` "
            "to a definition above it that does not run itself",
        ),
        Code(
            "GC141",
            _W,
            "A compensation that can give up",
            "leave `max_attempts` and `total_budget` out: it is then tried for ever, and people "
            "are alerted",
        ),
        Code(
            "GC142",
            _I,
            "A call that is tried only once",
            "let it be tried again: the same key makes that harmless",
        ),
        Code(
            "GC143",
            _W,
            "A retry budget shorter than one call",
            "give a longer `total_budget`, or a shorter `timeout`",
        ),
        Code(
            "GC144",
            _W,
            "A step with no way back that can give up",
            "leave the policy of its `compensate` without end: it is what such a step is tried by",
        ),
        Code(
            "GC145",
            _I,
            "A compensation that never runs",
            "leave it out, or move the pivot",
        ),
        Code(
            "GC146",
            _W,
            "A pivot with nothing to undo",
            "take `pivot` off: nothing stands in the way of turning back",
        ),
        Code(
            "GC147",
            _I,
            "A retry policy that is not used",
            "say it at `compensate: { retry: ... }`: where there is no way back that is the policy",
        ),
        Code(
            "GC151",
            _W,
            "An action that no catalogue tells of",
            "give the configuration of the service's sidecar (`--catalogue sidecar.yaml`), or let "
            "one of its sidecars publish it",
        ),
        Code(
            "GC152",
            _W,
            "An action that only some live sidecars of its service offer",
            "wait until the deploy is through, or finish it: `goconductor services`",
        ),
        Code(
            "GC190",
            _W,
            "Not all ways could be looked at",
            "split the definition into children, or look at the parts by themselves",
        ),
    )
}
