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
from sidecar.saga.children import MAX_DEPTH
from sidecar.saga.definition import Definition
from sidecar.saga.workflow import DefinitionRef

MOST_CHILDREN = 200
"""More are not looked at: they count as children that can be turned back."""


async def findings(definition: Definition, compiled: CompiledDefinitions) -> Report:
    """Check a definition with its children and theirs. Raises `NotFound` and `StoreError`."""
    children = await _all_below(definition, compiled)
    limits = dataclasses.replace(QUICK, clock=time.monotonic)
    return await asyncio.to_thread(check, definition, children=children, limits=limits)


async def _all_below(
    definition: Definition, compiled: CompiledDefinitions
) -> dict[str, Definition]:
    """The children of a definition by name, and theirs, as deep as any workflow goes."""
    found: dict[str, Definition] = {}
    generation = [definition]
    for _ in range(MAX_DEPTH):
        below = {
            step.child.definition: step.child.version
            for one in generation
            for step in one.steps
            if step.child is not None and step.child.definition not in found
        }
        refs = [DefinitionRef(definition.namespace, *one) for one in sorted(below.items())]
        generation = [await compiled.get(ref) for ref in refs[: MOST_CHILDREN - len(found)]]
        found |= {one.name: one for one in generation}
    return found
