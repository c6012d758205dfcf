"""The state diagrams of the documentation, drawn from the literal tables."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from sidecar.saga.states import STEP_TABLE, WORKFLOW_TABLE

Status = TypeVar("Status", bound=StrEnum)
Signal = TypeVar("Signal", bound=StrEnum)


def diagram(table: Mapping[Status, Mapping[Signal, Status]]) -> str:
    """Return a table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {next(iter(table))}"]
    for before, row in table.items():
        lines += [f"    {before} --> {after}: {signal}" for signal, after in row.items()]
        if not row:
            lines.append(f"    {before} --> [*]")
    return "\n".join(lines) + "\n"


def page() -> str:
    """Return `docs/states.md` as it must read."""
    return f"""# States

Drawn from the tables in `sidecar/saga/states.py` by `python -m tests.architecture.states_page`;
a test fails when this page and the tables part. An event that is not drawn here is illegal: it
raises an error and changes nothing. `error` and `compensation_failed` have no way out of
themselves: a person must act.

## Workflow

```mermaid
{diagram(WORKFLOW_TABLE)}```

## Step

A step that is `compensating` may be waiting for its turn, being called, or waiting for its next
try: its lease and its due time tell.

```mermaid
{diagram(STEP_TABLE)}```
"""
