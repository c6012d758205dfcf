"""Rate limits, in memory: the rule of `sidecar.saga.pacing` over two dicts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta

from sidecar.adapters.memory.handle import MemoryHandle
from sidecar.adapters.memory.tables import Promise, RateScope
from sidecar.ports.rates import RateAnswer, RateAsk
from sidecar.saga.pacing import KEPT_GRANTED_US, KEPT_US, Asked, Meter, give_turns
from sidecar.saga.states import Action
from sidecar.saga.workflow import StepKey, WorkflowId

_EPOCH = datetime.fromtimestamp(0, UTC)


class MemoryRates(MemoryHandle):
    """See `sidecar.ports.rates.Rates`."""

    async def ask_rates(
        self, namespace: str, service: str, asks: Sequence[RateAsk]
    ) -> Sequence[RateAnswer]:
        """Give each its turn, in their order."""
        self.check_open()
        now = (self.clock.now() - _EPOCH) // timedelta(microseconds=1)
        promises = self.tables.promises
        places: defaultdict[str, list[int]] = defaultdict(list)
        for at, ask in enumerate(asks):
            places[ask.path].append(at)
        answers: dict[int, RateAnswer] = {}
        for path, mine in places.items():
            scope = (namespace, service, path)
            wanted = [asks[at] for at in mine]
            keys = [(one.workflow, one.key, one.action) for one in wanted]
            asked = [
                Asked(self._promised(scope, key, one.tries), one.patience)
                for key, one in zip(keys, wanted, strict=True)
            ]
            meter = self.tables.meters.get(scope, Meter())
            self.tables.meters[scope], turns = give_turns(wanted[0].limit, meter, asked, now)
            for at, key, turn in zip(mine, keys, turns, strict=True):
                tries = asks[at].tries
                if turn.granted and not turn.promised:
                    promises.pop(key, None)
                else:
                    until = turn.moment + (KEPT_GRANTED_US if turn.granted else KEPT_US)
                    promises[key] = Promise(scope, turn.promise, tries, turn.granted, until)
                answers[at] = RateAnswer(turn.moment - now, turn.granted)
        asking = {(one.workflow, one.key, one.action) for one in asks}
        for key, promise in list(promises.items()):
            swept = promise.scope[:2] == (namespace, service) and key not in asking
            if swept and promise.kept_until < now:
                del promises[key]
        return [answers[at] for at in range(len(asks))]

    async def promised_steps(self, workflow: WorkflowId) -> Collection[StepKey]:
        """Return the steps of a workflow that were sent away until their turn."""
        self.check_open()
        kept = self.tables.promises.items()
        return {key for (known, key, _), one in kept if known == workflow and not one.granted}

    def _promised(
        self, scope: RateScope, key: tuple[WorkflowId, StepKey, Action], tries: int
    ) -> int | None:
        promise = self.tables.promises.get(key)
        if promise is None or (promise.scope, promise.tries) != (scope, tries):
            return None
        return promise.moment
