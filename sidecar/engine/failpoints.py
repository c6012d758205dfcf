"""Failpoints: named places where a test makes this process die, stand still, or meet a bug.

`GOCONDUCTOR_FAILPOINTS=after_call:kill9@3,before_ring:sleep=500ms@1+` is a list of what shall
happen where: at a `Site`, an `Action`, on the n-th pass only (the first, unless told otherwise)
or, with a `+`, on every pass from the n-th on.

- `kill9`: the process is gone at once, as by SIGKILL
- `stop`: it stands still as by SIGSTOP, until somebody sends SIGCONT
- `raise`: an `InjectedBug`, which nobody expects, as a bug of our own would
- `sleep=DURATION`: the whole event loop stands, as in a long collection or on a frozen machine

They are for proofs under faults, never for production. What is armed, and each firing before it
acts, is told in the log at level warning. Unset, a site costs one look at an empty dict. A list
that cannot be read is a `ConfigError`, which names the part at fault and what there is.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import structlog

from sidecar.definitions.durations import parse_duration
from sidecar.errors import ConfigError

log = structlog.get_logger("sidecar.failpoints")

VARIABLE = "GOCONDUCTOR_FAILPOINTS"

_WRITTEN = re.compile(
    r"(?P<site>[^:@]*):(?P<action>[^@=]*)(?:=(?P<span>[^@]*))?(?:@(?P<nth>.*))?", re.DOTALL
)
_NTH = re.compile(r"([1-9][0-9]{0,8})(\+?)", re.ASCII)
_FORM = "write SITE:ACTION or SITE:ACTION@N or SITE:ACTION@N+, like after_call:kill9@2"
_KILLED = 128 + signal.SIGKILL


class Site(StrEnum):
    """The places, each named by what has just happened there or is about to."""

    # -- from a doorbell to a claim --
    AFTER_RECEIVE = "after_receive"
    """The queue has handed doorbells over; nothing was asked of the store."""
    LOOK = "look"
    """Nobody rang for a while: the store is about to be asked for steps that are due."""
    LOCAL_RETRY = "local_retry"
    """The timer of a retry has run out here; the step is about to be asked for."""
    BEFORE_CLAIM = "before_claim"
    """Steps that were named are about to be offered to the committer as claims."""
    AFTER_CLAIM = "after_claim"
    """A step is claimed and has its task here; its definition was not looked at."""
    BEFORE_ACK = "before_ack"
    """The claims are answered; the queue still holds the doorbells."""
    AFTER_ACK = "after_ack"
    """The queue has been told that the doorbells need not come again."""

    # -- a transaction of the committer --
    BEFORE_COMMIT = "before_commit"
    """A batch is composed and goes to the store, for the first time or again."""
    AFTER_COMMIT = "after_commit"
    """A batch is durable; nobody in this process has drawn a conclusion from it."""
    AFTER_COMMIT_OF_CLAIMS = "after_commit_of_claims"
    """The same, of a batch by which steps were claimed."""
    AFTER_COMMIT_OF_SETTLEMENTS = "after_commit_of_settlements"
    """The same, of a batch with answers of services."""
    AFTER_COMMIT_OF_STARTS = "after_commit_of_starts"
    """The same, of a batch by which workflows were started."""

    # -- from a claim to a settlement --
    BEFORE_RATE_GRANT = "before_rate_grant"
    """A claimed step is about to ask when its rate limit lets it call."""
    AFTER_RATE_GRANT = "after_rate_grant"
    """It may call now: its turn counts, and nobody was called."""
    BEFORE_CALL = "before_call"
    """The service is about to be asked to execute a step."""
    AFTER_CALL = "after_call"
    """The answer to an execute is in hand, and nowhere else."""
    BEFORE_COMPENSATE_CALL = "before_compensate_call"
    """The service is about to be asked to compensate a step."""
    AFTER_COMPENSATE_CALL = "after_compensate_call"
    """The answer to a compensate is in hand, and nowhere else."""
    BEFORE_SETTLE = "before_settle"
    """An answer is about to be offered to the committer."""
    AFTER_SETTLE = "after_settle"
    """An answer is durable; its slot is still taken."""
    BEFORE_GIVE_BACK = "before_give_back"
    """A step that was claimed but not called is about to be given back."""

    # -- after a commit --
    BEFORE_RING = "before_ring"
    """Doorbells are about to be published."""
    AFTER_RING = "after_ring"
    """The queue has taken the doorbells."""
    BEFORE_NOTICE = "before_notice"
    """Workflows have ended; those who wait for them are about to be told."""

    # -- what clients ask --
    AFTER_REGISTER = "after_register"
    """A definition is stored; the client was not answered."""
    BEFORE_START = "before_start"
    """A start has been checked; nothing of it is stored."""
    AFTER_START = "after_start"
    """A start is durable; the client was not answered."""
    BEFORE_VERB = "before_verb"
    """Somebody wants something done to a workflow that is known; nothing of it is stored."""
    AFTER_VERB = "after_verb"
    """What was asked for is durable; the client was not answered."""
    AFTER_BULK_BEGAN = "after_bulk_began"
    """A bulk job is durable; nobody works on it, and the client was not answered."""
    BEFORE_BULK_RECORD = "before_bulk_record"
    """Some workflows of a bulk job had their turn; what became of them is not kept yet."""
    BEFORE_CALLBACK = "before_callback"
    """A service says by a callback how an attempt went; nothing of it is stored."""
    AFTER_CALLBACK = "after_callback"
    """What it said is durable; the service was not answered."""

    # -- gate and heart --
    GATE_PROBE = "gate_probe"
    """The service is about to be asked whether it is ready."""
    GATE_CHANGED = "gate_changed"
    """The gate has opened or closed; nobody was told."""
    HEARTBEAT = "heartbeat"
    """A sign of life is about to be written."""

    # -- leading --
    AFTER_ELECTION = "after_election"
    """The election was won; there is no epoch yet."""
    AFTER_MINT_EPOCH = "after_mint_epoch"
    """The epoch is minted, and all earlier ones are void; no duty was done."""
    BEFORE_DUTY = "before_duty"
    """Some duty is about to be done."""
    BEFORE_DUTY_COMMIT = "before_duty_commit"
    """A duty has found workflows to move, and is about to commit them."""
    AFTER_DUTY_COMMIT = "after_duty_commit"
    """A duty's batch is durable; nobody was rung for or told."""
    AFTER_LEASES = "after_leases"
    """The duty that ends leases is done for this round."""
    AFTER_TIMERS = "after_timers"
    """The leader has fired the timers that were due."""
    AFTER_REVIEWS = "after_reviews"
    """The leader has looked again at the rollbacks that are open."""
    AFTER_CATALOGUES = "after_catalogues"
    """The duty that compares the catalogues of replicas is done for this round."""
    AFTER_BULK = "after_bulk"
    """The leader has looked after bulk jobs whose sidecars have gone, and forgotten old ones."""
    AFTER_DEBTS = "after_debts"
    """The leader has told what is owed."""
    AFTER_LETTERS = "after_letters"
    """The leader has brought the letters that nobody had."""
    AFTER_TURNS = "after_turns"
    """The leader has looked who can begin."""
    AFTER_DEADLINES = "after_deadlines"
    """The duty that fires deadlines is done for this round."""
    AFTER_RING_AGAIN = "after_ring_again"
    """The duty that rings again is done for this round."""
    AFTER_SIDECARS = "after_sidecars"
    """The duty that forgets silent sidecars is done for this round."""
    RESIGN = "resign"
    """The duties have ended; the term is about to be given back."""

    # -- going --
    DRAIN_BEGAN = "drain_began"
    """No more work is wanted; everything still runs."""
    DRAIN_STOPPED_RECEIVING = "drain_stopped_receiving"
    """Nothing more is received, and the last claims are answered."""
    DRAIN_LEFT_QUEUE = "drain_left_queue"
    """The queue has been left; what was not acknowledged goes to others."""
    DRAIN_RESIGNED = "drain_resigned"
    """There is no candidate here any more; calls may be under way."""
    DRAINED = "drained"
    """No call is under way any more, and every answer is settled."""
    GOODBYE = "goodbye"
    """Everything has stopped; the store is about to be told that this incarnation is gone."""


