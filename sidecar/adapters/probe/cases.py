"""The table of all cases, in the order in which they are tried. Their ids are stable."""

from __future__ import annotations

from sidecar.adapters.probe import judging, judging_undo
from sidecar.adapters.probe.record import (
    AskStatus,
    Case,
    Count,
    Cut,
    CutAt,
    Need,
    Send,
    Sort,
    Together,
)
from sidecar.saga.states import Action

ROUNDS = 3
"""How often a race is run: one that a service loses now and then is not found by one."""

_E, _U = Action.EXECUTE, Action.COMPENSATE
_EXECUTE, _UNDO = Send(_E), Send(_U)
_UNDO_UNKNOWN = Send(_U, Sort.OUTPUT_UNKNOWN)
_BASIC = ("other_key",)
_BARRIER = "see the recipe in docs/barriers.md."

_EXECUTES = (
    Case(
        id="no_redirect",
        sent="an execute with a new key, and its compensation",
        demanded="no answer is a redirect (3xx): it is never followed",
        mend="give the path exactly as the service serves it, a slash at its end included.",
        script=(_EXECUTE, _UNDO),
        judge=judging.redirects,
    ),
    Case(
        id="first_execute",
        sent="an execute with a new key",
        demanded="200, 201, 204 or another 2xx but 202, within the time-out",
        mend="answer 2xx once the work is done.",
        script=(_EXECUTE,),
        judge=judging.first,
        builds_on=("no_redirect",),
    ),
    Case(
        id="answer_body",
        sent="an execute with a new key",
        demanded="the body is JSON in UTF-8, at most 1 MiB and 64 levels deep, or there is none",
        mend="answer with JSON, or with no body at all; text and HTML cannot be kept.",
        script=(_EXECUTE,),
        judge=judging.kept_body,
        builds_on=("first_execute",),
    ),
    Case(
        id="other_key",
        sent="two executes with the same input, under keys of two workflows",
        demanded="both are done, each with an effect of its own",
        mend="tell calls apart by the whole Idempotency-Key, not by the body; if the input may be "
        "used only once, write {unique} into --input.",
        script=(Count(), _EXECUTE, Send(_E, key=1), Count()),
        judge=judging.other_key,
        builds_on=("first_execute",),
    ),
    Case(
        id="same_key_twice",
        sent="the same execute twice, one after the other, with one key",
        demanded="one effect; the second answer has the status and the body of the first",
        mend="keep the answer with the key, in the transaction of the effect, and answer it again; "
        + _BARRIER,
        script=(Count(), _EXECUTE, _EXECUTE, Count()),
        judge=judging.twice,
        builds_on=_BASIC,
    ),
    Case(
        id="same_key_at_once",
        sent=f"the same execute twice at the same time, {ROUNDS} times",
        demanded="one effect for each key; one of the two may be told 409 until the other is done",
        mend="write the key before acting, so that a second call waits for it or is told 409; "
        "looking whether it is there is not enough; " + _BARRIER,
        script=(
            Count(),
            *(Together((Send(_E, key=n), Send(_E, key=n))) for n in range(ROUNDS)),
            Count(),
        ),
        judge=judging.at_once,
        builds_on=_BASIC,
    ),
    Case(
        id="same_key_other_body",
        sent="an execute, then another body under the same key",
        demanded="no second effect: the first answer again, or a 4xx",
        mend="take the key alone for the name of the effect.",
        script=(Count(), _EXECUTE, Send(_E, Sort.OTHER, patient=False), Count()),
        judge=judging.other_body,
        builds_on=_BASIC,
    ),
    Case(
        id="cut_request",
        sent="an execute of which half the body came slowly, then a broken connection; then the "
        "same key whole",
        demanded="the second is done; one effect",
        mend="read the whole body before anything is written, and forget a request that did not "
        "come whole.",
        script=(Count(), Cut(CutAt.IN_THE_BODY), _EXECUTE, Count()),
        judge=judging.after_cut,
        builds_on=_BASIC,
    ),
    Case(
        id="lost_answer",
        sent="an execute whose client hung up before the answer; then the same key again",
        demanded="the second is done, perhaps after 409; one effect",
        mend="keep key and effect in one transaction, so that an abandoned request leaves both or "
        "neither; " + _BARRIER,
        script=(Count(), Cut(CutAt.BEFORE_THE_ANSWER), _EXECUTE, Count()),
        judge=judging.after_cut,
        builds_on=_BASIC,
    ),
    Case(
        id="large_input",
        sent="an execute of 256 KiB",
        demanded="done, or a 4xx like 413: what is refused is not tried again, a 5xx is",
        mend="raise the limit of the body, or answer 413.",
        script=(Send(_E, Sort.LARGE),),
        judge=judging.large,
        builds_on=_BASIC,
    ),
    Case(
        id="unknown_headers",
        sent="an execute with headers that no contract names",
        demanded="done: headers that are not known are ignored",
        mend="do not check which headers are there.",
        script=(Send(_E, more_headers=True),),
        judge=judging.more_headers,
        builds_on=_BASIC,
    ),
    Case(
        id="not_json",
        sent="an execute whose body is not JSON",
        demanded="a 4xx: a definite no, without effect",
        mend="answer 400 when the body cannot be read.",
        script=(Send(_E, Sort.NOT_JSON),),
        judge=judging.not_json,
        builds_on=_BASIC,
    ),
    Case(
        id="too_deep",
        sent="an execute whose body nests 10 000 levels deep",
        demanded="a 4xx, or done; no 5xx",
        mend="answer 400 when the body cannot be read, for too much depth too.",
        script=(Send(_E, Sort.DEEP),),
        judge=judging.large,
        builds_on=_BASIC,
    ),
)

