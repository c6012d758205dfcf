"""Bugs in the store's twin in memory, on which the simulation runs."""

from __future__ import annotations

from tests.simulation.mutants.planting import simulated, tested

SUITE = "tests/adapters/stores/test_memory.py::TestMemoryStore"

MEMORY = (
    simulated(
        "a lease ends while its holder is well",
        "sidecar.adapters.memory.queries:MemoryQueries.ended_leases",
        "step.lease_until < now or",
        "True or",
    ),
    simulated(
        "a leader whose epoch is void may write",
        "sidecar.adapters.memory.queries:MemoryQueries.check_epoch",
        "!= epoch.number",
        "is None",
        within=300,
        rare=True,
    ),
    simulated(
        "an epoch is minted twice",
        "sidecar.adapters.memory.queries:MemoryQueries.mint_epoch",
        "self.tables.epochs.get(namespace, 0) + 1",
        "1",
        within=300,
    ),
    simulated(
        "the attempt does not rise with a claim",
        "sidecar.adapters.memory.tables:_next_attempt",
        "attempt=run.attempt + 1",
        "attempt=max(run.attempt, 1)",
    ),
    simulated(
        "a claim sets no lease",
        "sidecar.adapters.memory.tables:Row.claimed",
        "replace(held, lease_until=lease_until)",
        "held",
    ),
    simulated(
        "a step that is held can be claimed",
        "sidecar.adapters.memory.tables:Row.claimable",
        "and not step.leased",
        "",
    ),
    simulated(
        "a start key may be used twice",
        "sidecar.adapters.stores.memory:_Transaction._start",
        "if taken is not None:",
        "if False:",
        within=600,
    ),
    tested(
        "a start that is repeated begins anew",
        "sidecar.adapters.stores.memory:_Transaction._start",
        "if existing is not None:",
        "if False:",
        f"{SUITE}::test_the_same_start_after_a_lost_answer_is_one_workflow",
    ),
    tested(
        "a batch that is repeated does not find its claims",
        "sidecar.adapters.memory.claims:Claims.found_of_ticket",
        "== self._holder",
        "is None",
        f"{SUITE}::test_a_batch_whose_answer_was_lost_gets_its_claims_again",
    ),
    tested(
        "the limit of claims is ignored",
        "sidecar.adapters.memory.claims:Claims.due",
        "sorted(found)[:limit]",
        "sorted(found)",
        f"{SUITE}::test_the_limit_is_kept_and_the_longest_due_come_first",
    ),
    tested(
        "a step is claimed before it is due",
        "sidecar.adapters.memory.tables:Row.why_not",
        "or step.due_at > now",
        "",
        f"{SUITE}::test_nothing_is_claimed_before_it_is_due",
    ),
    tested(
        "a step of a paused workflow is claimed",
        "sidecar.adapters.memory.tables:Row.claimable",
        "and not self.workflow.paused",
        "",
        f"{SUITE}::test_nothing_of_a_paused_workflow_is_claimed_forward_or_back",
    ),
)
