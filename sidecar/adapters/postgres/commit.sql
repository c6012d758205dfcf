-- name: fence
-- The leader's epoch is locked until the commit, so a successor waits for this transaction.
SELECT epoch FROM leaders
WHERE namespace = %(namespace)s AND epoch = %(epoch)s
FOR SHARE

-- name: now
-- The only clock.
SELECT clock_timestamp() AS now

-- name: reserve_start_keys
-- Whoever comes first has the key.
INSERT INTO start_keys (namespace, definition, start_key, workflow_id, input_hash)
SELECT v.namespace, v.definition, v.start_key, v.workflow_id, v.input_hash
FROM json_to_recordset(%(keys)s::json) AS v (
    namespace text, definition text, start_key text, workflow_id uuid, input_hash text)
ON CONFLICT (namespace, definition, start_key) DO NOTHING

-- name: read_start_keys
-- Who has the keys.
SELECT k.definition, k.start_key, k.workflow_id::text AS workflow_id, k.input_hash, w.status
FROM json_to_recordset(%(keys)s::json) AS v (namespace text, definition text, start_key text)
JOIN start_keys k USING (namespace, definition, start_key)
LEFT JOIN workflows w ON w.id = k.workflow_id

-- name: known_workflows
-- Which of these starts had taken effect although their commit was in doubt.
SELECT id::text AS id, status FROM workflows WHERE id = ANY(%(ids)s::uuid[])

-- name: lock_workflows
-- Locked ones are left out: their members ride in the next batch.
SELECT id::text AS id, namespace, definition, version, status, reason, paused, revision, last_seq,
       created_at, deadline_at, ended_at, trace
FROM workflows WHERE id = ANY(%(ids)s::uuid[])
ORDER BY id FOR UPDATE SKIP LOCKED

-- name: wait_for_workflows
-- The same for members that have been skipped too often.
SELECT id::text AS id, namespace, definition, version, status, reason, paused, revision, last_seq,
       created_at, deadline_at, ended_at, trace
FROM workflows WHERE id = ANY(%(ids)s::uuid[])
ORDER BY id FOR UPDATE

-- name: which_exist
-- Tells a locked workflow from an unknown one.
SELECT id::text AS id FROM workflows WHERE id = ANY(%(ids)s::uuid[])

-- name: read_steps
-- The steps without their bodies.
SELECT workflow_id::text AS workflow_id, step, idx, service, status, may_have_effect, call_ms, due_at,
       lease_until, attempt, tries, closed, answered, started_at, claimed_at, ended_at,
       comp_attempt, comp_tries, comp_closed, comp_answered, comp_started_at, comp_claimed_at,
       comp_ended_at
FROM steps WHERE workflow_id = ANY(%(ids)s::uuid[])

-- name: lock_steps
-- Before steps are taken away from claims, their rows are locked and then read again.
SELECT step FROM steps
WHERE workflow_id = ANY(%(ids)s::uuid[])
  AND status IN ('queued', 'running', 'retrying', 'compensating')
ORDER BY workflow_id, step, idx FOR UPDATE

-- name: read_bodies
-- For inputs that are rendered from the workflow's input and earlier outputs.
SELECT w.id::text AS id, w.input::text AS input, s.step, s.idx, s.output::text AS output
FROM workflows w LEFT JOIN steps s ON s.workflow_id = w.id
WHERE w.id = ANY(%(ids)s::uuid[])

-- name: read_inputs
-- For steps that are claimed on the fly and get the workflow's own input.
SELECT id::text AS id, input::text AS input FROM workflows WHERE id = ANY(%(ids)s::uuid[])

-- name: insert_workflows
-- New workflows.
INSERT INTO workflows (id, namespace, definition, version, status, reason, revision, last_seq,
    created_at, deadline_at, ended_at, labels, start_key, trace, input, output, error)
SELECT v.* FROM json_to_recordset(%(records)s::json) AS v (
    id uuid, namespace text, definition text, version integer, status text, reason text,
    revision bigint, last_seq integer, created_at timestamptz, deadline_at timestamptz,
    ended_at timestamptz, labels jsonb, start_key text, trace text, input json, output json,
    error json)

-- name: update_workflows
-- Workflows that moved.
UPDATE workflows w SET status = v.status, reason = v.reason, revision = v.revision,
    last_seq = v.last_seq, deadline_at = v.deadline_at, ended_at = v.ended_at,
    output = COALESCE(v.output, w.output), error = COALESCE(v.error, w.error)
FROM json_to_recordset(%(records)s::json) AS v (
    id uuid, status text, reason text, revision bigint, last_seq integer,
    deadline_at timestamptz, ended_at timestamptz, output json, error json)
WHERE w.id = v.id

