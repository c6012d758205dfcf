"""Bugs in catalogues: what is published, what is pinned of it, and where calls are sent."""

from __future__ import annotations

from tests.simulation.mutants.planting import simulated, tested

UNIT = "tests/unit/engine/test_catalogues.py"
AWAY = "tests/unit/engine/test_not_offered.py"
PINS = "sidecar.definitions.pins"
TARGET = "sidecar.definitions.catalogues:ActionPlan.target"

CALLS = (
    simulated(
        "nobody looks up where an action is done",
        "sidecar.engine.calling:Caller._call",
        "if not target.path:",
        "if False:",
    ),
    simulated(
        "an action is undone where it is done",
        TARGET,
        "Target(undo.path, ",
        "Target(self.execute.path, ",
    ),
    simulated(
        "an action is asked for where it is done",
        TARGET,
        "Target(self.status.path, ",
        "Target(self.execute.path, ",
        within=200,
    ),
    tested(
        "what the catalogue says of a status wins over the definition",
        "sidecar.engine.calling:Caller._offered",
        "not own.on_status",
        "True",
        f"{UNIT}::test_what_the_definition_says_of_a_status_wins",
    ),
    tested(
        "a definition that names one status takes the whole convention away",
        "sidecar.engine.calling:Caller._offered",
        "overruled(found.on_status, own.on_status)",
        "own.on_status",
        f"{UNIT}::test_a_status_that_is_named_leaves_the_convention_as_it_is",
    ),
    tested(
        "the convention of a service is not that of its compensations",
        "sidecar.definitions.compiling:_compensation",
        "meanings(step.compat, call.on_status)",
        "call.on_status",
        "tests/unit/definitions/test_conventions.py::test_the_answers_of_a_service_of_dtm",
    ),
    tested(
        "a question that cannot be asked is taken for an answer",
        "sidecar.engine.calling:Caller._not_offered",
        "OutcomeKind.NOT_SENT",
        "OutcomeKind.REFUSED",
        f"{AWAY}::test_a_question_that_cannot_be_asked_proves_nothing",
    ),
    tested(
        "who does not offer an action spends its tries",
        "sidecar.engine.calling:Caller._not_offered",
        "OutcomeKind.NOT_SENT",
        "OutcomeKind.MISCONFIGURED",
        f"{AWAY}::test_an_action_that_is_not_offered_here_waits_for_who_offers_it",
    ),
    tested(
        "who does not offer an action has it as often as the definition says",
        "sidecar.engine.calling:Caller._not_offered",
        "retry_after=pause",
        "retry_after=None",
        f"{AWAY}::test_who_does_not_offer_an_action_has_it_less_and_less_often",
    ),
    tested(
        "what was pinned to be undone is forgotten when the catalogue says so",
        "sidecar.definitions.catalogues:nothing_to_undo",
        "step.catalogue is None and ",
        "",
        f"{AWAY}::test_an_undoing_that_was_taken_away_is_owed_until_it_is_back",
    ),
    tested(
        "who does not offer an action keeps it for itself",
        "sidecar.engine.ringing:Ringer._ring",
        "not_offered(step) is not None",
        "False",
        "tests/unit/engine/test_ringing.py::test_what_was_not_offered_here_is_rung_for_others",
    ),
)

REGISTRATION = (
    tested(
        "who leaves is missed where an action is offered",
        "sidecar.engine.offering:lacking",
        "if not one.beat.draining:",
        "if True:",
        f"{UNIT}::test_an_action_that_not_all_live_sidecars_offer_is_taken_with_a_warning",
    ),
    tested(
        "a pin that no catalogue says is believed",
        f"{PINS}:pin_actions",
        'step["pinned"] != pin_of(plan, ref[1] or 0)',
        "False",
        f"{UNIT}::test_another_catalogue_makes_another_version",
    ),
    tested(
        "what nobody offers is taken",
        f"{PINS}:pin_actions",
        "if not allow_missing:",
        "if False:",
        f"{UNIT}::test_what_nobody_offers_is_refused_unless_it_may_be_missing",
    ),
    tested(
        "policies are not pinned",
        f"{PINS}:pin_of",
        '("timeout", "retry", "callback_timeout")',
        "()",
        "tests/unit/definitions/test_catalogues.py"
        "::test_the_machine_runs_by_what_the_catalogue_says",
    ),
)

CURRENT = (
    tested(
        "the highest version is what starts take, not the one registered last",
        "sidecar.adapters.postgres.queries:SQL.definition_by_version",
        "AND state IN ('active', 'deprecated')\n      ORDER BY registered_at DESC",
        "AND state IN ('active', 'deprecated')\n      ORDER BY version DESC",
        "tests/adapters/stores/test_postgres.py::TestPostgresStore"
        "::test_what_was_registered_last_is_what_starts_take",
    ),
    tested(
        "a start takes what is not registered last",
        "sidecar.adapters.memory.tables:MemoryTables.registered",
        "order.remove(stored.version)",
        "return",
        "tests/adapters/stores/test_memory.py::TestMemoryStore"
        "::test_what_was_registered_last_is_what_starts_take",
    ),
)

PUBLISHING = (
    tested(
        "who offers nothing any more takes nothing back",
        "sidecar.engine.publishing:Publishing.publish",
        "if before is None:",
        "if True:",
        f"{UNIT}::test_a_sidecar_publishes_and_tells_its_version",
    ),
    tested(
        "replicas that leave are compared",
        "sidecar.engine.services:versions_of",
        "if not one.beat.draining",
        "if True",
        f"{UNIT}::test_services_are_told_with_what_they_offer",
    ),
    tested(
        "replicas that leave are compared by the leader",
        "sidecar.adapters.postgres.catalogues:SQL.live_versions",
        "AND NOT draining",
        "",
        "tests/adapters/stores/test_postgres.py::TestPostgresStore"
        "::test_the_versions_of_replicas_that_live_are_told",
    ),
    tested(
        "the highest version is in force, not the last one published",
        "sidecar.adapters.postgres.catalogues:SQL.get_catalogue",
        "ORDER BY published_at DESC, version DESC",
        "ORDER BY version DESC",
        "tests/adapters/stores/test_postgres.py::TestPostgresStore"
        "::test_the_one_published_last_is_in_force",
    ),
    tested(
        "replicas that start at once do not wait for each other",
        "sidecar.adapters.postgres.catalogues:SQL.lock_catalogues",
        "pg_advisory_xact_lock(",
        "pg_try_advisory_xact_lock(",
        "tests/adapters/stores/test_postgres_catalogues.py",
    ),
)

ACTIONS = (*CALLS, *REGISTRATION, *CURRENT, *PUBLISHING)
