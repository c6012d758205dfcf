"""What the services have done: a file of JSON lines, each written before its answer.

It only grows. The book plays the contract strictly: with `honours_keys` a key acts at most once
and is always answered alike; a compensation of what never came is recorded and answered well; an
execute that comes after its compensation is refused. Without, every request acts.

What a service says is steered by the field `behave` of a step's input:

    well           (or nothing) acts and answers 200
    refuse         422 to execute, without effect
    refuse_undo    422 to compensate, without effect
    refuse_once    422 to the first compensate, without effect
    undo_badly     acts on a compensate, and answers 422 to it
    fail           500 to every execute, without effect
    act_and_fail   acts, and answers 500 to every execute
    later          202 to both; acts later, and says by the callback that it is done
    later_refuse   202 to execute; says by the callback that it refuses
    forget         acts, answers 202 to every execute, and never calls back
    promise        202 to every execute, and never acts
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any


class Fact(StrEnum):
    """What a request came to."""

    APPLIED = "applied"
    """The effect happened now."""
    REPEATED = "repeated"
    """Its key had been answered before; the same answer again, no effect."""
    REFUSED = "refused"
    BARRED = "barred"
    """A compensation of what never came: nothing to undo, and nothing will be done."""
    TOO_LATE = "too_late"
    """An execute after its compensation: refused."""
    TAKEN_ON = "taken_on"
    """Promised for later: no effect yet."""
    CALLED_BACK = "called_back"
    """No request: the callback was answered with `status`; with the fault `again` not at once."""
    NOT_DONE = "not_done"
    """A fault, or a service that fails: no effect."""


_SETTLES_NOTHING = frozenset({Fact.NOT_DONE, Fact.REPEATED, Fact.TAKEN_ON, Fact.CALLED_BACK})


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. `at` is CLOCK_MONOTONIC; `own` is the service's answer, which its key keeps.

    `status` is what this request is answered: by a fault it is another one, or None for nothing.
    `input_hash` is that of the step's input as plain data, for both actions; `seen` is what the
    request shows of earlier outputs; `mark` is what a done execute answers, and must be shown.
    What was done `later` than its request, after a 202, has a line of its own.
    """

    at: float
    wall: float
    key: str
    path: str
    workflow: str
    step: str
    action: str
    attempt: int
    body_hash: str
    fact: Fact
    own: int | None
    status: int | None
    input_hash: str = ""
    fault: str | None = None
    mark: str | None = None
    seen: Mapping[str, str | None] = field(default_factory=dict)
    later: bool = False

    @property
    def applied(self) -> bool:
        """Whether the effect happened by this request."""
        return self.fact is Fact.APPLIED

    @property
    def effect(self) -> tuple[str, str]:
        """What is done at most once: a step of a workflow."""
        return self.workflow, self.step


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came in."""

    key: str
    path: str
    workflow: str
    step: str
    action: str
    attempt: int
    body: bytes
    callback: str = ""


class Book:
    """The file, and what it says; one process writes it."""

    def __init__(self, path: Path, *, honours_keys: bool = True) -> None:
        """Open or make the file, drop a last line that was cut short, and read the rest."""
        self._honours_keys = honours_keys
        self._answers: dict[str, int | None] = {}
        self._done: set[str] = set()
        self._undone: set[str] = set()
        self._refused: set[str] = set()
        whole = _whole_lines(path)
        self._file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o644)
        os.ftruncate(self._file, len(whole))
        for entry in _parse(whole):
            self._note(entry)

    def act(self, asked: Asked) -> Entry:
        """Do what is asked, write it down with its own answer, and return it."""
        fact, own = self._decide(asked)
        return self._write(asked, fact, own, (own, None))

    def act_badly(self, asked: Asked, told: int | None, fault: str) -> Entry:
        """Do what is asked; what is told of it is the fault's.

        Who is told that it is done asks no more: then it is done now, and not taken on.
        """
        fact, own = self._decide(asked)
        if fact is Fact.TAKEN_ON and told == 200:
            fact, own = self._decide(asked, later=True)
        return self._write(asked, fact, own, (told, fault))

    def act_late(self, asked: Asked, fault: str) -> Entry:
        """Do what is asked, hampered by a fault, and tell the truth of it."""
        fact, own = self._decide(asked)
        return self._write(asked, fact, own, (own, fault))

    def act_after_all(self, asked: Asked) -> Entry:
        """Do what was taken on, unless it is done or undone meanwhile."""
        fact, own = self._decide(asked, later=True)
        return self._write(asked, fact, own, (own, None), later=True)

    def called_back(self, asked: Asked, told: int | None, fault: str | None) -> Entry:
        """Write down what the callback was answered."""
        return self._write(asked, Fact.CALLED_BACK, None, (told, fault), later=True)

    def fail(self, asked: Asked, told: int | None, fault: str) -> Entry:
        """Write down that nothing was done, because of a fault."""
        return self._write(asked, Fact.NOT_DONE, None, (told, fault))

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _decide(self, asked: Asked, *, later: bool = False) -> tuple[Fact, int | None]:
        effect = _effect(asked.key)
        if self._honours_keys and asked.key in self._answers:
            return Fact.REPEATED, self._answers[asked.key]
        behave = behaviour(asked)
        if asked.action == "compensate":
            if behave == "refuse_undo":
                return Fact.REFUSED, 422
            if behave == "refuse_once" and asked.key not in self._refused:
                return Fact.NOT_DONE, 422
            if behave == "later" and not later:
                return Fact.TAKEN_ON, 202
            known = effect in self._done
            answer = 422 if behave == "undo_badly" else 200
            return (Fact.APPLIED if known else Fact.BARRED), answer
        if self._honours_keys and effect in self._undone:
            return Fact.TOO_LATE, 422
        if later:
            return (Fact.REFUSED, 422) if behave == "later_refuse" else (Fact.APPLIED, 200)
        by_behaviour = {
            "refuse": (Fact.REFUSED, 422),
            "fail": (Fact.NOT_DONE, 500),
            "act_and_fail": (Fact.APPLIED, 500),
            "later": (Fact.TAKEN_ON, 202),
            "later_refuse": (Fact.TAKEN_ON, 202),
            "promise": (Fact.TAKEN_ON, 202),
            "forget": (Fact.APPLIED, 202),
        }
        return by_behaviour.get(behave, (Fact.APPLIED, 200))

    def _write(
        self,
        asked: Asked,
        fact: Fact,
        own: int | None,
        told: tuple[int | None, str | None],
        *,
        later: bool = False,
    ) -> Entry:
        data = _read(asked.body)
        body_hash = hashlib.sha256(asked.body).hexdigest()[:16]
        mark = None
        if asked.action == "execute" and fact in (Fact.APPLIED, Fact.REPEATED):
            mark = hashlib.sha256(f"{asked.key} {body_hash}".encode()).hexdigest()[:16]
        entry = Entry(
            at=time.monotonic(),
            wall=time.time(),
            key=asked.key,
            path=asked.path,
            workflow=asked.workflow,
            step=asked.step,
            action=asked.action,
            attempt=asked.attempt,
            body_hash=body_hash,
            fact=fact,
            own=own,
            status=told[0],
            input_hash=plain_hash(input_of(asked.action, data)),
            fault=told[1],
            mark=mark,
            seen=_seen(asked.action, data),
            later=later,
        )
        os.write(self._file, json.dumps(asdict(entry)).encode() + b"\n")
        self._note(entry)
        return entry

    def _note(self, entry: Entry) -> None:
        if entry.fact is Fact.NOT_DONE and entry.own == 422:
            self._refused.add(entry.key)
        if entry.fact in _SETTLES_NOTHING:
            return
        self._answers[entry.key] = entry.own
        if entry.action == "compensate" and entry.fact is not Fact.REFUSED:
            self._undone.add(_effect(entry.key))
        elif entry.applied:
            self._done.add(_effect(entry.key))


def _effect(key: str) -> str:
    """What an execute and its compensation are both about: the key without its action."""
    return key.rpartition("/")[0]


def behaviour(asked: Asked) -> str:
    """How the service is told to behave by the input of the step."""
    wanted = input_of(asked.action, _read(asked.body))
    return str(wanted.get("behave", "well")) if isinstance(wanted, dict) else "well"


def input_of(action: str, data: Any) -> Any:
    """The step's input: the whole body of an execute, a part of a compensation's."""
    if action == "compensate":
        return data.get("input") if isinstance(data, dict) else None
    return data


def plain_hash(data: Any) -> str:
    """The hash of plain data, however it was written."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def answer(entry: Entry) -> dict[str, Any]:
    """The body of the answer."""
    if entry.status is not None and entry.status >= 400:
        return {"title": entry.fact.value, "detail": f"{entry.step} is {entry.fact.value}"}
    if entry.action == "compensate":
        return {"undone": entry.fact is not Fact.BARRED}
    return {"mark": entry.mark}


def read_entries(path: Path) -> list[Entry]:
    """All whole lines of a book; none if there is no book yet."""
    return _parse(_whole_lines(path))


def _parse(lines: bytes) -> list[Entry]:
    found = (json.loads(line) for line in lines.splitlines())
    return [Entry(**{**one, "fact": Fact(one["fact"])}) for one in found]


def _whole_lines(path: Path) -> bytes:
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def _read(body: bytes) -> Any:
    try:
        return json.loads(body) if body.strip() else None
    except ValueError:
        return None


def _seen(action: str, data: Any) -> dict[str, str | None]:
    if not isinstance(data, dict):
        return {}
    if action == "compensate":
        output = data.get("output")
        mark = output.get("mark") if isinstance(output, dict) else None
        return {"outcome": str(data.get("outcome")), "own": mark}
    seen = data.get("seen")
    return {str(name): str(mark) for name, mark in seen.items()} if isinstance(seen, dict) else {}
