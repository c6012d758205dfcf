"""What the answers to an execute are worth.

Each function here is the verdict of one case over what was recorded of it. Where the service
counts its effects the count decides; otherwise the answers do, and the verdict says so.
"""

from __future__ import annotations

from sidecar.adapters.probe.record import (
    Exchange,
    Record,
    Verdict,
    breaks,
    holds,
    skipped,
    value_of,
    warns,
)
from sidecar.saga.outcomes import OutcomeKind

BY_ANSWERS = "judged by the answers alone"
_CLASSES = {
    OutcomeKind.REFUSED: "give a body that the service accepts with --input; if the body is right, "
    "answer 4xx only when nothing happened and nothing will.",
    OutcomeKind.MISCONFIGURED: "look at the path, the method and the credentials (--header).",
    OutcomeKind.UNUSABLE: "do the work before answering; a 202 cannot be followed yet.",
    OutcomeKind.BUSY: "answer 409 only while another request with the same key is worked on.",
    OutcomeKind.NOT_NOW: "try again when the service has room.",
    OutcomeKind.NOT_SENT: "see why the service no longer takes connections.",
    OutcomeKind.UNKNOWN: "look into the service's log: it failed, or took longer than --timeout.",
}


def redirects(seen: Record) -> Verdict:
    """No answer points elsewhere."""
    pointing = [answer for answer in seen.answers if answer.redirected]
    if pointing:
        return breaks(f"{pointing[0].action}: {pointing[0].said}")
    return holds(told(seen))


def first(seen: Record) -> Verdict:
    """The execute was done."""
    (answer,) = seen.answers
    if answer.done:
        return holds(answer.said)
    return breaks(f"{answer.said}; the contract takes this as: {answer.kind}", advice(answer))


def kept_body(seen: Record) -> Verdict:
    """The answer's body can be an output."""
    (answer,) = seen.answers
    if not answer.done:
        return not_done(answer)
    return holds(answer.said) if answer.bad_body is None else breaks(answer.bad_body)


def other_key(seen: Record) -> Verdict:
    """Two keys with the same input were two effects."""
    if (wrong := first_not_done(seen)) is not None:
        return wrong
    return effects_of(seen, 2)


def twice(seen: Record) -> Verdict:
    """The second answer is the first one again, and there is one effect."""
    one, two = seen.answers
    if not one.done:
        return not_done(one)
    counted = effects_of(seen, 1)
    if counted.severity != "holds":
        return counted
    return counted if one.same_answer(two) else breaks(f"the answers differ: {told(seen)}")


def at_once(seen: Record) -> Verdict:
    """Of two at the same time one acted, and both know how it went."""
    if (wrong := first_not_done(seen)) is not None:
        return wrong
    pairs = list(zip(seen.answers[::2], seen.answers[1::2], strict=True))
    effects = seen.effects()
    if effects is not None:
        return effects_of(seen, len(pairs))
    for one, two in pairs:
        if not one.same_answer(two):
            return breaks(f"the answers differ: {one.said}, and {two.said}")
    return holds(f"all done, pair by pair with the same answer; {BY_ANSWERS}")


def other_body(seen: Record) -> Verdict:
    """A key that comes with another body is no second effect."""
    one, two = seen.answers
    if not one.done:
        return not_done(one)
    effects = seen.effects()
    if effects is not None and effects != 1:
        return effects_of(seen, 1)
    if two.server_fault:
        word = breaks if effects is None else warns
        return word(f"{two.said}; whether it had an effect is not known")
    if effects is None and two.done and not one.same_answer(two):
        return breaks(f"both were done, and the answers differ: {told(seen)}; {BY_ANSWERS}")
    return holds(told(seen) if effects is not None else f"{told(seen)}; {BY_ANSWERS}")


def after_cut(seen: Record) -> Verdict:
    """After a broken connection the same key is done, once."""
    again = seen.answers[-1]
    if not again.done:
        return not_done(again, "the same key again: ")
    return effects_of(seen, 1)


def large(seen: Record) -> Verdict:
    """A large input is taken, or refused."""
    (answer,) = seen.answers
    if answer.redirected:
        return not_done(answer)
    return breaks(answer.said) if answer.server_fault else holds(answer.said)


def more_headers(seen: Record) -> Verdict:
    """Headers that the service does not know change nothing."""
    (answer,) = seen.answers
    return holds(answer.said) if answer.done else not_done(answer)


def not_json(seen: Record) -> Verdict:
    """What is not JSON is refused."""
    (answer,) = seen.answers
    if answer.redirected:
        return not_done(answer)
    if answer.server_fault:
        return breaks(answer.said)
    if answer.done:
        return warns(f"{answer.said}: the service took what is not JSON")
    return holds(answer.said)


def known_status(seen: Record) -> Verdict:
    """The status of what was done is that it succeeded."""
    done, asked = seen.answers
    if not done.done:
        return not_done(done)
    outcome = _outcome(asked)
    return holds(asked.said) if outcome == "succeeded" else breaks(asked.said)


def unknown_status(seen: Record) -> Verdict:
    """The status of what never came is not that it did; `refused` is a promise."""
    asked, late = seen.answers
    outcome = _outcome(asked)
    if outcome in ("succeeded", "pending"):
        return breaks(f"{asked.said}, about a key that was never used")
    if outcome == "refused":
        came = f"{asked.said}; an execute of that key afterwards: {late.said}"
        return holds(came) if late.kind is OutcomeKind.REFUSED else breaks(came)
    return warns(f"{asked.said}: this proves nothing, so the step is compensated")


def _outcome(asked: Exchange) -> object:
    value = value_of(asked.body) if asked.status == 200 else None
    return value.get("outcome") if isinstance(value, dict) else None


def effects_of(seen: Record, expected: int) -> Verdict:
    """Judge the number of effects; without a count there is nothing against it."""
    effects = seen.effects()
    if effects is None:
        return holds(f"{told(seen)}; {BY_ANSWERS}")
    came = f"{told(seen)}; effects counted: {effects}"
    return holds(came) if effects == expected else breaks(f"{came}, expected: {expected}")


def first_not_done(seen: Record) -> Verdict | None:
    """Return what is to be said of the first answer that is not `done`."""
    return next((not_done(answer) for answer in seen.answers if not answer.done), None)


def not_done(answer: Exchange, before: str = "") -> Verdict:
    """Judge an answer that had to be `done`; a redirect is a case of its own."""
    if answer.redirected:
        return skipped("it was redirected; see no_redirect")
    return breaks(f"{before}{answer.said}; the contract takes this as: {answer.kind}")


def advice(answer: Exchange) -> str | None:
    """Return what helps against the class of an answer."""
    return _CLASSES.get(answer.kind)


def told(seen: Record) -> str:
    """Return all answers in words."""
    return ", then ".join(answer.said for answer in seen.answers)
