"""What a definition takes from elsewhere: fixed when it is registered.

So running workflows, and those started later, run what was checked. A step that names no version
of its child gets the latest one there is; a step with an action gets what the catalogue of its
service says of that. The document that is kept says both, so the same document registered after
either has changed is another version.
"""

from __future__ import annotations

import orjson

from sidecar.definitions import ParsedDefinition
from sidecar.definitions.documents import canonical, digest
from sidecar.definitions.pins import catalogues_of, pin_actions
from sidecar.engine.compiled import CompiledDefinitions
from sidecar.engine.publishing import published
from sidecar.errors import Conflict, DefinitionError, NotFound
from sidecar.ports.catalogues import Catalogues
from sidecar.saga.definition import Definition
from sidecar.saga.workflow import DefinitionRef


async def pinned(
    parsed: ParsedDefinition,
    namespace: str,
    compiled: CompiledDefinitions,
    catalogues: Catalogues,
    *,
    allow_missing: bool = False,
) -> ParsedDefinition:
    """Return the document with the versions of its children and with what its actions are.

    Raises `DefinitionError` for those that there are not, `Conflict` and `StoreError`.
    `allow_missing` leaves a step as it is whose action is not known.
    """
    document = orjson.loads(parsed.document)
    offered = await published(catalogues, namespace, catalogues_of(document))
    problems = pin_actions(document, offered, allow_missing=allow_missing)
    for index, step in enumerate(document["steps"]):
        if "workflow" not in step:
            continue
        name, version = step["workflow"], step.get("version")
        try:
            found = await _find(compiled, namespace, name, version)
        except Conflict as error:
            problems.append((f"steps[{index}].workflow", error.message))
        except NotFound:
            which = f"definition {name}" if version is None else f"version {version} of {name}"
            field = "workflow" if version is None else "version"
            text = f"there is no {which}; register it first"
            problems.append((f"steps[{index}].{field}", text))
        else:
            step["version"] = found.version
    if problems:
        raise DefinitionError(problems)
    text = canonical(document)
    return ParsedDefinition(parsed.name, text, digest(text))


async def _find(
    compiled: CompiledDefinitions, namespace: str, name: str, version: int | None
) -> Definition:
    if version is None:
        return await compiled.latest(namespace, name)
    ref = DefinitionRef(namespace, name, version)
    found = await compiled.get(ref)
    if compiled.is_retired(ref):
        raise Conflict(f"version {version} of {name} is retired; run another one")
    return found