class Action(StrEnum):
    """What happens at a site."""

    KILL9 = "kill9"
    STOP = "stop"
    RAISE = "raise"
    SLEEP = "sleep"


class InjectedBug(Exception):
    """Raised by a failpoint; not a `GoConductorError`, so nobody can be prepared for it."""


@dataclass(slots=True)
class Failpoint:
    """What is to happen at a site, and how often the site was passed since it was armed."""

    site: Site
    action: Action
    nth: int = 1
    and_later: bool = False
    seconds: float = 0.0
    passes: int = 0

    def __str__(self) -> str:
        """As it is written."""
        span = f"={self.seconds:g}s" if self.action is Action.SLEEP else ""
        return f"{self.site}:{self.action}{span}@{self.nth}{'+' if self.and_later else ''}"

    def passed(self) -> bool:
        """Count one pass; return whether it is the one."""
        self.passes += 1
        return self.passes == self.nth or (self.and_later and self.passes > self.nth)

    def fire(self) -> None:
        """Tell, and act."""
        log.warning("failpoint_fires", failpoint=str(self), passes=self.passes)
        sys.stderr.flush()  # whatever the log is set up to be: it must be out before the end
        _act(self)


_armed: dict[Site, list[Failpoint]] = {}


def failpoint(site: Site) -> None:
    """Pass `site`: nothing happens unless it is armed."""
    if _armed:
        # All count before one acts: a bug raised by the first must hide no pass from the second.
        for one in [one for one in _armed.get(site, ()) if one.passed()]:
            one.fire()


