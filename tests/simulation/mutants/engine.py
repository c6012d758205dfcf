"""Bugs in the engine: doorbells, claims, calls, commits, duties, and the gate."""

from __future__ import annotations

from tests.simulation.mutants.planting import Edit, Mutant, simulated, tested

UNIT = "tests/unit/engine"

DOORBELLS = (
    Mutant(
        "a lost doorbell is lost for good",
        (
            Edit(
                "sidecar.engine.receiving:Receiver._look_into_store", "if limit <= 0:", "if True:"
            ),
            Edit("sidecar.engine.duties:Duties._ring_again", "if due:", "if False:"),
        ),
    ),
    tested(
        "an idle sidecar does not look for itself",
        "sidecar.engine.receiving:Receiver._look_into_store",
        "if limit <= 0:",
        "if True:",
        f"{UNIT}/test_receiving.py::test_an_idle_sidecar_finds_what_nobody_rang_for",
    ),
    tested(
        "the leader does not ring again",
        "sidecar.engine.duties:Duties._ring_again",
        "if due:",
        "if False:",
        f"{UNIT}/test_poisoned_duties.py"
        "::test_every_step_is_rung_for_however_many_another_service_has",
    ),
    tested(
        "nobody rings",
        "sidecar.engine.ringing:Ringer.ring",
        "self._doorbells.extend(doorbells)",
        "list(doorbells)",
        f"{UNIT}/test_ringing.py::test_it_rings_for_what_became_claimable",
    ),
    tested(
        "the doorbells that have gathered are forgotten by a stop",
        "sidecar.engine.ringing:Ringer.stop",
        "if left:",
        "if False:",
        f"{UNIT}/test_ringing.py::test_stopping_publishes_what_has_gathered",
    ),
    tested(
        "a doorbell is acknowledged before its claim is durable",
        "sidecar.engine.receiving:Receiver._claim",
        "answers = await self._committer.claim(keys)",
        "await self._ack(waiting); answers = await self._committer.claim(keys)",
        f"{UNIT}/test_receiving.py::test_a_doorbell_is_acknowledged_once_its_claim_is_durable",
    ),
    tested(
        "the doorbell of a step that is locked is taken for done",
        "sidecar.engine.receiving:Receiver._claim",
        "if answer in (Missing.LOCKED, Missing.UNKNOWN):",
        "if answer is Missing.UNKNOWN:",
        f"{UNIT}/test_receiving.py"
        "::test_a_locked_step_is_asked_for_again_and_not_acknowledged_before",
    ),
    tested(
        "a position of the queue passes what is still open",
        "sidecar.adapters.watermarks:Watermark.ack",
        "while waiting and waiting[0] in self._acked:",
        "while waiting:",
        "tests/adapters/test_watermarks.py",
    ),
)

CALLS = (
    simulated(
        "a call is sent although it cannot end before its lease",
        "sidecar.engine.calling:Caller._outcome",
        "self._clock.monotonic() - began > self._margin_s",
        "False",
        within=200,
    ),
    simulated(
        "a call is tried again with another body",
        "sidecar.engine.calling:Caller._call",
        "body = claimed.input",
        """body = JsonText(f'{{"attempt":{claimed.attempt}}}')""",
    ),
    simulated(
        "a compensation calls the way forward",
        "sidecar.engine.calling:Caller._call",
        "action=claimed.action",
        "action=Action.EXECUTE",
    ),
    tested(
        "a drain does not wait for answers",
        "sidecar.engine.agent:Agent.drain",
        "await self._drain_stage(Site.DRAINED, self.slots.wait_unused)",
        "pass",
        f"{UNIT}/test_agent.py::test_a_drain_waits_for_the_answers_that_are_on_their_way",
    ),
    tested(
        "it takes more than it has slots for",
        "sidecar.engine.receiving:Receiver._room_now",
        "min(self._slots.free, LOOK_BATCH_MAX,",
        "min(LOOK_BATCH_MAX,",
        f"{UNIT}/test_receiving.py::test_it_takes_no_more_than_it_has_free_slots_for",
    ),
)

