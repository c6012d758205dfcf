"""All the bugs, by name."""

from __future__ import annotations

from tests.simulation.mutants.actions import ACTIONS
from tests.simulation.mutants.core import CORE
from tests.simulation.mutants.corners import CORNERS
from tests.simulation.mutants.engine import ENGINE
from tests.simulation.mutants.language import LANGUAGE
from tests.simulation.mutants.language_postgres import LANGUAGE_POSTGRES
from tests.simulation.mutants.memory import MEMORY
from tests.simulation.mutants.planting import Mutant
from tests.simulation.mutants.postgres import POSTGRES
from tests.simulation.mutants.rates import RATES
from tests.simulation.mutants.reruns import RERUN
from tests.simulation.mutants.turns import TURNS

MUTANTS = (
    *CORE,
    *ENGINE,
    *MEMORY,
    *POSTGRES,
    *LANGUAGE,
    *LANGUAGE_POSTGRES,
    *ACTIONS,
    *TURNS,
    *RERUN,
    *CORNERS,
    *RATES,
)
BY_NAME: dict[str, Mutant] = {one.name: one for one in MUTANTS}