def arm(written: str) -> None:
    """Arm what the list says, instead of whatever was armed. Raises `ConfigError`."""
    found: dict[Site, list[Failpoint]] = {}
    for one in parse(written):
        found.setdefault(one.site, []).append(one)
    _armed.clear()
    _armed.update(found)
    for armed in found.values():
        for one in armed:
            log.warning("failpoint_armed", failpoint=str(one))


def arm_from(env: Mapping[str, str]) -> None:
    """Arm what the environment asks for, which is nothing as a rule. Raises `ConfigError`."""
    arm(env.get(VARIABLE, ""))


def disarm() -> None:
    """Let every site be passed unharmed again."""
    _armed.clear()


def parse(written: str) -> list[Failpoint]:
    """Read a list of failpoints; an empty text is none. Raises `ConfigError`."""
    return [_parse_one(part.strip()) for part in written.split(",")] if written.strip() else []


def _parse_one(part: str) -> Failpoint:
    match = _WRITTEN.fullmatch(part)
    if match is None:
        raise _wrong(part, f"is not a failpoint; {_FORM}")
    site, action = match["site"], match["action"]
    if site not in list(Site):
        raise _wrong(part, f"there is no site {site!r}; there are: {', '.join(Site)}")
    if action not in list(Action):
        raise _wrong(part, f"there is no action {action!r}; there are: {', '.join(Action)}")
    if (match["span"] is not None) is not (action == Action.SLEEP):
        raise _wrong(part, "sleep, and only sleep, has a duration, like sleep=500ms")
    seconds = 0.0
    if match["span"] is not None:
        try:
            seconds = parse_duration(match["span"]).total_seconds()
        except ValueError as error:
            raise _wrong(part, f"{match['span']!r} {error}") from None
    nth, and_later = 1, False
    if match["nth"] is not None:
        number = _NTH.fullmatch(match["nth"])
        if number is None:
            raise _wrong(part, f"{match['nth']!r} is no pass; it is a number from 1 on, or 1+")
        nth, and_later = int(number[1]), bool(number[2])
    return Failpoint(Site(site), Action(action), nth, and_later, seconds)


def _wrong(part: str, why: str) -> ConfigError:
    return ConfigError(f"{VARIABLE}: {part!r}: {why}")


def _act(one: Failpoint) -> None:
    match one.action:
        case Action.KILL9:
            signal.raise_signal(signal.SIGKILL)
            # The first process of a container is shielded from its own signals.
            os._exit(_KILLED)
        case Action.STOP:
            signal.raise_signal(signal.SIGSTOP)
        case Action.RAISE:
            raise InjectedBug(f"a failpoint: {one}")
        case Action.SLEEP:
            time.sleep(one.seconds)
