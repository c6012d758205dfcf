"""Reading definitions: from YAML or JSON that somebody wrote to the machine's `Definition`.

- `documents`: bytes to plain data, held to limits; the canonical form and its digest
- `findings`: what is wrong, with path, line and what to write instead
- `durations`: `10s`, `5m`
- `model`: which keys there are
- `graph`: the order of the steps
- `expressions`, `tree`, `cost`: CEL behind a Protocol, its syntax tree, and what it may cost
- `templates`: inputs with expressions in them
- `compiling`: all of it together

Two documents are the same version of a definition if their canonical JSON is the same: order
of keys, layout, comments and the choice of YAML or JSON make no difference.
"""

from __future__ import annotations

from sidecar.definitions.compiling import ParsedDefinition, compile_stored, parse_definition
from sidecar.definitions.rendering import render

__all__ = ["ParsedDefinition", "compile_stored", "parse_definition", "render"]
