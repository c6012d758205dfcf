"""Those who talk to workflows that run: services that call back, people who signal and intervene.

All of them insist: what was not answered is asked again, as a client would.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from sidecar.adapters.services.memory import Act
from sidecar.errors import Conflict, GoConductorError, NotFound
from sidecar.ports.service import Call
from sidecar.saga.outcomes import OutcomeKind
from sidecar.saga.states import StepStatus
from sidecar.saga.workflow import Workflow, WorkflowId
from tests.simulation.language import SIGNAL
from tests.simulation.node import Node, NodeDied
from tests.simulation.sides import NAMESPACE

if TYPE_CHECKING:
    from tests.simulation.world import World

Asked = Callable[[Node], Awaitable[Any]]


class Talk:
    """Everybody who talks in one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = random.Random(f"talk {world.report.seed}")

    # -- services ---------------------------------------------------------------------------------

    def will_call_back(self, call: Call, act: Act) -> None:
        """A service has answered 202: it acts later, and says so, early or late."""
        delay = self._random.choice((0.0, 0.05, 1.0, 4.0, 12.0)) * self._random.random()
        self._world.loop.call_later(delay, self._begin, call, act, context=self._world.outside)

    def _begin(self, call: Call, act: Act) -> None:
        self._world.loop.spawn(self._call_back(call, act))

    async def _call_back(self, call: Call, act: Act) -> None:
        url = call.callback or ""
        token = url.rpartition("/")[2]
        if self._random.random() < 0.2:
            await self._insist(lambda node: node.agent.tasks.heartbeat(token), 3)
        # A retried call may have acted meanwhile: under its key there is one effect.
        told = self._world.service.act_later(call, act)
        if self._random.random() < 0.1:
            return  # it dies before it can say so
        if told.kind is OutcomeKind.DONE:
            output = {"mark": f"{call.owner}/{call.key}"}
            await self._insist(lambda node: node.agent.tasks.complete(token, output), 60)
        else:
            refusal = "refused" if told.kind is OutcomeKind.REFUSED else "unknown"
            await self._insist(
                lambda node: node.agent.tasks.fail(token, "scripted", outcome=refusal), 60
            )

    # -- people -----------------------------------------------------------------------------------

    async def about(self, workflow: WorkflowId, draw: random.Random) -> None:
        """Signal whoever may wait, and at times pause, resume and hurry a workflow."""
        await asyncio.sleep(draw.expovariate(0.5))
        if draw.random() < 0.15:
            await self._pause(workflow, draw)
        if draw.random() < 0.15:
            await self._insist(lambda node: node.agent.verbs.retry(NAMESPACE, workflow), 10)
        if draw.random() < 0.03:
            await self._insist(
                lambda node: node.agent.verbs.terminate(NAMESPACE, workflow, "enough"), 10
            )
            await self._insist(
                lambda node: node.agent.oversight.reruns.rerun(NAMESPACE, workflow), 10
            )
        for _ in range(self._signals(workflow)):
            await asyncio.sleep(draw.expovariate(0.3))
            sent = await self._insist(
                lambda node: node.agent.verbs.signal(NAMESPACE, workflow, SIGNAL, 1), None
            )
            if not sent:
                return  # it has ended, or turned back

    async def look_again(self) -> None:
        """Help on what waits for a person who does not know of it.

        A request to pause may come after the one to resume, and whoever was not told that the
        start took effect sends no signals.
        """
        for row in list(self._world.tables.rows.values()):
            known = row.workflow.id
            if row.workflow.paused:
                await self._insist(lambda node, it=known: node.agent.verbs.resume(NAMESPACE, it), 5)
            elif self._waits_for_a_signal(row.workflow):
                await self._insist(
                    lambda node, it=known: node.agent.verbs.signal(NAMESPACE, it, SIGNAL, 1), 5
                )

    def _waits_for_a_signal(self, workflow: Workflow) -> bool:
        definition = self._world.store.definition(workflow.definition)
        return any(
            step.status is StepStatus.WAITING
            and (wait := definition.by_name[step.key.step].wait) is not None
            and wait.signal is not None
            for step in workflow.steps.values()
        )

    def _signals(self, workflow: WorkflowId) -> int:
        ref = self._world.tables.rows[workflow].workflow.definition
        definition = self._world.store.definition(ref)
        return 2 * sum(1 for step in definition.steps if step.wait and step.wait.signal)

    async def _pause(self, workflow: WorkflowId, draw: random.Random) -> None:
        if await self._insist(lambda node: node.agent.verbs.pause(NAMESPACE, workflow), 10):
            await asyncio.sleep(draw.uniform(0.1, 15.0))
        await self._insist(lambda node: node.agent.verbs.resume(NAMESPACE, workflow), None)

    async def _insist(self, ask: Asked, most: int | None) -> bool:
        """Ask until it is answered, or so often; return whether it was done.

        Sent twice, a signal is kept twice: more of them than steps that wait do no harm.
        """
        tries = 0
        while most is None or tries < most:
            tries += 1
            node = self._world.some_node()
            if node is not None:
                try:
                    await node.request(ask(node))
                except (Conflict, NotFound):
                    return False
                except (GoConductorError, NodeDied, TimeoutError):
                    pass
                else:
                    return True
            await asyncio.sleep(self._random.uniform(0.1, 3.0))
        return False
