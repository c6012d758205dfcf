"""Running a workflow again: a new one, with the same input and with keys of its own.

Services see other keys, so everything is done again; only the results of a workflow that was
terminated are kept, and what it owes is owed by the new one (`sidecar.saga.reruns`). Both histories
tell of it, in one transaction; the new workflow carries the id of the old one in its label
`rerun_of`.
"""

from __future__ import annotations

from typing import Literal

import orjson

from sidecar.engine.commands import Commands
from sidecar.engine.intake import MAX_LABELS
from sidecar.engine.queries import Queries, workflow_id
from sidecar.engine.verbs import checked_reason
from sidecar.engine.views import StartedView
from sidecar.ports.store import Rerun

LABEL = "rerun_of"


class Reruns:
    """Starts workflows again. Raises `StoreUnavailable`."""

    def __init__(self, commands: Commands, queries: Queries) -> None:
        self._commands = commands
        self._queries = queries

    async def rerun(
        self,
        namespace: str,
        workflow: str,
        version: int | Literal["latest"] | None = None,
        start_key: str | None = None,
        reason: str = "",
        actor: str = "api",
    ) -> StartedView:
        """Run a workflow that has ended again, on the same version unless another is named.

        Repeated with the same `start_key`, it is the same new workflow. Raises `NotFound`,
        `Conflict`, `InvalidRequest`, `StartKeyReused`.
        """
        checked_reason(reason)
        old = await self._queries.require(namespace, workflow_id(workflow))
        same = old.definition.version if version is None else version
        labels = dict(list(old.labels.items())[: MAX_LABELS - 1]) | {LABEL: old.id}
        return await self._commands.start(
            namespace,
            old.definition.name,
            None if same == "latest" else same,
            orjson.loads(old.input or "null"),
            start_key,
            labels,
            actor=actor,
            rerun=Rerun(old.id, reason),
        )
