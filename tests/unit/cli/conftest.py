"""The command, run against a real listener over the twins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from click.testing import CliRunner, Result

from sidecar.api.rest.app import build_app
from sidecar.api.rest.server import RestServer
from sidecar.cli.main import main
from sidecar.saga.states import Reason, WorkflowStatus
from tests.servers.facts import until
from tests.unit.engine.faces import Faces


class Terminal:
    """Runs commands against one sidecar, in a thread beside it."""

    def __init__(self, faces: Faces, server: str) -> None:
        self.faces, self.server = faces, server

    async def run(self, *words: str, stdin: str | None = None, actor: str | None = None) -> Result:
        """Run one command to its end."""
        environment = {"GOCONDUCTOR_SERVER": self.server, "GOCONDUCTOR_ACTOR": actor}
        return await asyncio.to_thread(
            CliRunner().invoke, main, list(words), input=stdin, env=environment
        )

    async def seen(self, *words: str) -> str:
        """Run one command that does what it should, and return what it prints."""
        result = await self.run(*words)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    async def end(self, status: WorkflowStatus, reason: Reason | None = None) -> None:
        """End the only workflow as soon as somebody waits for it."""
        faces = self.faces
        await until(lambda: bool(faces.store.workflows and faces.hub.waiters), within_s=20)
        (workflow,) = self.faces.store.workflows.values()
        self.faces.store.put(workflow, status=status, reason=reason)


@pytest.fixture
async def terminal() -> AsyncIterator[Terminal]:
    """A terminal, where the definition `order` is registered."""
    faces = Faces(look_every=0.05)
    await faces.register()
    await faces.hub.open()
    server = RestServer(build_app(faces.face()))
    host, port = await server.open("127.0.0.1", 0)
    yield Terminal(faces, f"http://{host}:{port}")
    await faces.hub.close()
    await server.close()
