-- name: debt_totals
-- The planner walks the index in its order and stops at the limit, so a flood of debts costs no more
-- than that. A fan-out is told by its items.
SELECT definition, version, step, service, failed, count(*) AS count,
    count(*) FILTER (WHERE owes_since <= statement_timestamp() - %(older_than)s::interval)
        AS overdue,
    min(owes_since) AS oldest
FROM (
    SELECT w.definition, w.version, w.owes_since, s.step, s.service,
        s.status = 'compensation_failed' AS failed
    FROM workflows w CROSS JOIN LATERAL (
        SELECT step, service, status FROM steps
        WHERE workflow_id = w.id AND may_have_effect AND fan IS NULL
          AND status NOT IN ('pending', 'cancelled', 'compensated')
    ) s
    WHERE w.namespace = %(namespace)s AND w.owes_since IS NOT NULL
    ORDER BY w.owes_since LIMIT %(most)s
) AS owed
GROUP BY definition, version, step, service, failed

-- name: list_debts
-- A page, the oldest first.
SELECT w.id::text AS id, w.definition, w.version, w.owes_since, w.status AS workflow_status,
    s.step, s.idx, s.service, s.status, s.comp_tries, s.due_at,
    COALESCE(s.comp_error, s.error)::text AS error
FROM workflows w CROSS JOIN LATERAL (
    SELECT * FROM steps
    WHERE workflow_id = w.id AND may_have_effect AND fan IS NULL
      AND status NOT IN ('pending', 'cancelled', 'compensated')
      AND (%(service)s::text IS NULL OR service = %(service)s)
) s
WHERE w.namespace = %(namespace)s AND w.owes_since IS NOT NULL
  AND w.owes_since >= COALESCE(%(since)s::timestamptz, '-infinity')
  AND (%(since)s::timestamptz IS NULL
       OR (w.owes_since, w.id, s.step COLLATE "C", s.idx)
          > (%(since)s::timestamptz, %(workflow)s::uuid, %(step)s, %(idx)s::integer))
ORDER BY w.owes_since, w.id, s.step COLLATE "C", s.idx LIMIT %(limit)s

-- name: central_rollbacks
-- A page of them, by id.
SELECT id::text AS id FROM workflows
WHERE namespace = %(namespace)s AND central AND status IN ('rolling_back', 'error')
  AND (%(after)s::uuid IS NULL OR id > %(after)s::uuid)
ORDER BY workflows.id LIMIT %(limit)s
