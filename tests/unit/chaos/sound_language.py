"""A small run of what the language has, in which all is well; violations are planted into copies.

Two trips: one completed, one was rolled back. A trip opens, pays by a child, books each leg of a
fan-out, one at a time, of which one may fail, goes by one of two ways, waits a while, and closes.
Trips of one account take turns. What closes was taken on with a 202, and done later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tests.chaos.book import Fact
from tests.chaos.expectations import Rate
from tests.chaos.graphs import FanOut, Graph
from tests.chaos.rows import Crowd, LeaderSample, Rows, StepRow
from tests.unit.chaos.sound_run import Run, Writer, mark

DONE, UNDONE = "t-done", "t-undone"
PAID, REPAID = "c-paid", "c-repaid"
ACCOUNT = '"seven"'
AFTER: dict[str, tuple[str, ...]] = {
    "open": (),
    "pay": ("open",),
    "legs": ("pay",),
    "by_air": ("legs",),
    "by_sea": ("legs",),
    "go": ("by_air", "by_sea"),
    "rest": ("go",),
    "mail": ("rest",),
    "close": ("mail",),
}
TRIP = Graph(
    AFTER,
    frozenset(AFTER) - {"rest"},
    any_of=frozenset({"go"}),
    optional=frozenset({"mail"}),
    unsure=frozenset({"by_air", "by_sea", "mail"}),
    waits=frozenset({"rest"}),
    children=frozenset({"pay"}),
    fans={"legs": FanOut(parallel=2, tolerated=1)},
    shown={"go": ("legs",), "mail": (), "close": ("mail",)},
    limits={"legs": 1},
)
SEAT = '"seat"'
CHARGE = Graph({"charge": ()}, frozenset({"charge"}), gives="charge")
LIMIT = 1
RATES = {"/go": Rate(LIMIT, 0.5)}
LEGS = ("legs[0]", "legs[1]", "legs[2]")


class _Trip(Writer):
    """Writes what else may happen to a workflow."""

    def begin(self, step: str, status: str, cause: str = "ready") -> None:
        self.note("step", cause, ("pending", status), step=step, action="execute")

    def end_step(self, step: str, moved: tuple[str, str], cause: str) -> None:
        self.note("step", cause, moved, step=step, action="execute")

    def execute_later(self, step: str) -> None:
        """202, and the callback."""
        run = {"step": step, "action": "execute"}
        self.note("step", "ready", ("pending", "queued"), **run)
        self.note("step", "claimed", ("queued", "running"), **run, attempt=1)
        self.call(step, "execute", Fact.TAKEN_ON, 202)
        self.note("step", "pending", ("running", "waiting"), **run, attempt=1)
        self.call(step, "execute", Fact.APPLIED, 200)
        self._run.entries[-1] = replace(self._run.entries[-1], later=True)
        self.call(step, "execute", Fact.CALLED_BACK, 200)
        self._run.entries[-1] = replace(self._run.entries[-1], later=True)
        self.note("step", "done", ("waiting", "succeeded"), **run, attempt=1)

    def turned(self, step: str, moved: tuple[str, str], cause: str) -> None:
        """What is undone without a call."""
        self.note("compensation", cause, moved, step=step, action="compensate")


class LanguageRun(Run):
    """A run with the graphs of these trips."""

    def rows(self) -> Rows:
        return replace(super().rows(), graphs={("trip", 1): TRIP, ("charge", 1): CHARGE})


def sound_language() -> LanguageRun:
    """A run that no invariant complains of."""
    run = LanguageRun(
        leaders=[LeaderSample(1, "a")],
        crowds=[Crowd("trip", "", ACCOUNT, 1), Crowd("trip", "legs", SEAT, 1)],
    )
    _completed(run)
    _rolled_back(run)
    return run


def _completed(run: Run) -> None:
    trip = _begun(run, DONE)
    child = _charged(run, trip, PAID)
    child.end("completed", None, [_step(PAID, "charge")], **_child(DONE))
    _booked(trip)
    trip.begin("by_sea", "skipped", "condition_is_false")
    trip.execute("by_air")
    trip.execute("go")
    trip.begin("rest", "waiting", "waits")
    trip.end_step("rest", ("waiting", "succeeded"), "time_has_come")
    trip.execute("mail", Fact.REFUSED)
    trip.execute_later("close")
    trip.note("workflow", "all_steps_passed", ("in_progress", "completed"))
    steps = [_step(DONE, one) for one in ("open", "legs[0]", "legs[1]", "by_air", "go", "close")]
    steps += [
        _step(DONE, "pay", output={"mark": mark(PAID, "charge")}, attempt=0),
        _step(DONE, "legs", output=None, attempt=0, items=3),
        _step(DONE, "legs[2]", "failed", output=None, may_have_effect=False),
        _step(DONE, "by_sea", "skipped", output=None, attempt=0, may_have_effect=False),
        _step(DONE, "rest", output=None, attempt=0, may_have_effect=False),
        _step(DONE, "mail", "failed", output=None, may_have_effect=False),
    ]
    trip.end("completed", None, steps, **_turn())


def _rolled_back(run: Run) -> None:
    trip = _begun(run, UNDONE)
    child = _charged(run, trip, REPAID)
    _booked(trip, refused=LEGS[1:])
    trip.note("workflow", "step_failed", ("in_progress", "rolling_back"))
    for step in ("by_air", "by_sea", "go", "rest", "mail", "close"):
        trip.end_step(step, ("pending", "cancelled"), "step_failed")
    trip.turned("legs", ("failed", "compensating"), "undo")
    trip.undo("legs[0]")
    trip.turned("legs", ("compensating", "compensated"), "all_items_undone")
    trip.turned("pay", ("succeeded", "compensating"), "undo")
    child.seq_at(trip)
    child.note("workflow", "parent_turned_back", ("completed", "rolling_back"))
    child.undo("charge")
    child.note("workflow", "all_undone", ("rolling_back", "rolled_back"))
    row = _step(REPAID, "charge", "compensated", comp_attempt=1)
    child.end("rolled_back", "failed", [row], **_child(UNDONE))
    trip.seq_at(child)
    trip.turned("pay", ("compensating", "compensated"), "child_rolled_back")
    trip.undo("open")
    trip.note("workflow", "all_undone", ("rolling_back", "rolled_back"))
    kept = {"output": None, "may_have_effect": False}
    steps = [
        _step(UNDONE, "open", "compensated", comp_attempt=1),
        _step(UNDONE, "pay", "compensated", output={"mark": mark(REPAID, "charge")}, attempt=0),
        _step(UNDONE, "legs", "compensated", output=None, attempt=0, items=3),
        _step(UNDONE, "legs[0]", "compensated", comp_attempt=1),
        *(_step(UNDONE, one, "failed", **kept) for one in LEGS[1:]),
        *(
            _step(UNDONE, one, "cancelled", **kept, attempt=0)
            for one in ("by_air", "by_sea", "go", "rest", "mail", "close")
        ),
    ]
    trip.end("rolled_back", "failed", steps, **_turn())


def _begun(run: Run, workflow: str) -> _Trip:
    paid = mark(PAID if workflow == DONE else REPAID, "charge")
    shown: dict[str, dict[str, str | None]] = {
        **{leg: {"pay": paid} for leg in LEGS},
        "by_air": {"legs": str([mark(workflow, one) for one in LEGS[:2]] + ["-"])},
        "mail": {},
        "close": {"mail": "-"},
    }
    shown["go"] = shown["by_air"]
    trip = _Trip(run, workflow, AFTER, definition="trip", shown=shown)
    if run.events:
        trip.after_all()
    trip.note("workflow", "waits_for_its_turn", (None, "queued"))
    trip.note("workflow", "its_turn", ("queued", "in_progress"))
    trip.execute("open")
    return trip


def _charged(run: Run, trip: _Trip, workflow: str) -> _Trip:
    """The child of the trip does what it has to do."""
    trip.begin("pay", "waiting", "starts_child")
    child = _Trip(run, workflow, {"charge": ()}, definition="charge")
    child.seq_at(trip)
    child.note("workflow", "started", ("queued", "in_progress"))
    child.execute("charge")
    child.note("workflow", "all_steps_passed", ("in_progress", "completed"))
    trip.seq_at(child)
    trip.end_step("pay", ("waiting", "succeeded"), "child_completed")
    return child


def _booked(trip: _Trip, refused: tuple[str, ...] = LEGS[2:]) -> None:
    """The legs are booked one after the other."""
    trip.begin("legs", "waiting", "fans_out")
    for leg in LEGS:
        trip.execute(leg, Fact.REFUSED if leg in refused else Fact.APPLIED, takes_turns=True)
    well = len(refused) == 1
    ended = ("succeeded", "all_items_ended") if well else ("failed", "items_failed")
    trip.end_step("legs", ("waiting", ended[0]), ended[1])


def _child(parent: str) -> Mapping[str, object]:
    return {"parent": parent, "parent_step": "pay"}


def _turn() -> Mapping[str, object]:
    return {"turn": ACCOUNT, "turn_limit": 1}


def _step(workflow: str, step: str, status: str = "succeeded", **fields: object) -> StepRow:
    turn = SEAT if step in LEGS else None
    output = {"mark": mark(workflow, step)}
    row = StepRow(workflow, step, status, False, 1, 0, True, output, turn=turn)
    return replace(row, **fields)  # type: ignore[arg-type]
