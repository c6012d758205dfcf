"""The whole language under harm: families, fan-outs, callbacks, waits, turns, choices.

Each definition is short, and is started well and with services that refuse, call back later, or
never do. Its steps are patient: a run may kill whoever holds them many times.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from typing import Any

from tests.chaos.definitions import COMPLETED, ROLLED_BACK, Order, step
from tests.chaos.expectations import Rate
from tests.chaos.helping import HELPED, HELPS, help_on
from tests.chaos.looking import in_tree
from tests.chaos.rotations import PATIENT
from tests.chaos.rows import unfinished
from tests.chaos.world import World

SIGNAL = "go"
OPEN_MOST = 60
LOOKS_EVERY_S = 0.25
_BEHAVE = "${input.behave}"
_HASTY = {**PATIENT, "max_attempts": 2}
"""For what fails anyhow: elsewhere it would be a death that decides how a workflow ends."""


def call(name: str, service: str, after: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """A patient call, that may be finished by a callback."""
    return step(name, service, after, **{"retry": PATIENT, "callback_timeout": "4s", **more})


def child(name: str, definition: str, after: tuple[str, ...], **more: Any) -> dict[str, Any]:
    """A step that runs a child, which is told how its services behave."""
    sent = {"order": "${input.order}", "behave": _BEHAVE}
    return {"name": name, "workflow": definition, "after": list(after), "input": sent, **more}


def told(name: str) -> str:
    """What is shown of a step that may never have succeeded: the mark, or a dash."""
    return f'${{steps.{name}.status == "succeeded" ? steps.{name}.output.mark : "-"}}'


def marks(name: str) -> str:
    """What is shown of a fan-out: the marks of its items, and a dash for each that failed."""
    return f'${{steps.{name}.output.map(one, one == null ? "-" : one.mark)}}'


def _item(behave: str, **seen: str) -> dict[str, Any]:
    return {"order": "${input.order}", "behave": behave, "seen": seen}


def _closing(name: str, service: str, before: str, shown: str, **more: Any) -> dict[str, Any]:
    """A last step that is shown something of the one before it."""
    ended = call(name, service, (before,), **more)
    ended["input"]["seen"] = {before: shown}
    return ended


STAMP: dict[str, Any] = {
    "name": "stamp",
    "output": {"mark": "${steps.enter.output.mark}"},
    "steps": [call("stick", "shipping"), call("enter", "payments", ("stick",))],
}
PARCEL: dict[str, Any] = {
    "name": "parcel",
    "output": {"mark": "${steps.label.output.mark}"},
    "steps": [
        call("pack", "inventory"),
        child("stamp", "stamp", ("pack",)),
        call("label", "shipping", ("stamp",)),
    ],
}
FAMILY: dict[str, Any] = {
    "name": "family",
    "steps": [
        call("open", "payments"),
        child("parcel", "parcel", ("open",)),
        call("close", "inventory", ("parcel",)),
    ],
}
FAN: dict[str, Any] = {
    "name": "fan",
    "compensation": {"mode": "central"},
    "steps": [
        call("open", "payments"),
        call(
            "lines",
            "shipping",
            ("open",),
            for_each="${input.lines}",
            max_parallel=2,
            tolerated_failures=2,
            input=_item("${each.item}", open="${steps.open.output.mark}"),
        ),
        _closing("close", "inventory", "lines", marks("lines")),
    ],
}
PARCELS: dict[str, Any] = {
    "name": "parcels",
    "steps": [
        call("open", "inventory"),
        {
            "name": "stamps",
            "workflow": "stamp",
            "after": ["open"],
            "for_each": "${input.lines}",
            "max_parallel": 3,
            "tolerated_failures": 1,
            "input": {"order": "${input.order}", "behave": {"enter": "${each.item}"}},
        },
        _closing("close", "shipping", "stamps", marks("stamps")),
    ],
}
LATE: dict[str, Any] = {
    "name": "late",
    "steps": [
        call("open", "shipping"),
        call("work", "payments", ("open",)),
        call("close", "inventory", ("work",)),
    ],
}
FORGOTTEN: dict[str, Any] = {
    "name": "forgotten",
    "steps": [
        call("open", "payments"),
        call("work", "inventory", ("open",), callback_timeout="300ms", retry=_HASTY),
    ],
}
SIGNALLED: dict[str, Any] = {
    "name": "signalled",
    "steps": [
        call("open", "inventory"),
        {"name": "rest", "after": ["open"], "wait": {"duration": "200ms"}},
        {"name": "approve", "after": ["rest"], "wait": {"signal": SIGNAL, "timeout": "10m"}},
        {**call("close", "payments", ("approve",)), "input": _item("well")},
    ],
}
TURN: dict[str, Any] = {
    "name": "turn",
    "concurrency": {"key": "${string(input.account)}", "limit": 1},
    "steps": [call("open", "payments"), call("close", "inventory", ("open",))],
}
COUNTER: dict[str, Any] = {
    "name": "counter",
    "steps": [
        call("open", "inventory"),
        call(
            "press",
            "payments",
            ("open",),
            concurrency={"key": "${string(input.account)}", "limit": 1},
        ),
        call(
            "labels",
            "shipping",
            ("press",),
            for_each="${input.lines}",
            tolerated_failures=1,
            input=_item("${each.item}", press="${steps.press.output.mark}"),
            concurrency={"key": "printer", "limit": 2},
        ),
        _closing("close", "inventory", "labels", marks("labels")),
    ],
}
METERED: dict[str, Any] = {
    "name": "metered",
    "steps": [
        call("open", "inventory"),
        {
            "name": "count",
            "service": "payments",
            "action": "count",
            "compensate": "from_catalogue",
            "after": ["open"],
            "input": {
                **_item('${input.behave.?count.orValue("well")}'),
                "seen": {"open": "${steps.open.output.mark}"},
            },
        },
        call("close", "shipping", ("count",)),
    ],
}
CHOICE: dict[str, Any] = {
    "name": "choice",
    "steps": [
        call("check", "inventory"),
        call("by_hand", "payments", ("check",), when="${input.order % 2 == 0}"),
        call("by_machine", "shipping", ("check",), when="${input.order % 2 == 1}"),
        {
            **call("either", "payments", ("by_hand", "by_machine"), join="any"),
            "input": _item('${input.behave.?either.orValue("well")}'),
        },
        call("mail", "shipping", ("either",), optional=True),
        _closing("close", "inventory", "mail", told("mail")),
    ],
}
LANGUAGE: tuple[dict[str, Any], ...] = (
    STAMP,
    PARCEL,
    FAMILY,
    FAN,
    PARCELS,
    LATE,
    FORGOTTEN,
    SIGNALLED,
    TURN,
    COUNTER,
    METERED,
    CHOICE,
    HELPED,
)
"""Children before their parents, as they have to be registered."""

OFFERED: Mapping[str, Any] = {
    "actions": {
        "count": {
            "execute": "/count",
            "compensate": {"path": "/undo/count", "timeout": "1s"},
            "timeout": "1s",
            "retry": PATIENT,
            "callback_timeout": "4s",
            "rate_limit": {"limit": 1, "per": "500ms"},
        },
    },
}
"""Settings of the sidecars: what definitions call by name, and how often that may be called."""
RATES = {"/count": Rate(limit=1, per_s=0.5)}

ACCOUNTS = 2
_LINES = ("well", "later", "later_refuse", "well", "refuse")


def _lines(definition: str, *lines: str, ends: frozenset[str], **behave: str) -> Order:
    return Order(definition, behave, comes_to=ends, more={"lines": list(lines)})


def _counter(account: int, *lines: str, ends: frozenset[str], **behave: str) -> Order:
    given = {"account": account, "lines": list(lines)}
    return Order("counter", behave, comes_to=ends, more=given)


ORDERS: tuple[Order, ...] = (
    Order("family"),
    Order("family", {"stick": "later", "pack": "later"}),
    Order("family", {"close": "refuse"}),
    Order("family", {"close": "refuse", "enter": "later"}),
    Order("family", {"enter": "refuse"}),
    Order("family", {"label": "later_refuse"}),
    _lines("fan", *_LINES, ends=COMPLETED),
    _lines("fan", *_LINES, "well", ends=ROLLED_BACK, close="refuse"),
    _lines("fan", "later", *_LINES, "later_refuse", "well", ends=ROLLED_BACK),
    _lines("fan", ends=COMPLETED),
    _lines("parcels", "well", "refuse", "later", "well", ends=COMPLETED),
    _lines("parcels", "well", "later", "refuse", ends=ROLLED_BACK, close="refuse"),
    _lines("parcels", "refuse", "well", "later_refuse", "well", ends=ROLLED_BACK),
    Order("late", {"work": "later"}),
    Order("late", {"work": "later", "close": "later_refuse"}),
    Order("forgotten", {"work": "forget"}),
    *(Order("turn", more={"account": one}) for one in range(ACCOUNTS)),
    *(Order("turn", {"close": "refuse"}, more={"account": one}) for one in range(ACCOUNTS)),
    _counter(0, "well", "later", "refuse", ends=COMPLETED, press="later"),
    _counter(0, "later_refuse", "well", ends=ROLLED_BACK, close="refuse"),
    _counter(1, "well", "well", ends=ROLLED_BACK, press="later_refuse"),
    _counter(1, "later", "well", ends=COMPLETED, press="later"),
    Order("metered"),
    Order("metered", {"count": "later", "close": "refuse"}),
    Order("choice"),
    Order("choice", {"mail": "refuse"}, comes_to=COMPLETED),
    Order("choice", {"close": "refuse"}),
)
"""What needs nobody to come to its end."""

SIGNALLED_ORDER = Order("signalled", comes_to=COMPLETED)
CANCELLED = (
    Order("family", {"label": "later"}),
    Order("family", {"close": "later"}),
    _lines("parcels", "later", "well", "later", ends=COMPLETED),
    Order("turn", more={"account": 0}),
    _counter(0, "later", "later", "later", ends=COMPLETED, press="later"),
)
CAN_BE_CANCELLED: Mapping[str, frozenset[str]] = dict.fromkeys(
    ("family", "parcels", "turn", "counter", "signalled"), ROLLED_BACK
)
"""Also legal where clients cancel."""


class Talk:
    """Those who start all of it, send signals, pause, resume and cancel: a portion at a time."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._draw = random.Random(f"talk {seed}")
        self._helps = cycle(HELPS)
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="chaos-talk")
        self._said: list[Future[Any]] = []

    def portion(self) -> None:
        """Start one of each kind, and let clients meddle with some more; wait for nothing."""
        world, names, say = self._world, list(self._world.sidecars), self._pool.submit
        self._said.append(world.begin_load(len(ORDERS), ORDERS, parallel=4))
        for name in names:
            self._said += (
                say(self._signal, name, self._draw.random()),
                say(self._cancel, self._draw.choice(CANCELLED), name),
                say(self._pause, self._draw.choice(ORDERS), name),
                say(help_on, world, next(self._helps), name),
            )

    def keep_busy(self) -> None:
        """Begin another portion if little is under way."""
        with self._world.connect() as connection:
            if unfinished(connection) < OPEN_MOST:
                self.portion()

    def _signal(self, at: str, chance: float) -> None:
        """Before anybody waits for it, or after that."""
        world = self._world
        workflow = world.start(SIGNALLED_ORDER)
        if workflow is None:
            return
        if chance < 0.5:
            world.wait_until(
                lambda: dict(in_tree(world, workflow, "approve")).get(workflow) is not None,
                within_s=120,
                what="the wait has begun, or never will",
                every_s=LOOKS_EVERY_S,
            )
            world.counts["signals:after"] += 1
        else:
            world.counts["signals:before"] += 1
        # Asked first is who may die of it; then anybody.
        status = world.tell(workflow, f"signals/{SIGNAL}", at=at, insist_s=0)
        if status is None:
            world.tell(workflow, f"signals/{SIGNAL}", insist_s=120)

    def _cancel(self, order: Order, at: str) -> None:
        workflow = self._world.start(order)
        if workflow is not None:
            self._world.cancel(workflow, at=at)

    def _pause(self, order: Order, at: str) -> None:
        workflow = self._world.start(order)
        if workflow is not None:
            self._world.tell(workflow, "pause", at=at, insist_s=0)
            self._world.tell(workflow, "resume", insist_s=120)

    def resume_all(self) -> None:
        """Resume whoever is paused: a pause in doubt may be heard after the resume was refused."""
        with self._world.connect() as connection:
            paused = connection.execute(
                b"SELECT id::text FROM goconductor.workflows WHERE paused"
                b" AND status NOT IN ('completed', 'rolled_back', 'error')"
            ).fetchall()
        for (workflow,) in paused:
            self._world.tell(workflow, "resume", insist_s=0)

    def close(self) -> None:
        """Return when nobody says anything any more; raises what went wrong."""
        self._pool.shutdown()
        for one in self._said:
            one.result()
