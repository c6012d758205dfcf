"""What the services of a world offer: some steps name an action in place of their paths.

What the catalogue says of it is pinned, so such a step runs as it did before. Each life of a
sidecar has paths of its own, as if it had come with a deploy: a call that goes anywhere else was
not looked up where it should be. Everything is drawn apart from the world, which stays as it was.
"""

from __future__ import annotations

import random
from typing import Any

from sidecar.definitions.catalogues import Catalogue, read_actions
from sidecar.definitions.findings import Findings
from sidecar.definitions.pins import pin_actions
from sidecar.saga.states import Action

PART = 0.4
"""Which part of the calls name an action."""
_PINNED = ("timeout", "retry", "callback_timeout", "status", "compensate")


class Offering:
    """The catalogues of one world."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(f"offering {seed}")
        self._actions: dict[str, dict[str, dict[str, Any]]] = {}

    def name_actions(self, document: dict[str, Any]) -> None:
        """Let some of the calls of a definition name actions, which are offered from now on."""
        for step in document["steps"]:
            if "execute" in step and self._draw.random() < PART:
                self._name_action(step)
        for problem in pin_actions(
            document, {(service, None): self.catalogue(service, "") for service in self._actions}
        ):
            raise AssertionError(problem)

    def _name_action(self, step: dict[str, Any]) -> None:
        offered = self._actions.setdefault(step["service"], {})
        plan = {"execute": step.pop("execute")}
        plan |= {key: step.pop(key) for key in _PINNED if key in step}
        step["action"] = f"action{len(offered)}"
        if self._draw.random() < 0.5 and "compensate" in plan:
            step["compensate"] = "from_catalogue"
        offered[step["action"]] = plan

    def catalogue(self, service: str, life: str) -> Catalogue:
        """What one life of a sidecar offers: the same at paths of its own."""
        findings = Findings()
        moved = {
            name: {key: _moved(key, value, life) for key, value in plan.items()}
            for name, plan in self._actions.get(service, {}).items()
        }
        found = read_actions(moved, findings)
        findings.check()
        return Catalogue(found.actions, version=1)


def _moved(key: str, value: Any, life: str) -> Any:
    if key not in ("execute", "compensate", "status") or value == "none":
        return value
    if isinstance(value, str):
        return f"/of{life}/{key}{value}"
    return {**value, "path": f"/of{life}/{key}{value['path']}"}


def is_elsewhere(path: str, action: Action, life: str) -> bool:
    """Whether a path is neither one that a definition names nor what this life offers for it."""
    return not path or (path.startswith("/of") and not path.startswith(f"/of{life}/{action}/"))