COMMITS = (
    simulated(
        "a start whose commit was in doubt is tried again under a new id",
        "sidecar.engine.group_commit:Committer._until_durable",
        "pause = min(pause * 2, UNAVAILABLE_PAUSE_MAX_S)",
        "batch = replace(batch, ticket=batch.ticket + 1_000_000, starts=tuple("
        "replace(one, id=self._entropy.workflow_id()) for one in batch.starts))",
    ),
    simulated(
        "two batches have one ticket",
        "sidecar.engine.group_commit:Committer._compose",
        "self._ticket += 1",
        "self._ticket = 1",
    ),
    simulated(
        "a settlement whose workflow is locked is forgotten",
        "sidecar.engine.group_commit:Committer._settle",
        "self._ride_again(one)",
        "one.answer(answer)",
    ),
    tested(
        "a poisoned member fails its neighbours, too",
        "sidecar.engine.group_commit:Committer._commit",
        "if len(members) == 1:\n            self._refused(members[0], error)\n",
        "if members:\n            [self._refused(one, error) for one in members]\n",
        f"{UNIT}/test_group_commit.py::test_a_poisoned_member_fails_alone",
    ),
    tested(
        "a settlement that is refused is given up",
        "sidecar.engine.group_commit:Committer._refused",
        "if not settles or",
        "if True or",
        f"{UNIT}/test_poisoned_batches.py::test_a_poisoned_settlement_costs_no_one_else_an_answer",
    ),
    tested(
        "a conflict is told to whoever waits",
        "sidecar.engine.group_commit:Committer._until_durable",
        'self._telemetry.count(metrics.COMMIT_RETRIES, why="conflict")',
        "raise",
        f"{UNIT}/test_group_commit.py::test_a_conflict_is_tried_again_unseen",
    ),
)

DUTIES = (
    simulated(
        "the leader thinks that there is nothing to do",
        "sidecar.engine.duties:Duties._with_work",
        "if asked.get(name, True)",
        "if name not in asked",
    ),
    simulated(
        "leases never end",
        "sidecar.engine.duties:Duties._end_leases",
        "return await self._apply(epoch, events)",
        "return len(events)",
    ),
    simulated(
        "a duty is done without an epoch",
        "sidecar.engine.duties:Duties._batch",
        "epoch=epoch",
        "epoch=None",
    ),
    tested(
        "a leader goes on after its term",
        "sidecar.engine.leadership:Leadership._lead",
        "while term.trusted():",
        "while True:",
        f"{UNIT}/test_leadership.py::test_it_does_no_more_once_its_term_is_over",
    ),
    tested(
        "a leader ends leases before it has had the store for long enough",
        "sidecar.engine.leadership:Leadership._lead",
        "sure = began - unbroken_since >= silence",
        "sure = True",
        f"{UNIT}/test_leadership.py",
    ),
    tested(
        "a leader that lost the store ends leases as soon as it is back",
        "sidecar.engine.leadership:Leadership._lead",
        'self._round_failed("unavailable", error)\n'
        "            unbroken_since = self._clock.monotonic()\n",
        'self._round_failed("unavailable", error)\n',
        f"{UNIT}/test_leadership.py",
    ),
    tested(
        "an answer that was long in coming proves that the store was there",
        "sidecar.engine.leadership:Leadership._lead",
        "began > self._times.prompt_s",
        "began > 3600",
        f"{UNIT}/test_leadership.py::test_a_round_that_was_long_in_coming_begins_the_silence_anew",
    ),
)

GATE = (
    simulated(
        "a gate that has closed stays closed",
        "sidecar.engine.gate:GateRules.asked",
        "if not ready:",
        "if not ready or self.reason is GateReason.NOT_READY:",
    ),
    tested(
        "a service that turns everybody away is called all the same",
        "sidecar.engine.gate:GateRules.outcome",
        "return too_many and",
        "return False and",
        f"{UNIT}/test_gate.py::test_ten_bad_outcomes_over_ten_workflows_close_it",
    ),
    tested(
        "a gate that is closed lets a look through",
        "sidecar.engine.gate:Gate.limit",
        "return 0",
        "return UNLIMITED",
        f"{UNIT}/test_receiving.py::test_a_gate_that_closes_while_it_listens_lets_no_look_through",
    ),
)

STARTS = (
    tested(
        "a start claims its first step although there is no room for it",
        "sidecar.engine.commands:Commands._submit",
        "if not (self._is_begun_here(start.definition) and self._may_claim()):",
        "if False:",
        f"{UNIT}/test_agent.py::test_a_start_is_left_to_others_when",
    ),
    tested(
        "the slot that was kept for a start is never given back",
        "sidecar.engine.commands:Commands._submit",
        "self._slots.give_back()",
        "pass",
        f"{UNIT}/test_agent.py"
        "::test_a_start_brings_its_first_step_to_its_own_service_without_a_doorbell",
    ),
)

ENGINE = (*DOORBELLS, *CALLS, *COMMITS, *DUTIES, *GATE, *STARTS)
