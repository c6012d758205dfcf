"""The one statement that writes and claims for a whole batch.

It is a transaction of its own when nothing stands around it: one round trip, one commit. Claims
come last and never wait for a row. A claim locks step rows alone: it reads the workflow's flags
in the same statement and does not raise the workflow's revision; its line of history is written
with its settlement.

A claim also brings the state of its workflow, so that its settlement can be decided without
reading: `sidecar.adapters.postgres.kept` keeps it until then.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, LiteralString

from sidecar.adapters.postgres import claiming, records, rows
from sidecar.adapters.postgres.claiming import UNDER_TICKET, claiming_parts
from sidecar.adapters.postgres.sql import Connection, ask, load
from sidecar.adapters.postgres.written import Key, Written
from sidecar.ports.store import Batch, Claimed, Missing
from sidecar.saga.workflow import Step, StepKey, Workflow, WorkflowId

SQL = load(__file__)

OTHERS = 64
"""A workflow with more steps beside the one claimed is read anew when that one is settled; so is
one for which signals are kept, and a child, whose error its parent may want to know."""
LARGE = 4096
"""So is one in which an output that expressions may read takes more bytes than this."""


_WRITES_NOTHING = ("no_moves", "no_starts", "no_history")
_BLOCKS = ChainMap(SQL, claiming.SQL)


@dataclass(slots=True)
class Answer:
    """What the statement came to.

    `lost` are the workflows of which nothing was written: somebody holds them, they have moved
    since their state was read, or their start key is taken. `states` are the workflows of the
    steps claimed, where they came whole.
    """

    now: datetime
    lost: frozenset[WorkflowId]
    claimed: list[Claimed] = field(default_factory=list)
    refused: dict[Key, Missing] = field(default_factory=dict)
    states: list[Workflow] = field(default_factory=list)


async def write(
    connection: Connection, batch: Batch, written: Written, *, repeated: bool = False
) -> Answer:
    """Write what was decided and make the claims of `batch`.

    `repeated` says that an earlier try of the batch may have taken effect: then the claims
    under its ticket are the answer, and only what they leave open is claimed.
    """
    earlier = await _under_ticket(connection, batch) if repeated else None
    found = {(one.workflow, one.key) for one in earlier.claimed} if earlier else set()
    keys = [key for key in (batch.claim_keys.keys if batch.claim_keys else ()) if key not in found]
    limit = batch.claim_due.limit if batch.claim_due and not found else 0
    values = _values(batch) | written.records()
    if keys:
        values["keys"] = records.packed([_key_record(key) for key in keys])
    if limit:
        values["limit"] = limit
    statement = _statement(
        *_written_parts(written), *claiming_parts(due=limit > 0, named=bool(keys))
    )
    answer = _read(await ask(connection, statement, values), written)
    if earlier is not None:
        answer.claimed[:0] = earlier.claimed
    return answer


async def _under_ticket(connection: Connection, batch: Batch) -> Answer:
    found = await ask(connection, _statement(*_WRITES_NOTHING, *UNDER_TICKET), _values(batch))
    return _read(found, Written())


def _values(batch: Batch) -> dict[str, Any]:
    return {
        "namespace": batch.namespace,
        "service": batch.service,
        "owner": batch.incarnation,
        "ticket": batch.ticket,
        "margin_ms": round(batch.lease_margin.total_seconds() * 1000),
        "large": LARGE,
        "others": OTHERS,
    }


def _written_parts(written: Written) -> Iterator[str]:
    yield "moves" if written.before else "no_moves"
    yield "starts" if written.new else "no_starts"
    yield "history" if written.after else "no_history"
    if written.items:
        yield "items"
    if written.kept or written.unkept:
        yield "signals"
    if written.letters:
        yield "letters"
    if written.brought:
        yield "brought"
    if written.stands:
        yield "turns"


@cache
def _statement(*parts: str) -> LiteralString:
    """The statement with these parts: a part that is not needed costs time even when empty."""
    return "WITH\n" + ",\n".join(_BLOCKS[part] for part in parts) + "\n" + SQL["answer"]


def _read(answered: Sequence[rows.Answered], written: Written) -> Answer:
    now, lost = answered[0][:2]
    answer = Answer(now, frozenset(map(WorkflowId, lost)))
    steps: dict[WorkflowId, list[Step]] = {}
    partly: set[WorkflowId] = set()
    held: list[tuple[rows.Answered, Step]] = []
    for row in answered:
        match row[2]:
            case None:
                continue
            case "held":
                held.append((row, rows.held_step(row)))
            case "other":
                steps.setdefault(row[3], []).append(rows.held_step(row))
            case "large":
                partly.add(row[3])
            case why:
                answer.refused[row[3], StepKey(row[4], row[5])] = Missing(why)
    for row, step in held:
        workflow = written.after.get(row[3])
        if workflow is None or (workflow.id, step.key) not in written.claims:
            others = steps.get(row[3], [])
            workflow = rows.held_workflow(row, list(_newest(others, held, row[3])))
            if row[3] not in partly and len(others) < OTHERS and not (row[47] or row[49]):
                answer.states.append(workflow)
        answer.claimed.append(rows.claimed_of(row, step, workflow))
    return answer


def _newest(
    others: Iterable[Step], held: Iterable[tuple[rows.Answered, Step]], workflow: WorkflowId
) -> Iterable[Step]:
    """The steps of a workflow; of those claimed together each was also read beside the other."""
    yield from others
    for row, step in held:
        if row[3] == workflow:
            yield step


def _key_record(key: Key) -> dict[str, str | int]:
    workflow, step = key
    return {"workflow_id": workflow, "step": step.step, "idx": step.index}
