-- name: some_items
-- Those that are spoken of, and those whose turn to be undone is next. Each is looked up by its
-- whole key, whatever the planner thinks of the number of items: that is what LIMIT is for.
SELECT s.workflow_id::text AS workflow_id, s.step, s.idx, s.service, s.status, s.may_have_effect,
    s.call_ms, s.due_at, s.lease_until, s.awaiting, s.doubt_at, s.fan::text AS fan, s.turn, s.attempt,
    s.tries, s.closed, s.answered, s.started_at, s.claimed_at, s.ended_at, s.comp_attempt,
    s.comp_tries, s.comp_closed, s.comp_answered, s.comp_started_at, s.comp_claimed_at,
    s.comp_ended_at, s.origin::text AS origin, CASE WHEN w.renders THEN s.output::text END AS output
FROM (
    SELECT v.workflow_id, v.step, COALESCE(v.idx, 0) AS idx
    FROM json_to_recordset(%(keys)s::json) AS v (workflow_id uuid, step text, idx integer)
    UNION
    SELECT v.workflow_id, v.step, due.idx
    FROM json_to_recordset(%(undoing)s::json) AS v (
        workflow_id uuid, step text, undone integer, most integer)
    CROSS JOIN LATERAL (
        SELECT s.idx FROM steps s
        WHERE s.workflow_id = v.workflow_id AND s.step = v.step AND s.idx >= COALESCE(v.undone, 0)
          AND s.status IN ('succeeded', 'skipped', 'failed') AND s.may_have_effect
        ORDER BY s.idx LIMIT v.most
    ) AS due
) AS v
CROSS JOIN LATERAL (
    SELECT * FROM steps s
    WHERE s.workflow_id = v.workflow_id AND s.step = v.step AND s.idx = v.idx LIMIT 1
) AS s
CROSS JOIN LATERAL (SELECT renders FROM workflows WHERE id = v.workflow_id LIMIT 1) AS w

-- name: all_items
-- What only concerns all items needs.
SELECT s.workflow_id::text AS workflow_id, s.step, s.idx, s.service, s.status, s.may_have_effect,
    s.call_ms, s.due_at, s.lease_until, s.awaiting, s.doubt_at, s.fan::text AS fan, s.turn, s.attempt,
    s.tries, s.closed, s.answered, s.started_at, s.claimed_at, s.ended_at, s.comp_attempt,
    s.comp_tries, s.comp_closed, s.comp_answered, s.comp_started_at, s.comp_claimed_at,
    s.comp_ended_at, s.origin::text AS origin, CASE WHEN w.renders THEN s.output::text END AS output
FROM steps s JOIN workflows w ON w.id = s.workflow_id
WHERE s.workflow_id = ANY(%(ids)s::uuid[]) AND s.idx >= 0

-- name: some_elements
-- Of the items that are spoken of, and of those to be opened next.
SELECT v.workflow_id::text AS workflow_id, v.step, COALESCE(v.idx, 0) AS idx, i.element
FROM json_to_recordset(%(keys)s::json) AS v (workflow_id uuid, step text, idx integer)
CROSS JOIN LATERAL (
    SELECT element::text AS element FROM items i
    WHERE i.workflow_id = v.workflow_id AND i.step = v.step AND i.idx = COALESCE(v.idx, 0) LIMIT 1
) AS i

-- name: all_elements
-- Of all of them.
SELECT workflow_id::text AS workflow_id, step, idx, element::text AS element
FROM items WHERE workflow_id = ANY(%(ids)s::uuid[])
