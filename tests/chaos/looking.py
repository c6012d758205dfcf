"""What PostgreSQL says of a world in its middle: steps by status, tries spent, workflows by end."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.chaos.world import World

_SCHEMA = "goconductor"


def statuses(world: World, step: str, definition: str | None = None) -> Counter[str]:
    """How many steps of this name (of one definition, or of all) have which status."""
    found = _rows(
        world,
        "SELECT s.status, count(*) FROM {0}.steps s JOIN {0}.workflows w ON w.id = s.workflow_id"
        " WHERE s.step = %s AND w.definition = coalesce(%s, w.definition) GROUP BY s.status",
        step,
        definition,
    )
    return Counter(dict(found))


def ends(world: World, definition: str) -> Counter[str]:
    """How many workflows of a definition have which status."""
    found = _rows(
        world,
        "SELECT status, count(*) FROM {0}.workflows WHERE definition = %s GROUP BY status",
        definition,
    )
    return Counter(dict(found))


def reasons(world: World) -> Counter[str]:
    """How many workflows have turned back for which reason; `none` have not."""
    found = _rows(world, "SELECT coalesce(reason, 'none'), count(*) FROM {0}.workflows GROUP BY 1")
    return Counter(dict(found))


def in_tree(world: World, root: str, step: str) -> list[tuple[str, str]]:
    """The steps of this name in a tree of workflows: whose they are, and their statuses.

    One whose turn has not come has no row yet.
    """
    return _rows(
        world,
        "SELECT w.id::text, s.status FROM {0}.steps s JOIN {0}.workflows w ON w.id = s.workflow_id"
        " WHERE %s IN (w.id::text, w.root_id::text) AND s.step = %s",
        root,
        step,
    )


def status(world: World, workflow: str) -> str:
    """The status of a workflow that exists."""
    return str(_rows(world, "SELECT status FROM {0}.workflows WHERE id::text = %s", workflow)[0][0])


def tries(world: World, step: str) -> int:
    """How many tries the policies have counted for all steps of this name, both ways."""
    found = _rows(
        world, "SELECT coalesce(sum(tries + comp_tries), 0) FROM {0}.steps WHERE step = %s", step
    )
    return int(found[0][0])


def workflows(world: World) -> int:
    """How many workflows there are."""
    return int(_rows(world, "SELECT count(*) FROM {0}.workflows")[0][0])


def _rows(world: World, query: str, *values: Any) -> list[Any]:
    with world.connect() as connection:
        return connection.execute(query.format(_SCHEMA).encode(), values).fetchall()
