"""Definitions with one flaw each, and some without any."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Flawed:
    """A flaw: its code, the step it is told of, and the shortest way to it.

    `also` are codes of what the flaw cannot be without.
    """

    name: str
    code: str
    document: str
    step: str | None = None
    way: list[str] = field(default_factory=list)
    also: tuple[str, ...] = ()


STARTS = "the workflow starts"
PLANTED_ELSEWHERE = {"GC105", "GC108", "GC133", "GC152", "GC190"}
"""What no document can have, or what takes more than one document."""


def _call(name: str, *more: str, undo: bool = True) -> str:
    lines = [f"- name: {name}", "  service: svc", f"  execute: /{name}"]
    lines += [f"  compensate: /{name}/undo"] if undo else []
    return "\n".join([*lines, *(f"  {line}" for line in more)])


def _flow(*steps: str, head: str = "") -> str:
    return "\n".join(["name: flow", *([head] if head else []), "steps:", *steps])


_AGAIN = '- { name: again, workflow: flow, when: "${input.deeper}" }'

FLAWS = [
    Flawed("no definition", "GC100", "name: flow\nsteps: []\n"),
    Flawed(
        "an effect before a step that can fail",
        "GC101",
        _flow(_call("charge", undo=False), _call("reserve")),
        "charge",
        [STARTS, "what became of charge stays unknown"],
    ),
    Flawed(
        "an effect between steps that can be undone",
        "GC101",
        _flow(_call("reserve"), _call("charge", undo=False), _call("ship")),
        "charge",
        [STARTS, "reserve succeeds", "what became of charge stays unknown"],
    ),
    Flawed(
        "an effect beside a step that can fail",
        "GC102",
        _flow(_call("reserve"), _call("charge", "after: []", undo=False)),
        "charge",
        [STARTS, "what became of charge stays unknown"],
    ),
    Flawed(
        "an effect in a branch of its own",
        "GC102",
        _flow(
            _call("begin"),
            _call("reserve"),
            _call("check", "after: [begin]"),
            _call("charge", undo=False),
            _call("end", "after: [reserve, charge]"),
        ),
        "charge",
        [STARTS, "begin succeeds", "check succeeds", "what became of charge stays unknown"],
    ),
    Flawed(
        "two effects",
        "GC103",
        _flow(_call("charge", undo=False), _call("mail", undo=False)),
        "mail",
        also=("GC101", "GC104"),
    ),
    Flawed(
        "an effect at the end that is no pivot",
        "GC104",
        _flow(_call("reserve"), _call("charge", undo=False)),
        "charge",
        [STARTS, "reserve succeeds", "what became of charge stays unknown"],
    ),
    Flawed(
        "items that cannot be undone",
        "GC104",
        _flow(_call("mail", 'for_each: "${input.to}"', undo=False)),
        "mail",
        [f"{STARTS} (mail gets 1 item)", "what became of mail[0] stays unknown"],
    ),
    Flawed(
        "a signal past the pivot that may not come",
        "GC106",
        _flow(
            _call("charge", "pivot: true", undo=False),
            "- {name: confirm, wait: {signal: confirmed, timeout: 1h}}",
        ),
        "confirm",
        [STARTS, "charge succeeds", "confirm waits in vain for the signal confirmed"],
    ),
    Flawed(
        "an optional step that can be undone",
        "GC107",
        _flow(_call("reserve"), _call("notify", "optional: true")),
        "notify",
        [STARTS, "reserve succeeds", "what became of notify stays unknown"],
    ),
    Flawed(
        "items of which some may fail",
        "GC107",
        _flow(_call("mail", 'for_each: "${input.to}"', "tolerated_failures: 3")),
        "mail",
        [f"{STARTS} (mail gets 1 item)", "what became of mail[0] stays unknown"],
    ),
    Flawed(
        "a pivot with a condition",
        "GC109",
        _flow(_call("charge", "pivot: true", 'when: "${input.paid}"', undo=False)),
        "charge",
    ),
    Flawed(
        "a step past the pivot",
        "GC110",
        _flow(_call("charge", "pivot: true", undo=False), _call("mail", undo=False)),
        "mail",
    ),
    Flawed(
        "a compensation that reads the output of its own step",
        "GC111",
        _flow(
            _call(
                "charge",
                'compensate: { path: /refunds, input: { id: "${steps.charge.output.id}" } }',
                undo=False,
            )
        ),
        "charge",
        [STARTS, "what became of charge stays unknown"],
    ),
    Flawed(
        "a compensation that asks in vain",
        "GC111",
        _flow(
            _call(
                "charge",
                "compensate:",
                "  path: /refunds",
                """  input: { id: "${steps.charge.output.?id.orValue('')}" }""",
                undo=False,
            )
        ),
        "charge",
        [STARTS, "what became of charge stays unknown"],
    ),
    Flawed(
        "a compensation that reads what was skipped",
        "GC111",
        _flow(
            _call("rate", 'when: "${input.foreign}"'),
            _call(
                "charge",
                'compensate: { path: /refunds, input: { rate: "${steps.rate.output.value}" } }',
                undo=False,
            ),
        ),
        "charge",
        [f"{STARTS} (the condition of rate is false)", "what became of charge stays unknown"],
    ),
    Flawed(
        "an input that reads what was skipped",
        "GC112",
        _flow(
            _call("rate", 'when: "${input.foreign}"'),
            _call("charge", 'input: { rate: "${steps.rate.output.value}" }'),
        ),
        "charge",
        [f"{STARTS} (the condition of rate is false)"],
    ),
    Flawed(
        "an input that reads a branch that need not be over",
        "GC112",
        _flow(
            _call("a"),
            _call("b", "after: []", "optional: true", undo=False),
            _call("c", "after: [a, b]", "join: any", 'input: { x: "${steps.a.output.x}" }'),
        ).replace("/b\n", "/b\n  compensate: none\n"),
        "c",
        [STARTS, "b succeeds"],
        also=("GC122",),
    ),
    Flawed(
        "an output that reads what was skipped",
        "GC113",
        _flow(
            _call("rate", 'when: "${input.foreign}"'),
            head='output: { rate: "${steps.rate.output.value}" }',
        ),
        None,
        [f"{STARTS} (the condition of rate is false)"],
    ),
    Flawed(
        "a step that is never done",
        "GC121",
        _flow(_call("a"), _call("b", "when: false")),
        "b",
    ),
    Flawed(
        "a branch that nobody waits for",
        "GC122",
        _flow(_call("a"), _call("b", "after: []"), _call("c", "after: [a, b]", "join: any")),
        "c",
    ),
    Flawed(
        "pauses longer than the time-out",
        "GC131",
        _flow(
            "- {name: rest, wait: {duration: 1h}}",
            "- {name: more, wait: {duration: 1h}}",
            head="timeout: 90m",
        ),
    ),
    Flawed("slow services", "GC132", _flow(_call("a"), _call("b"), head="timeout: 10m")),
    Flawed(
        "a signal without end",
        "GC134",
        _flow(_call("a"), "- {name: approve, wait: {signal: approved}}"),
        "approve",
    ),
    Flawed(
        "one that runs itself in turns",
        "GC135",
        _flow(_call("a"), _AGAIN, head="concurrency: {key: one, limit: 2}"),
        "again",
    ),
    Flawed(
        "one that runs itself in turns by a key",
        "GC136",
        _flow(_call("a"), _AGAIN, head='concurrency: {key: "${input.account}"}'),
        "again",
    ),
    Flawed(
        "a compensation that gives up",
        "GC141",
        _flow(_call("a", "compensate: { path: /undo, retry: { max_attempts: 3 } }", undo=False)),
        "a",
    ),
    Flawed("one try", "GC142", _flow(_call("a", "retry: { max_attempts: 1 }")), "a"),
    Flawed(
        "a budget too small",
        "GC143",
        _flow(_call("a", "timeout: 1m", "retry: { total_budget: 10s }")),
        "a",
    ),
    Flawed(
        "a pivot that gives up",
        "GC144",
        _flow(
            _call(
                "a",
                "pivot: true",
                "compensate: { path: /undo, retry: { total_budget: 1h } }",
                undo=False,
            )
        ),
        "a",
    ),
    Flawed("a pivot that is never undone", "GC145", _flow(_call("a", "pivot: true")), "a"),
    Flawed(
        "a policy that is not used",
        "GC147",
        _flow(
            _call("a", "pivot: true", undo=False),
            _call("b", "retry: { max_attempts: 3 }", undo=False),
        ),
        "b",
        also=("GC110",),
    ),
    Flawed(
        "an action that nobody offers",
        "GC151",
        _flow(
            "- {name: a, service: svc, action: a, compensate: from_catalogue}",
            _call("b"),
        ),
        "a",
    ),
    Flawed(
        "a pivot without an effect",
        "GC146",
        _flow(_call("a", "pivot: true", "compensate: none", undo=False)),
        "a",
    ),
]

GOOD = {
    "one step": _flow(_call("a")),
    "a chain": _flow(_call("a"), _call("b"), _call("c")),
    "a diamond": _flow(
        _call("a"), _call("b"), _call("c", "after: [a]"), _call("d", "after: [b, c]")
    ),
    "a pivot at the end": _flow(_call("a"), _call("b", "pivot: true", undo=False)),
    "a choice": _flow(
        _call("a"),
        _call("b", 'when: "${steps.a.output.risk > 5}"'),
        _call("c", "after: [a]", 'when: "${steps.a.output.risk <= 5}"'),
        _call("d", "after: [b, c]"),
    ),
    "a condition asked twice": _flow(
        _call("a", 'when: "${input.foreign}"'),
        _call("b", 'when: "${input.foreign}"', 'input: { rate: "${steps.a.output.rate}" }'),
    ),
    "a compensation that asks first": _flow(
        _call(
            "a",
            "compensate:",
            "  path: /undo",
            "  input:",
            "    id: \"${steps.a.output == null ? '' : steps.a.output.id}\"",
            undo=False,
        )
    ),
    "approval": _flow(
        _call("a"),
        "- {name: approve, wait: {signal: approved, timeout: 1d}}",
        _call("b"),
    ),
    "items": _flow(_call("a", 'for_each: "${input.lines}"', "max_parallel: 3"), _call("b")),
    "an optional step without an effect": _flow(
        _call("a"), _call("b", "optional: true", "compensate: none", undo=False)
    ),
    "one by one": _flow(
        _call("a"), _call("b", "after: []"), head="compensation: {order: sequential}"
    ),
}


def by_name(name: str) -> Flawed:
    """The flaw of that name."""
    return next(flaw for flaw in FLAWS if flaw.name == name)
