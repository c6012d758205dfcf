"""The checker: proves that a definition ends all done or all undone, or shows how it does not.

- `claims`: a claim as a store makes it
- `reads`: what can be seen in the text of expressions
- `abstraction`: the small definition that is explored, and the choices that stand for the rest
- `moves`: what can happen next; `keys`: which states count as the same
- `exploring`: all ways, and the shortest bad ones
- `proof`: findings from bad ways; `rules`: findings from the definition as it stands
- `times`: how long it can take
- `codes`, `report`, `words`, `sarif`: how it is told
- `checking`: all of it together

It runs the machine itself (`sidecar.saga.machine`), and so cannot believe of it what is not so.
"""

from __future__ import annotations

from sidecar.definitions.checker.checking import check, check_text
from sidecar.definitions.checker.codes import CODES, Severity
from sidecar.definitions.checker.exploring import QUICK, Limits
from sidecar.definitions.checker.report import Finding, Report, Verdict, text
from sidecar.definitions.checker.sarif import sarif

__all__ = [
    "CODES",
    "QUICK",
    "Finding",
    "Limits",
    "Report",
    "Severity",
    "Verdict",
    "check",
    "check_text",
    "sarif",
    "text",
]
