"""A whole sidecar that is deployed with one catalogue after another."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace as changed
from typing import Any

import pytest

from sidecar.adapters.services.memory import Act, outcome
from sidecar.definitions.catalogues import Catalogue, read_actions
from sidecar.definitions.findings import Findings
from sidecar.engine.agent import Agent, Settings
from sidecar.saga.outcomes import OutcomeKind
from sidecar.saga.workflow import WorkflowId
from tests.unit.engine.parts import ME, SOON
from tests.unit.engine.whole import Whole

_K = OutcomeKind
OFFERED: dict[str, Any] = {
    "charge": {
        "execute": {"path": "/charges", "method": "PUT"},
        "compensate": {"path": "/refunds", "method": "DELETE", "on_status": {404: "done"}},
        "status": "/charges/status",
        "on_status": {409: "refused"},
        "retry": {"max_attempts": 1},
    },
    "ship": {"execute": "/shipments", "compensate": "none", "retry": {"max_attempts": 1}},
}
MOVED = {**OFFERED, "charge": {**OFFERED["charge"], "compensate": "/moved/refunds"}}
ORDER = [
    {"name": "pay", "service": "payments", "action": "charge"},
    {"name": "ship", "service": "payments", "action": "ship"},
]
REFUSES = Act(outcome(_K.REFUSED))
DOUBTS = Act(outcome(_K.UNKNOWN))


def catalogue(raw: dict[str, Any]) -> Catalogue:
    findings = Findings()
    found = read_actions(raw, findings)
    assert findings.problems() == []
    return found


class Deployed(Whole):
    """A sidecar that is deployed with one catalogue after another, over one store."""

    def __init__(self) -> None:
        super().__init__(settings=Settings(look=SOON, heartbeat_s=0.001, drain_s=5.0))

    async def deploy(self, raw: dict[str, Any]) -> None:
        """Replace the sidecar by one that offers something else."""
        await self.agent.stop()
        settings = changed(self.settings, catalogue=catalogue(raw))
        identity = changed(ME, incarnation=f"with {len(raw)} {id(settings)}")
        self.agent = Agent(identity, self.agent._ports, settings)
        await self.agent.start()

    async def register(self, *steps: dict[str, Any], **more: Any) -> int:
        """Register the definition `order` as a client does; return its version."""
        text = json.dumps({"name": "order", "steps": steps or ORDER}).encode()
        view, _, _ = await self.agent.commands.register_definition(
            "default", text, "application/json", **more
        )
        return view.version

    async def begin(self) -> WorkflowId:
        """Start a workflow of it."""
        return (await self.agent.commands.start("default", "order")).id

    def called(self) -> list[tuple[str, str, str]]:
        """The calls that came in: whose, how and where."""
        return [(one.key.step, one.method, one.path) for one in self.service.calls]


@pytest.fixture
async def deployed() -> AsyncIterator[Deployed]:
    one = Deployed()
    await one.deploy(OFFERED)
    yield one
    await one.agent.stop()