-- name: insert_steps
-- Steps that got their row.
INSERT INTO steps (workflow_id, step, idx, namespace, service, status, may_have_effect, call_ms,
    due_at, lease_until, owner, ticket, attempt, tries, closed, answered, started_at, claimed_at,
    ended_at, succeeded, comp_attempt, comp_tries, comp_closed, comp_answered, comp_started_at,
    comp_claimed_at, comp_ended_at, input, output, error, comp_input, comp_output, comp_error)
SELECT v.* FROM json_to_recordset(%(records)s::json) AS v (
    workflow_id uuid, step text, idx integer, namespace text, service text, status text,
    may_have_effect boolean, call_ms integer, due_at timestamptz, lease_until timestamptz,
    owner text, ticket bigint, attempt integer, tries integer, closed integer, answered integer,
    started_at timestamptz, claimed_at timestamptz, ended_at timestamptz, succeeded boolean,
    comp_attempt integer,
    comp_tries integer, comp_closed integer, comp_answered integer, comp_started_at timestamptz,
    comp_claimed_at timestamptz, comp_ended_at timestamptz, input json, output json, error json,
    comp_input json, comp_output json, comp_error json)

-- name: update_steps
-- Steps that moved.
UPDATE steps s SET status = v.status, may_have_effect = v.may_have_effect, call_ms = v.call_ms,
    due_at = v.due_at, lease_until = v.lease_until, owner = v.owner, ticket = v.ticket,
    attempt = v.attempt, tries = v.tries, closed = v.closed, answered = v.answered,
    started_at = v.started_at, claimed_at = v.claimed_at, ended_at = v.ended_at,
    succeeded = s.succeeded OR v.succeeded,
    comp_attempt = v.comp_attempt, comp_tries = v.comp_tries, comp_closed = v.comp_closed,
    comp_answered = v.comp_answered, comp_started_at = v.comp_started_at,
    comp_claimed_at = v.comp_claimed_at, comp_ended_at = v.comp_ended_at,
    input = COALESCE(v.input, s.input), output = COALESCE(v.output, s.output),
    error = COALESCE(v.error, s.error), comp_input = COALESCE(v.comp_input, s.comp_input),
    comp_output = COALESCE(v.comp_output, s.comp_output),
    comp_error = COALESCE(v.comp_error, s.comp_error)
FROM json_to_recordset(%(records)s::json) AS v (
    workflow_id uuid, step text, idx integer, namespace text, service text, status text,
    may_have_effect boolean, call_ms integer, due_at timestamptz, lease_until timestamptz,
    owner text, ticket bigint, attempt integer, tries integer, closed integer, answered integer,
    started_at timestamptz, claimed_at timestamptz, ended_at timestamptz, succeeded boolean,
    comp_attempt integer,
    comp_tries integer, comp_closed integer, comp_answered integer, comp_started_at timestamptz,
    comp_claimed_at timestamptz, comp_ended_at timestamptz, input json, output json, error json,
    comp_input json, comp_output json, comp_error json)
WHERE s.workflow_id = v.workflow_id AND s.step = v.step AND s.idx = v.idx

-- name: insert_events
-- The history of the whole batch.
INSERT INTO events (workflow_id, seq, time, kind, cause, actor, step, idx, action, before, after,
    attempt)
SELECT v.* FROM json_to_recordset(%(records)s::json) AS v (
    workflow_id uuid, seq integer, time timestamptz, kind text, cause text, actor text, step text,
    idx integer, action text, before text, after text, attempt integer)

-- name: claim_due
-- The limit is safe only because the choice is materialized.
WITH due AS MATERIALIZED (
    SELECT s.workflow_id, s.step, s.idx
    FROM steps s JOIN workflows w ON w.id = s.workflow_id
    WHERE s.namespace = %(namespace)s AND s.service = %(service)s
      AND s.status IN ('queued', 'retrying', 'compensating') AND s.lease_until IS NULL
      AND s.due_at <= statement_timestamp() AND NOT w.paused
    ORDER BY s.due_at LIMIT %(limit)s FOR UPDATE OF s SKIP LOCKED
)
UPDATE steps s SET
    status = CASE s.status WHEN 'compensating' THEN s.status ELSE 'running' END,
    attempt = s.attempt + CASE s.status WHEN 'compensating' THEN 0 ELSE 1 END,
    comp_attempt = s.comp_attempt + CASE s.status WHEN 'compensating' THEN 1 ELSE 0 END,
    started_at = CASE s.status WHEN 'compensating' THEN s.started_at
                 ELSE COALESCE(s.started_at, clock_timestamp()) END,
    claimed_at = CASE s.status WHEN 'compensating' THEN s.claimed_at ELSE clock_timestamp() END,
    comp_started_at = CASE s.status WHEN 'compensating'
                 THEN COALESCE(s.comp_started_at, clock_timestamp()) END,
    comp_claimed_at = CASE s.status WHEN 'compensating' THEN clock_timestamp() END,
    lease_until = clock_timestamp() + make_interval(secs => (s.call_ms + %(margin_ms)s) / 1000.0),
    owner = %(owner)s, ticket = %(ticket)s
