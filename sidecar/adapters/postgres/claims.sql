-- name: claim_due
-- The limit is safe only because the choice is materialized. A claim happens at one moment, that of
-- its statement.
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
                 ELSE COALESCE(s.started_at, statement_timestamp()) END,
    claimed_at = CASE s.status WHEN 'compensating' THEN s.claimed_at ELSE statement_timestamp() END,
    comp_started_at = CASE s.status WHEN 'compensating'
                 THEN COALESCE(s.comp_started_at, statement_timestamp()) END,
    comp_claimed_at = CASE s.status WHEN 'compensating' THEN statement_timestamp() END,
    lease_until = statement_timestamp() + make_interval(secs => (s.call_ms + %(margin_ms)s) / 1000.0),
    owner = %(owner)s, ticket = %(ticket)s
FROM due JOIN workflows w ON w.id = due.workflow_id
WHERE s.workflow_id = due.workflow_id AND s.step = due.step AND s.idx = due.idx
RETURNING s.workflow_id::text AS workflow_id, s.step, s.idx, s.status, s.attempt, s.tries,
    s.comp_attempt, s.comp_tries, s.call_ms, s.claimed_at, s.comp_claimed_at,
    COALESCE(s.input, w.input)::text AS input, s.output::text AS output,
    s.comp_input::text AS comp_input, s.succeeded,
    w.namespace, w.definition, w.version, w.reason, w.trace

-- name: claim_keys
-- The same for steps that a doorbell or a timer names; for those not claimed, why not.
WITH wanted AS MATERIALIZED (
    SELECT workflow_id, step, idx
    FROM json_to_recordset(%(keys)s::json) AS v (workflow_id uuid, step text, idx integer)
), due AS MATERIALIZED (
    SELECT s.workflow_id, s.step, s.idx
    FROM wanted v
    JOIN steps s ON s.workflow_id = v.workflow_id AND s.step = v.step AND s.idx = v.idx
    JOIN workflows w ON w.id = s.workflow_id
    WHERE s.namespace = %(namespace)s AND s.service = %(service)s
      AND s.status IN ('queued', 'retrying', 'compensating') AND s.lease_until IS NULL
      AND s.due_at <= statement_timestamp() AND NOT w.paused
    ORDER BY s.workflow_id, s.step, s.idx FOR UPDATE OF s SKIP LOCKED
), claimed AS (
    UPDATE steps s SET
        status = CASE s.status WHEN 'compensating' THEN s.status ELSE 'running' END,
        attempt = s.attempt + CASE s.status WHEN 'compensating' THEN 0 ELSE 1 END,
        comp_attempt = s.comp_attempt + CASE s.status WHEN 'compensating' THEN 1 ELSE 0 END,
        started_at = CASE s.status WHEN 'compensating' THEN s.started_at
                     ELSE COALESCE(s.started_at, statement_timestamp()) END,
        claimed_at = CASE s.status WHEN 'compensating' THEN s.claimed_at ELSE statement_timestamp() END,
        comp_started_at = CASE s.status WHEN 'compensating'
                     THEN COALESCE(s.comp_started_at, statement_timestamp()) END,
        comp_claimed_at = CASE s.status WHEN 'compensating' THEN statement_timestamp() END,
        lease_until = statement_timestamp() + make_interval(secs => (s.call_ms + %(margin_ms)s) / 1000.0),
        owner = %(owner)s, ticket = %(ticket)s
    FROM due JOIN workflows w ON w.id = due.workflow_id
    WHERE s.workflow_id = due.workflow_id AND s.step = due.step AND s.idx = due.idx
    RETURNING s.workflow_id::text AS workflow_id, s.step, s.idx, s.status, s.attempt, s.tries,
        s.comp_attempt, s.comp_tries, s.call_ms, s.claimed_at, s.comp_claimed_at,
        COALESCE(s.input, w.input)::text AS input, s.output::text AS output,
        s.comp_input::text AS comp_input, s.succeeded,
        w.namespace, w.definition, w.version, w.reason, w.trace
)
SELECT c.*, v.workflow_id::text AS wanted_workflow, v.step AS wanted_step, v.idx AS wanted_idx,
    s.step IS NOT NULL AS known,
    COALESCE(s.namespace = %(namespace)s AND s.service = %(service)s
        AND s.status IN ('queued', 'retrying', 'compensating') AND s.lease_until IS NULL
        AND NOT w.paused, false) AS claimable,
    COALESCE(s.due_at <= statement_timestamp(), false) AS due
FROM wanted v
LEFT JOIN claimed c ON c.workflow_id::uuid = v.workflow_id AND c.step = v.step AND c.idx = v.idx
LEFT JOIN steps s ON s.workflow_id = v.workflow_id AND s.step = v.step AND s.idx = v.idx
LEFT JOIN workflows w ON w.id = v.workflow_id

-- name: under_ticket
-- The claims of a batch whose commit was in doubt.
SELECT s.workflow_id::text AS workflow_id, s.step, s.idx, s.status, s.attempt, s.tries,
    s.comp_attempt, s.comp_tries, s.call_ms, s.claimed_at, s.comp_claimed_at,
    COALESCE(s.input, w.input)::text AS input, s.output::text AS output,
    s.comp_input::text AS comp_input, s.succeeded,
    w.namespace, w.definition, w.version, w.reason, w.trace
FROM steps s JOIN workflows w ON w.id = s.workflow_id
WHERE s.lease_until IS NOT NULL AND s.owner = %(owner)s AND s.ticket = %(ticket)s
