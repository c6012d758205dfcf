"""Parents are cancelled in the middle; who took the cancel dies before a child hears of it."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.engine.failpoints import Site
from tests.chaos.definitions import ROLLED_BACK, Order
from tests.chaos.expectations import Expectations
from tests.chaos.language import call, child
from tests.chaos.looking import in_tree
from tests.chaos.sidecars import FAILPOINTS
from tests.chaos.test_kills import QUICK
from tests.chaos.world import World
from tests.servers.postgres import PostgresServer
from tests.servers.processes import ServerProcess

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(120)]

HELD = {"callback_timeout": "10m"}
"""A service that forgets to call back holds a step for as long as the test wants."""
LEAF: dict[str, Any] = {
    "name": "leaf",
    "output": {"mark": "${steps.stick.output.mark}"},
    "steps": [call("stick", "inventory", **HELD)],
}
BRANCH: dict[str, Any] = {
    "name": "branch",
    "output": {"mark": "${steps.label.output.mark}"},
    "steps": [
        call("pack", "inventory"),
        child("leaf", "leaf", ("pack",)),
        call("label", "payments", ("leaf",), **HELD),
    ],
}
TREE: dict[str, Any] = {
    "name": "tree",
    "steps": [
        call("open", "payments"),
        child("branch", "branch", ("open",)),
        call("close", "inventory", ("branch",), **HELD),
    ],
}
QUEUED: dict[str, Any] = {
    "name": "queued",
    "concurrency": {"key": "all", "limit": 1},
    "output": {"mark": "${steps.enter.output.mark}"},
    "steps": [call("enter", "payments", **HELD)],
}
QUEUES: dict[str, Any] = {
    "name": "queues",
    "steps": [call("open", "inventory"), child("turn", "queued", ("open",))],
}
LEAVES: dict[str, Any] = {
    "name": "leaves",
    "steps": [
        {
            "name": "leaf",
            "workflow": "leaf",
            "after": [],
            "for_each": ["well", "forget", "well"],
            "input": {"order": "${input.order}", "behave": {"stick": "${each.item}"}},
        },
    ],
}
DEFINITIONS = (LEAF, BRANCH, TREE, QUEUED, QUEUES, LEAVES)
HELD_AT: tuple[tuple[Order, str], ...] = (
    (Order("tree", {"stick": "forget"}), "stick"),
    (Order("tree", {"label": "forget"}), "label"),
    (Order("tree", {"close": "forget"}), "close"),
    (Order("queues", {"enter": "forget"}), "enter"),
    (Order("queues", {"enter": "forget"}), "turn"),
    (Order("leaves", comes_to=ROLLED_BACK), "stick"),
)
"""What holds it, and the step that waits then; the last of those that queue waits for its turn."""
CHILDREN = 3 * 2 + 2 * 1 + 3
CANCELLER = "shipping-1"
"""It has nothing to do but what the test asks of it, and dies of the first cancel that it keeps."""

TELLERS = ("payments-1", "inventory-1")
"""Whoever of them leads brings the first letter that was left, and dies of it."""


@pytest.mark.fault(27)
def test_a_child_is_undone_though_nobody_lived_to_tell_it(postgres_server: PostgresServer) -> None:
    """Who took the cancel dies with it kept, who tells the child before it tells a grandchild."""
    with World(
        seed=91,
        postgres=postgres_server,
        supervise=True,
        definitions=DEFINITIONS,
        settings=QUICK,
    ) as world:
        begun = [str(world.start(order)) for order, _ in HELD_AT]
        for workflow, (order, step) in zip(begun, HELD_AT, strict=True):
            world.wait_until(
                lambda it=(workflow, step): waits(world, *it),
                within_s=30,
                what=f"{order} waits at {step}",
            )
        for name in TELLERS:
            restarted(world, name, Site.AFTER_DUTY_COMMIT)
        # The last first: so the one that queues waits for its turn still.
        for workflow in reversed(begun):
            cancel_and_die(world, workflow)
        world.quiesce(within_s=60)
        least = {
            "rolled_back": len(HELD_AT) + CHILDREN,
            "children": CHILDREN,
            "letters_left": 3,
            "exits": len(HELD_AT) + 1,
            "cause:parent_turned_back": CHILDREN,
        }
        world.verify(Expectations(at_least=least, also_legal=ROLLED_BACK))
        told = [line for name in TELLERS for line in world.sidecars[name].said("failpoint_fires")]
        assert told, "nobody died who told a child"


def restarted(world: World, name: str, site: Site) -> ServerProcess:
    """Bring a sidecar back that dies at a site; its process."""
    world.terminate(name, within_s=0)
    world.restart(name, environment={FAILPOINTS: f"{site}:kill9@1"})
    process = world.sidecars[name].process
    world.wait_until(world.sidecars[name].ready, within_s=40, what=f"{name} is back")
    return process


def cancel_and_die(world: World, workflow: str) -> None:
    """Have it cancelled by one that dies as soon as that is kept."""
    process = restarted(world, CANCELLER, Site.AFTER_VERB)
    assert world.cancel(workflow, at=CANCELLER) is None
    world.wait_until(lambda: not process.alive, within_s=30, what=f"{CANCELLER} dies")
    with world.connect() as connection:
        left = connection.execute(
            b"SELECT count(*) FROM goconductor.letters WHERE sender = %s", (workflow,)
        ).fetchone()
    world.counts["letters_left"] += bool(left and left[0])
    world.wait_until(
        lambda: world.sidecars[CANCELLER].process is not process,
        within_s=30,
        what=f"{CANCELLER} is brought back",
    )


def waits(world: World, workflow: str, step: str) -> bool:
    """Whether a step of this name waits somewhere in the tree of a workflow."""
    return any(status == "waiting" for _, status in in_tree(world, workflow, step))