FROM due JOIN workflows w ON w.id = due.workflow_id
WHERE s.workflow_id = due.workflow_id AND s.step = due.step AND s.idx = due.idx
RETURNING s.workflow_id::text AS workflow_id, s.step, s.idx, s.status, s.attempt, s.tries,
    s.comp_attempt, s.comp_tries, s.call_ms, s.claimed_at, s.comp_claimed_at,
    COALESCE(s.input, w.input)::text AS input, s.output::text AS output,
    s.comp_input::text AS comp_input, s.succeeded,
    w.namespace, w.definition, w.version, w.reason, w.trace, clock_timestamp() AS now

-- name: claim_keys
-- The same for steps that a doorbell or a timer names.
WITH due AS MATERIALIZED (
    SELECT s.workflow_id, s.step, s.idx
    FROM json_to_recordset(%(keys)s::json) AS v (workflow_id uuid, step text, idx integer)
    JOIN steps s ON s.workflow_id = v.workflow_id AND s.step = v.step AND s.idx = v.idx
    JOIN workflows w ON w.id = s.workflow_id
    WHERE s.namespace = %(namespace)s AND s.service = %(service)s
      AND s.status IN ('queued', 'retrying', 'compensating') AND s.lease_until IS NULL
      AND s.due_at <= statement_timestamp() AND NOT w.paused
    FOR UPDATE OF s SKIP LOCKED
)
UPDATE steps s SET
    status = CASE s.status WHEN 'compensating' THEN s.status ELSE 'running' END,
    attempt = s.attempt + CASE s.status WHEN 'compensating' THEN 0 ELSE 1 END,
    comp_attempt = s.comp_attempt + CASE s.status WHEN 'compensating' THEN 1 ELSE 0 END,
    started_at = CASE s.status WHEN 'compensating' THEN s.started_at
                 ELSE COALESCE(s.started_at, clock_timestamp()) END,
    claimed_at = CASE s.status WHEN 'compensating' THEN s.claimed_at ELSE clock_timestamp() END,
    comp_started_at = CASE s.status WHEN 'compensating'
                 THEN COALESCE(s.comp_started_at, clock_timestamp()) END,
    comp_claimed_at = CASE s.status WHEN 'compensating' THEN clock_timestamp() END,
    lease_until = clock_timestamp() + make_interval(secs => (s.call_ms + %(margin_ms)s) / 1000.0),
    owner = %(owner)s, ticket = %(ticket)s
FROM due JOIN workflows w ON w.id = due.workflow_id
WHERE s.workflow_id = due.workflow_id AND s.step = due.step AND s.idx = due.idx
RETURNING s.workflow_id::text AS workflow_id, s.step, s.idx, s.status, s.attempt, s.tries,
    s.comp_attempt, s.comp_tries, s.call_ms, s.claimed_at, s.comp_claimed_at,
    COALESCE(s.input, w.input)::text AS input, s.output::text AS output,
    s.comp_input::text AS comp_input, s.succeeded,
    w.namespace, w.definition, w.version, w.reason, w.trace, clock_timestamp() AS now

-- name: claims_of_ticket
-- The claims of a batch whose commit was in doubt.
SELECT s.workflow_id::text AS workflow_id, s.step, s.idx, s.status, s.attempt, s.tries,
    s.comp_attempt, s.comp_tries, s.call_ms, s.claimed_at, s.comp_claimed_at,
    COALESCE(s.input, w.input)::text AS input, s.output::text AS output,
    s.comp_input::text AS comp_input, s.succeeded,
    w.namespace, w.definition, w.version, w.reason, w.trace
FROM steps s JOIN workflows w ON w.id = s.workflow_id
WHERE s.lease_until IS NOT NULL AND s.owner = %(owner)s AND s.ticket = %(ticket)s

-- name: why_not_claimed
-- For each key that was not claimed: is it there, open, due?
SELECT v.workflow_id::text AS workflow_id, v.step, v.idx, s.step IS NOT NULL AS known,
    COALESCE(s.namespace = %(namespace)s AND s.service = %(service)s
        AND s.status IN ('queued', 'retrying', 'compensating') AND s.lease_until IS NULL
        AND NOT w.paused, false) AS claimable,
    COALESCE(s.due_at <= statement_timestamp(), false) AS due
FROM json_to_recordset(%(keys)s::json) AS v (workflow_id uuid, step text, idx integer)
LEFT JOIN steps s ON s.workflow_id = v.workflow_id AND s.step = v.step AND s.idx = v.idx
LEFT JOIN workflows w ON w.id = v.workflow_id
