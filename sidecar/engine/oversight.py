"""What people who run workflows oversee, beyond the single workflow."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.engine.bulk import Bulk
from sidecar.engine.debt import DebtBook
from sidecar.engine.versioning import Versioning


@dataclass(frozen=True, slots=True)
class Oversight:
    """The versions of definitions, what is owed, and verbs over many workflows."""

    versions: Versioning
    debt: DebtBook
    bulk: Bulk
