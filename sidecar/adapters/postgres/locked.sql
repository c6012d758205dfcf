-- name: wait
-- Members that have been skipped too often wait for their lock.
SELECT id::text AS id, namespace, definition, version, status, reason, paused, revision, last_seq,
    created_at, deadline_at, ended_at, trace, kept_signals, last_signal, owes_since,
    taken_over_by::text AS taken_over_by,
    parent_id::text AS parent_id, parent_step, parent_idx, root_id::text AS root_id, depth,
    turn, turn_limit,
    CASE WHEN parent_id IS NOT NULL THEN error::text END AS error
FROM workflows WHERE id = ANY(%(ids)s::uuid[])
ORDER BY id FOR UPDATE

-- name: skip_locked
-- Locked ones are left out: their members ride in the next batch.
SELECT id::text AS id, namespace, definition, version, status, reason, paused, revision, last_seq,
    created_at, deadline_at, ended_at, trace, kept_signals, last_signal, owes_since,
    taken_over_by::text AS taken_over_by,
    parent_id::text AS parent_id, parent_step, parent_idx, root_id::text AS root_id, depth,
    turn, turn_limit,
    CASE WHEN parent_id IS NOT NULL THEN error::text END AS error
FROM workflows WHERE id = ANY(%(ids)s::uuid[])
ORDER BY id FOR UPDATE SKIP LOCKED

-- name: lock_turns
-- Before any workflow: nobody else can take a place of these. Those that somebody else has locked
-- are told, and not waited for: the batch goes on without whoever wants a place of them.
SELECT v.namespace, v.definition, v.turn_step, v.turn
FROM json_to_recordset(%(turns)s::json) AS v (
    namespace text, definition text, turn_step text, turn text)
WHERE NOT pg_try_advisory_xact_lock(24770, hashtext(
    v.namespace || '/' || v.definition || '/' || v.turn_step || '/' || v.turn))

-- name: taken_turns
-- How many places are taken.
SELECT v.namespace, v.definition, v.turn_step, v.turn,
    (SELECT count(*) FROM turns t WHERE t.namespace = v.namespace AND t.placed
       AND t.definition = v.definition AND t.turn_step = v.turn_step AND t.turn = v.turn) AS taken
FROM json_to_recordset(%(turns)s::json) AS v (
    namespace text, definition text, turn_step text, turn text)

-- name: which_exist
-- Tells a locked workflow from an unknown one.
SELECT id::text AS id FROM workflows WHERE id = ANY(%(ids)s::uuid[])

-- name: lock_steps
-- From here on no claim can take a step that is about to be taken away.
SELECT step FROM steps
WHERE workflow_id = ANY(%(ids)s::uuid[])
  AND status IN ('queued', 'running', 'retrying', 'in_doubt', 'compensating')
ORDER BY workflow_id, step, idx FOR UPDATE

-- name: steps
-- Without their bodies, and without the items of fan-outs.
SELECT workflow_id::text AS workflow_id, step, idx, service, status, may_have_effect, call_ms,
    due_at, lease_until, awaiting, doubt_at, fan::text AS fan, turn, attempt, tries, closed, answered,
    started_at, claimed_at, ended_at, comp_attempt, comp_tries, comp_closed, comp_answered,
    comp_started_at, comp_claimed_at, comp_ended_at, origin::text AS origin
FROM steps WHERE workflow_id = ANY(%(ids)s::uuid[]) AND idx = -1

-- name: signals
-- Those that were kept.
SELECT workflow_id::text AS workflow_id, number, name, payload::text AS payload, actor, reason,
    sent_at
FROM signals WHERE workflow_id = ANY(%(ids)s::uuid[]) ORDER BY workflow_id, number

-- name: heard
-- The ids of those that came, taken since or not.
SELECT workflow_id::text AS workflow_id, details ->> 'id' AS id
FROM events
WHERE workflow_id = ANY(%(ids)s::uuid[]) AND kind = 'signal' AND details ->> 'id' IS NOT NULL

-- name: inputs
-- What expressions see as `input`.
SELECT id::text AS id, input::text AS input FROM workflows WHERE id = ANY(%(ids)s::uuid[])

-- name: outputs
-- What expressions see of earlier steps.
SELECT workflow_id::text AS workflow_id, step, idx, output::text AS output
FROM steps WHERE workflow_id = ANY(%(ids)s::uuid[]) AND idx = -1 AND output IS NOT NULL

-- name: results
-- What the rerun of a workflow may keep: all bodies of its steps and items.
SELECT workflow_id::text AS workflow_id, step, idx, input::text AS input, output::text AS output,
    error::text AS error, succeeded
FROM steps WHERE workflow_id = ANY(%(ids)s::uuid[])
