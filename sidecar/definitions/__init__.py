"""Reading definitions: from YAML or JSON that somebody wrote to the machine's `Definition`.

- `documents`: bytes to plain data, held to limits; the canonical form and its digest
- `findings`: what is wrong, with path, line and what to write instead
- `durations`: `10s`, `5m`
- `names`, `calls`, `model`: which keys there are; `shape`, `kinds`: held against a document
- `language`, `shorthand`: the same as a JSON Schema, for editors
- `graph`: the order of the steps
- `expressions`, `tree`, `cost`, `patterns`: CEL behind a Protocol, its tree, and what it may cost
- `splitting`, `templates`, `scopes`: data with expressions in it, and what each of them may see
- `data`, `bodies`, `work`, `rendering`: filling templates, within a budget
- `schemas`, `schema_graph`: JSON Schemas behind a Protocol, and what they may cost
- `compiling`: all of it together

Two documents are the same version of a definition if their canonical JSON is the same: order
of keys, layout, comments and the choice of YAML or JSON make no difference.
"""

from __future__ import annotations

from sidecar.definitions.compiling import ParsedDefinition, compile_stored, parse_definition
from sidecar.definitions.rendering import render

__all__ = ["ParsedDefinition", "compile_stored", "parse_definition", "render"]
