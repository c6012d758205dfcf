-- name: due
-- The one predicate by which a step is claimable, and the index that is made for it. The limit is
-- safe only because the choice is materialized. What is ordered by, and bounds how far the index is
-- read, is the rank of `sidecar.saga.priority`, written just as in that index; for steps without a
-- priority it is the time when they are due. What this statement writes itself is left out: it
-- looks claimable still, and one statement changes a row only once.
due AS MATERIALIZED (
    SELECT s.workflow_id, s.step, s.idx
    FROM steps s JOIN workflows w ON w.id = s.workflow_id
    WHERE s.namespace = %(namespace)s AND s.service = %(service)s
      AND s.status IN ('queued', 'retrying', 'in_doubt', 'compensating') AND s.lease_until IS NULL
      AND s.due_at <= statement_timestamp() AND NOT w.paused
      AND (s.due_at AT TIME ZONE 'UTC') - interval '10 seconds' * s.priority
          <= statement_timestamp() AT TIME ZONE 'UTC'
      AND ((s.workflow_id, s.step, s.idx)
          IN (SELECT workflow_id, step, COALESCE(idx, 0) FROM written)) IS NOT TRUE
    ORDER BY (s.due_at AT TIME ZONE 'UTC') - interval '10 seconds' * s.priority
    LIMIT %(limit)s FOR UPDATE OF s SKIP LOCKED
)

-- name: named
-- The same predicate for steps that a doorbell or a timer names. `COALESCE` hides it from that
-- index: a plan that reads all claimable steps to find these few looks cheap to a planner that
-- has never counted them.
wanted AS MATERIALIZED (
    SELECT v.workflow_id, v.step, COALESCE(v.idx, 0) AS idx
    FROM json_to_recordset(%(keys)s::json) AS v (workflow_id uuid, step text, idx integer)
), named AS MATERIALIZED (
    SELECT s.workflow_id, s.step, s.idx
    FROM wanted v CROSS JOIN LATERAL (
        SELECT s.workflow_id, s.step, s.idx
        FROM steps s JOIN workflows w ON w.id = s.workflow_id
        WHERE s.workflow_id = v.workflow_id AND s.step = v.step AND s.idx = v.idx
          AND s.namespace = %(namespace)s AND s.service = %(service)s
          AND s.status IN ('queued', 'retrying', 'in_doubt', 'compensating')
          AND COALESCE(s.lease_until IS NULL, false)
          AND s.due_at <= statement_timestamp() AND NOT w.paused
        FOR UPDATE OF s SKIP LOCKED
    ) AS s
    WHERE ((v.workflow_id, v.step, v.idx)
        IN (SELECT workflow_id, step, COALESCE(idx, 0) FROM written)) IS NOT TRUE
)

-- name: by_due
-- What to take: what is due, what was named, or both.
chosen AS (SELECT * FROM due)

-- name: by_name
chosen AS (SELECT * FROM named)

-- name: by_both
chosen AS (SELECT * FROM due UNION ALL SELECT * FROM named)

-- name: taken
-- A claim happens at one moment, that of its statement; it never waits for a row.
taken AS (
    UPDATE steps s SET
        status = CASE WHEN s.status IN ('compensating', 'in_doubt') THEN s.status
                 ELSE 'running' END,
        attempt = s.attempt + CASE s.status WHEN 'compensating' THEN 0 ELSE 1 END,
        comp_attempt = s.comp_attempt + CASE s.status WHEN 'compensating' THEN 1 ELSE 0 END,
        started_at = CASE s.status WHEN 'compensating' THEN s.started_at
                     ELSE COALESCE(s.started_at, statement_timestamp()) END,
        claimed_at = CASE s.status WHEN 'compensating' THEN s.claimed_at
                     ELSE statement_timestamp() END,
        comp_started_at = CASE s.status WHEN 'compensating'
                     THEN COALESCE(s.comp_started_at, statement_timestamp()) END,
        comp_claimed_at = CASE s.status WHEN 'compensating' THEN statement_timestamp() END,
        lease_until = statement_timestamp()
            + make_interval(secs => (s.call_ms + %(margin_ms)s) / 1000.0),
        owner = %(owner)s, ticket = %(ticket)s
    FROM chosen
    WHERE s.workflow_id = chosen.workflow_id AND s.step = chosen.step AND s.idx = chosen.idx
    RETURNING s.*
)

-- name: refused
-- Why a step that was named was not taken.
refused AS (
    SELECT CASE
            WHEN s.step IS NULL THEN 'unknown'
            WHEN s.namespace <> %(namespace)s OR s.service <> %(service)s OR w.paused
                OR s.status NOT IN ('queued', 'retrying', 'in_doubt', 'compensating')
                OR s.lease_until IS NOT NULL THEN 'not_claimable'
            WHEN s.due_at <= statement_timestamp() THEN 'locked'
            ELSE 'not_due' END AS kind,
        v.workflow_id, v.step, v.idx
    FROM wanted v
    LEFT JOIN steps s ON s.workflow_id = v.workflow_id AND s.step = v.step AND s.idx = v.idx
    LEFT JOIN workflows w ON w.id = v.workflow_id
    WHERE ((v.workflow_id, v.step, v.idx)
        IN (SELECT workflow_id, step, idx FROM taken)) IS NOT TRUE
)

-- name: none_refused
-- No step was named.
refused AS (
    SELECT NULL::text AS kind, NULL::uuid AS workflow_id, NULL::text AS step,
        NULL::integer AS idx WHERE false)

-- name: none_taken
-- A batch that claims nothing, unless by what it writes.
taken AS (SELECT * FROM steps WHERE false)

-- name: under_ticket
-- What an earlier try of this batch had claimed, for a batch whose commit was in doubt.
taken AS (
    SELECT * FROM steps
    WHERE lease_until IS NOT NULL AND owner = %(owner)s AND ticket = %(ticket)s)

-- name: held
-- What this batch claimed: by its claims, and by what it wrote.
held AS (
    SELECT * FROM taken
    UNION ALL SELECT * FROM stepped WHERE owner = %(owner)s AND ticket = %(ticket)s
    UNION ALL SELECT * FROM fresh WHERE owner = %(owner)s AND ticket = %(ticket)s
)
