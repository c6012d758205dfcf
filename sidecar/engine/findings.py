"""What the checker finds in a definition when it is registered, or asked for.

It explores for seconds at most, in a thread, so that nobody else waits for it. Its findings are
told and refuse nothing: whoever registers knows what a warning is worth.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time

from sidecar.definitions.checker import QUICK, Report, check
from sidecar.engine.compiled import CompiledDefinitions
from sidecar.saga.definition import Definition
from sidecar.saga.workflow import DefinitionRef


async def findings(definition: Definition, compiled: CompiledDefinitions) -> Report:
    """Check a definition with its children. Raises `NotFound` and `StoreError`."""
    children: dict[str, Definition] = {}
    for step in definition.steps:
        if step.child is not None:
            ref = DefinitionRef(definition.namespace, step.child.definition, step.child.version)
            children[step.child.definition] = await compiled.get(ref)
    limits = dataclasses.replace(QUICK, clock=time.monotonic)
    return await asyncio.to_thread(check, definition, children=children, limits=limits)
