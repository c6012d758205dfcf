"""Rate limits, on PostgreSQL: for all who ask at a time one statement, a transaction of its own.

It locks the meters of the paths that are asked for: however many sidecars ask, each sees what the
others were given. It is asked on the connections of what keeps a sidecar alive, and waits for none
of a client's questions.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import orjson

from sidecar.adapters.postgres.reading import Reading
from sidecar.adapters.postgres.sql import load
from sidecar.errors import StoreConflict
from sidecar.ports.rates import RateAnswer, RateAsk
from sidecar.saga.pacing import KEPT_GRANTED_US, KEPT_US, NEW_PATIENCE_US
from sidecar.saga.workflow import StepKey, WorkflowId

SQL = load(__file__)


class PostgresRates:
    """See `sidecar.ports.rates.Rates`."""

    readers: Reading
    vital: Reading

    async def ask_rates(
        self, namespace: str, service: str, asks: Sequence[RateAsk]
    ) -> Sequence[RateAnswer]:
        """Give each its turn, in their order."""
        values = values_of(namespace, service, asks)
        found = await self.vital.rows(SQL["ask"], **values)
        if len(found) < len(asks):  # a path is limited for the first time, or was forgotten
            paths = orjson.dumps(sorted({one.path for one in asks})).decode()
            scope = {"namespace": namespace, "service": service}
            await self.vital.rows(SQL["know_paths"], **scope, paths=paths)
            found = await self.vital.rows(SQL["ask"], **values)
        if len(found) < len(asks):
            raise StoreConflict("the meters of the rate limits were taken away")
        return [RateAnswer(row["wait"], row["granted"]) for row in found]

    async def promised_steps(self, workflow: WorkflowId) -> Collection[StepKey]:
        """Return the steps of a workflow that were sent away until their turn."""
        found = await self.readers.rows(SQL["promised_steps"], id=workflow)
        return {StepKey(row["step"], row["idx"]) for row in found}


def values_of(namespace: str, service: str, asks: Sequence[RateAsk]) -> dict[str, Any]:
    """What the question for turns is sent with."""
    return {
        "namespace": namespace,
        "service": service,
        "asks": orjson.dumps([_record(at, one) for at, one in enumerate(asks)]).decode(),
        "new_patience": NEW_PATIENCE_US,
        "kept_for": KEPT_US,
        "kept_granted": KEPT_GRANTED_US,
    }


def _record(at: int, ask: RateAsk) -> dict[str, Any]:
    return {
        "n": at,
        "path": ask.path,
        "every": ask.limit.interval,
        "tolerance": ask.limit.tolerance,
        "patience": ask.patience,
        "workflow_id": ask.workflow,
        "step": ask.key.step,
        "idx": ask.key.index,
        "action": ask.action.value,
        "tries": ask.tries,
    }