_UNDOES = (
    Case(
        id="compensate",
        sent="an execute, then its compensation",
        demanded="2xx or 410, and the effect is undone",
        mend="undo what the execute with this key did, and answer 200.",
        script=(Count(), _EXECUTE, _UNDO, Count()),
        judge=judging_undo.undone,
        builds_on=_BASIC,
        needs=(Need.COMPENSATE,),
    ),
    Case(
        id="compensate_twice",
        sent="an execute, then its compensation twice",
        demanded="2xx or 410 both times; undone once",
        mend="answer 200 or 410 for what is undone already; " + _BARRIER,
        script=(Count(), _EXECUTE, _UNDO, Count(), _UNDO, Count()),
        judge=judging_undo.undone_twice,
        builds_on=("compensate",),
        needs=(Need.COMPENSATE,),
    ),
    Case(
        id="compensate_unknown_outcome",
        sent='an execute, then its compensation with "output": null and "outcome": "unknown"',
        demanded="2xx or 410, and the effect is undone",
        mend="find the effect by the Idempotency-Key's workflow and step, not by the output.",
        script=(Count(), _EXECUTE, _UNDO_UNKNOWN, Count()),
        judge=judging_undo.undone,
        builds_on=("compensate",),
        needs=(Need.COMPENSATE,),
    ),
    Case(
        id="compensate_before_execute",
        sent="the compensation of an execute that never came",
        demanded="2xx or 410: there is nothing to undo",
        mend="write down that it is compensated, and answer 200; " + _BARRIER,
        script=(Count(), _UNDO_UNKNOWN, Count()),
        judge=judging_undo.undone,
        builds_on=_BASIC,
        needs=(Need.COMPENSATE,),
    ),
    Case(
        id="execute_after_compensate",
        sent="a compensation, then the execute that it overtook",
        demanded="the execute is refused (410 or another 4xx of that class), without effect",
        mend="let the compensation leave a row that the execute finds, and answer 410; " + _BARRIER,
        script=(Count(), _UNDO_UNKNOWN, _EXECUTE, Count()),
        judge=judging_undo.late_execute,
        builds_on=("compensate_before_execute",),
        needs=(Need.COMPENSATE,),
    ),
    Case(
        id="repeat_after_compensate",
        sent="an execute, its compensation, and the same execute again",
        demanded="no second effect: refused, or answered as the first time",
        mend="keep the row of the key when it is compensated; " + _BARRIER,
        script=(Count(), _EXECUTE, _UNDO, _EXECUTE, Count()),
        judge=judging_undo.repeated_execute,
        builds_on=("compensate",),
        needs=(Need.COMPENSATE,),
    ),
    Case(
        id="compensate_at_once",
        sent=f"an execute and its compensation at the same time, {ROUNDS} times",
        demanded="the compensation is done, the execute done or refused, and no effect is left",
        mend="lock the same row first in both; " + _BARRIER,
        script=(
            Count(),
            *(
                Together((Send(_E, key=n), Send(_U, Sort.OUTPUT_UNKNOWN, key=n)))
                for n in range(ROUNDS)
            ),
            Count(),
        ),
        judge=judging_undo.undone_at_once,
        builds_on=("compensate_unknown_outcome", "execute_after_compensate"),
        needs=(Need.COMPENSATE, Need.EFFECTS),
    ),
)

_STATUSES = (
    Case(
        id="status_known",
        sent="an execute, then a GET of its status",
        demanded='200 with {"outcome": "succeeded"}',
        mend="answer from what was kept with the key.",
        script=(_EXECUTE, AskStatus()),
        judge=judging.known_status,
        builds_on=_BASIC,
        needs=(Need.STATUS,),
    ),
    Case(
        id="status_unknown",
        sent="a GET of the status of a key that was never used, then its execute",
        demanded='neither "succeeded" nor "pending"; "refused" only if the execute is refused then',
        mend='answer {"outcome": "refused"} after writing down that the key is refused, else 404.',
        script=(AskStatus(), _EXECUTE),
        judge=judging.unknown_status,
        builds_on=_BASIC,
        needs=(Need.STATUS,),
    ),
)

CASES: tuple[Case, ...] = (*_EXECUTES, *_UNDOES, *_STATUSES)
"""Every case; what one builds on stands before it."""
