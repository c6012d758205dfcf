"""The store's conformance suite, all of it.

A binding is a class and a fixture:

    class TestMyStore(StoreSuite):
        @pytest.fixture
        async def backend(self) -> AsyncIterator[Backend]: ...

`Backend` (in `store_play`) says what the fixture has to offer.
"""

from __future__ import annotations

from tests.conformance.store_branches import BranchSuite
from tests.conformance.store_bulk import BulkSuite
from tests.conformance.store_callbacks import CallbackSuite
from tests.conformance.store_catalogues import CatalogueSuite
from tests.conformance.store_children import ChildSuite
from tests.conformance.store_claims import ClaimSuite
from tests.conformance.store_debts import DebtSuite
from tests.conformance.store_doubts import DoubtSuite
from tests.conformance.store_fan_out import FanOutSuite
from tests.conformance.store_fan_out_undo import FanOutUndoSuite
from tests.conformance.store_fencing import FencingSuite
from tests.conformance.store_leader import LeaderSuite
from tests.conformance.store_many_turns import ManyTurnsSuite
from tests.conformance.store_operators import OperatorSuite
from tests.conformance.store_play import Backend
from tests.conformance.store_priorities import PrioritySuite
from tests.conformance.store_queries import QuerySuite
from tests.conformance.store_rates import RateSuite
from tests.conformance.store_refusals import RefusalSuite
from tests.conformance.store_reruns import RerunSuite
from tests.conformance.store_ringing import RingingSuite
from tests.conformance.store_rollback import RollbackSuite
from tests.conformance.store_starts import StartSuite
from tests.conformance.store_step_turns import StepTurnSuite
from tests.conformance.store_takeovers import TakeoverSuite
from tests.conformance.store_transitions import TransitionSuite
from tests.conformance.store_turns import TurnSuite
from tests.conformance.store_versions import VersionSuite
from tests.conformance.store_waits import WaitSuite

__all__ = ["Backend", "StoreSuite"]


class StoreSuite(
    StartSuite,
    TransitionSuite,
    RollbackSuite,
    ClaimSuite,
    FencingSuite,
    QuerySuite,
    LeaderSuite,
    RingingSuite,
    VersionSuite,
    CatalogueSuite,
    DebtSuite,
    BulkSuite,
    RerunSuite,
    RefusalSuite,
    TakeoverSuite,
    CallbackSuite,
    WaitSuite,
    DoubtSuite,
    BranchSuite,
    OperatorSuite,
    FanOutSuite,
    FanOutUndoSuite,
    ChildSuite,
    TurnSuite,
    RateSuite,
    PrioritySuite,
    StepTurnSuite,
    ManyTurnsSuite,
):
    """Everything that a store promises."""
