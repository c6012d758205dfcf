-- name: put_definition
-- The next number, unless the same document is there already; then that is current again. What is
-- current was registered later than all others, whatever the clock says.
INSERT INTO definitions AS d (namespace, name, version, hash, document, registered_at)
SELECT %(namespace)s, %(name)s, COALESCE(max(version), 0) + 1, %(hash)s, %(document)s::json,
    GREATEST(clock_timestamp(), max(registered_at) + interval '1 microsecond')
FROM definitions WHERE namespace = %(namespace)s AND name = %(name)s
ON CONFLICT (namespace, name, hash) DO UPDATE SET registered_at = EXCLUDED.registered_at
RETURNING d.xmax = 0 AS created, d.namespace, d.name, d.version, d.hash,
    d.document::text AS document, d.created_at, d.state

-- name: lock_definition
-- Versions of one name are numbered one after the other.
SELECT pg_advisory_xact_lock(24769, hashtext(%(namespace)s || '/' || %(name)s))

-- name: definition_by_version
-- One version, or the one registered last that may be started, or else the one registered last.
SELECT namespace, name, version, hash, document::text AS document, created_at, state
FROM definitions
WHERE namespace = %(namespace)s AND name = %(name)s AND state <> 'deleted'
  AND version = COALESCE(%(version)s::integer, (
      SELECT version FROM definitions
      WHERE namespace = %(namespace)s AND name = %(name)s AND state IN ('active', 'deprecated')
      ORDER BY registered_at DESC LIMIT 1
  ), (
      SELECT version FROM definitions
      WHERE namespace = %(namespace)s AND name = %(name)s AND state <> 'deleted'
      ORDER BY registered_at DESC LIMIT 1
  ))

-- name: list_definitions
-- The current version of each name: one that may be started comes before one that is retired.
SELECT DISTINCT ON (name) namespace, name, version, hash, document::text AS document, created_at,
    state
FROM definitions
WHERE namespace = %(namespace)s AND (%(after)s::text IS NULL OR name > %(after)s)
  AND state <> 'deleted'
ORDER BY name, state = 'retired', registered_at DESC LIMIT %(limit)s

-- name: get_workflows
-- Whole workflows with their steps, as they all were at one moment. A workflow's bodies come with
-- the first of its rows alone; the columns stand in the order in which `rows.whole_step` and
-- `rows.whole_workflow` take them. The ids come as one value of which the planner cannot see how
-- many they are: it would otherwise plan anew each time, for longer than the query takes. `OFFSET`
-- keeps the steps from being looked up by `idx` alone, which is -1 for nearly all there are.
SELECT w.id::text, s.step, s.idx, s.service, s.status, s.may_have_effect, s.call_ms, s.due_at,
    s.lease_until, s.attempt, s.tries, s.closed, s.answered, s.started_at, s.claimed_at,
    s.ended_at, s.comp_attempt, s.comp_tries, s.comp_closed, s.comp_answered, s.comp_started_at,
    s.comp_claimed_at, s.comp_ended_at, s.input::text, s.output::text, s.error::text,
    s.comp_input::text, s.comp_output::text, s.comp_error::text,
    w.namespace, w.definition, w.version, w.status, w.created_at, w.reason, w.paused, w.revision,
    w.last_seq, w.deadline_at, w.ended_at, w.labels::text, w.start_key, w.trace,
    CASE WHEN row_number() OVER one = 1 THEN w.input::text END,
    CASE WHEN row_number() OVER one = 1 THEN w.output::text END,
    CASE WHEN row_number() OVER one = 1 THEN w.error::text END,
    s.awaiting, s.doubt_at, s.fan::text, w.last_signal, w.parent_id::text, w.parent_step,
    w.parent_idx, w.root_id::text, w.depth, w.turn, w.turn_limit, w.owes_since,
    s.turn, w.taken_over_by::text, s.origin::text
FROM json_array_elements_text(%(ids)s::json) AS asked JOIN workflows w ON w.id = asked::uuid
    LEFT JOIN LATERAL (
        SELECT * FROM steps WHERE workflow_id = w.id AND idx = -1 OFFSET 0
    ) AS s ON true
WINDOW one AS (PARTITION BY w.id ORDER BY s.step, s.idx)

-- name: list_items
-- A page of a fan-out: of an item that had no turn yet there is only its element.
SELECT i.step, i.idx, s.service, s.status, s.may_have_effect, s.call_ms, s.due_at, s.lease_until,
    s.awaiting, s.doubt_at, s.fan::text AS fan, s.turn, s.attempt, s.tries, s.closed, s.answered,
    s.started_at, s.claimed_at, s.ended_at, s.comp_attempt, s.comp_tries, s.comp_closed,
    s.comp_answered, s.comp_started_at, s.comp_claimed_at, s.comp_ended_at,
    COALESCE(s.input, i.element)::text AS input, s.output::text AS output, s.error::text AS error,
    s.comp_input::text AS comp_input, s.comp_output::text AS comp_output,
    s.comp_error::text AS comp_error, s.origin::text AS origin
FROM items i
LEFT JOIN LATERAL (
    SELECT * FROM steps s
    WHERE s.workflow_id = i.workflow_id AND s.step = i.step AND s.idx = i.idx LIMIT 1
) AS s ON true
WHERE i.workflow_id = %(id)s::uuid AND i.step = %(step)s AND i.idx > %(after)s
ORDER BY i.idx LIMIT %(limit)s

-- name: is_current
-- Whether an attempt is the newest of its step and action, and is under way. `COALESCE` hides the
-- question from the index of all leases.
SELECT EXISTS (
    SELECT FROM steps
    WHERE workflow_id = %(id)s::uuid AND step = %(step)s AND idx = %(idx)s
      AND COALESCE(lease_until IS NOT NULL, false)
      AND CASE WHEN status = 'compensating' THEN %(action)s = 'compensate' AND comp_attempt = %(attempt)s
          WHEN status = 'in_doubt' THEN %(action)s = 'status' AND attempt = %(attempt)s
          ELSE %(action)s = 'execute' AND attempt = %(attempt)s END
) AS current

-- name: suggest_key
-- Whoever comes first has made it.
INSERT INTO keys (namespace, name, key) VALUES (%(namespace)s, %(name)s, %(key)s)
ON CONFLICT (namespace, name) DO NOTHING

-- name: get_key
-- The one that all share.
SELECT key FROM keys WHERE namespace = %(namespace)s AND name = %(name)s

-- name: list_workflows
-- Newest first; ids sort by time. The column is named, since the text of the same name has no index.
SELECT id::text AS id, namespace, definition, version, status, reason, paused, revision, last_seq,
       created_at, deadline_at, ended_at, labels, start_key, trace, last_signal,
       owes_since, taken_over_by::text AS taken_over_by,
       parent_id::text AS parent_id, parent_step, parent_idx, root_id::text AS root_id, depth,
       turn, turn_limit
FROM workflows
WHERE namespace = %(namespace)s
  AND (%(after)s::uuid IS NULL OR id < %(after)s::uuid)
  AND (%(statuses)s::text[] IS NULL OR status = ANY(%(statuses)s::text[]))
  AND (%(definition)s::text IS NULL OR definition = %(definition)s)
  AND (%(labels)s::jsonb = '{}'::jsonb OR labels @> %(labels)s::jsonb)
ORDER BY workflows.id DESC LIMIT %(limit)s

-- name: list_events
-- A page of history.
SELECT seq, time, kind, cause, actor, step, idx, action, before, after, attempt,
    details::text AS details
FROM events WHERE workflow_id = %(id)s::uuid AND seq > %(after)s ORDER BY seq LIMIT %(limit)s

-- name: statuses
-- For everybody who waits, at once.
SELECT id::text AS id, status FROM workflows WHERE id = ANY(%(ids)s::uuid[])

-- name: ping
-- The cheapest question there is.
SELECT 1 AS answer

-- name: beat
-- A sidecar is alive.
INSERT INTO sidecars (incarnation, namespace, service, version, host, ready, draining, catalogue)
VALUES (%(incarnation)s, %(namespace)s, %(service)s, %(version)s, %(host)s, %(ready)s,
    %(draining)s, %(catalogue)s)
ON CONFLICT (incarnation) DO UPDATE SET seen_at = clock_timestamp(), ready = EXCLUDED.ready,
    draining = EXCLUDED.draining, version = EXCLUDED.version, catalogue = EXCLUDED.catalogue

-- name: leave
-- A sidecar has gone for good.
UPDATE sidecars SET gone = true, ready = false WHERE incarnation = %(incarnation)s

-- name: list_sidecars
-- All that are known, or those that were seen within so long.
SELECT incarnation, namespace, service, version, host, ready, draining, catalogue, started_at,
    seen_at
FROM sidecars
WHERE namespace = %(namespace)s AND NOT gone
  AND (%(within)s::interval IS NULL OR seen_at >= clock_timestamp() - %(within)s::interval)
ORDER BY service, started_at

-- name: mint_epoch
-- Waits for every transaction that holds the old epoch.
INSERT INTO leaders (namespace, epoch, holder) VALUES (%(namespace)s, 1, %(holder)s)
ON CONFLICT (namespace) DO UPDATE SET epoch = leaders.epoch + 1, holder = EXCLUDED.holder,
    since = clock_timestamp()
RETURNING epoch

-- name: leader_work
-- Whether the questions of the leader would find anything: mostly none does, and this is all that is
-- asked. What holds for their rows must hold here, too.
SELECT EXISTS (
    SELECT FROM steps s LEFT JOIN sidecars c ON c.incarnation = s.owner
    WHERE s.lease_until IS NOT NULL AND s.namespace = %(namespace)s
      AND (s.lease_until < statement_timestamp()
           OR c.gone
           OR c.seen_at < statement_timestamp() - %(unseen)s::interval)
      AND NOT (s.awaiting AND EXISTS (
          SELECT FROM workflows w WHERE w.id = s.workflow_id AND w.paused))
) AS ended_leases, EXISTS (
    SELECT FROM steps s JOIN workflows w ON w.id = s.workflow_id
    WHERE s.namespace = %(namespace)s AND s.status = 'waiting'
      AND s.due_at <= statement_timestamp() AND NOT w.paused
) AS due_timers, EXISTS (
    SELECT FROM letters
    WHERE namespace = %(namespace)s AND sent_at <= statement_timestamp() - interval '2 seconds'
) AS waiting_letters, EXISTS (
    WITH RECURSIVE keys AS (
        (SELECT definition, turn_step, turn FROM turns
         WHERE namespace = %(namespace)s AND NOT placed
         ORDER BY definition, turn_step, turn LIMIT 1)
        UNION ALL
        SELECT n.definition, n.turn_step, n.turn FROM keys k CROSS JOIN LATERAL (
            SELECT definition, turn_step, turn FROM turns
            WHERE namespace = %(namespace)s AND NOT placed
              AND (definition, turn_step, turn) > (k.definition, k.turn_step, k.turn)
            ORDER BY definition, turn_step, turn LIMIT 1
        ) AS n
    )
    SELECT FROM keys k
    WHERE (SELECT count(*) FROM turns t WHERE t.namespace = %(namespace)s AND t.placed
               AND t.definition = k.definition AND t.turn_step = k.turn_step AND t.turn = k.turn)
          < (SELECT t.turn_limit FROM turns t WHERE t.namespace = %(namespace)s AND NOT t.placed
               AND t.definition = k.definition AND t.turn_step = k.turn_step AND t.turn = k.turn
             ORDER BY t.priority DESC, t.since, t.workflow_id, t.idx LIMIT 1)
) AS free_turns, EXISTS (
    SELECT FROM workflows
    WHERE namespace = %(namespace)s AND status IN ('queued', 'in_progress')
      AND deadline_at IS NOT NULL AND NOT paused AND deadline_at <= statement_timestamp()
) AS overdue_workflows, EXISTS (
    SELECT FROM workflows
    WHERE namespace = %(namespace)s AND central AND status IN ('rolling_back', 'error')
) AS central_rollbacks, EXISTS (
    SELECT FROM workflows WHERE namespace = %(namespace)s AND owes_since IS NOT NULL
) AS debts, EXISTS (
    SELECT FROM bulk_jobs
    WHERE namespace = %(namespace)s AND status = 'running'
      AND moved_at < statement_timestamp() - %(unseen)s::interval
) OR EXISTS (
    SELECT FROM bulk_jobs
    WHERE namespace = %(namespace)s AND ended_at < statement_timestamp() - interval '7 days'
) AS bulk, %(due_for)s::interval IS NOT NULL AND EXISTS (
    SELECT FROM (
        SELECT DISTINCT service FROM sidecars
        WHERE namespace = %(namespace)s AND ready AND NOT draining AND NOT gone
          AND seen_at > statement_timestamp() - %(unseen)s::interval
    ) live
    JOIN steps s ON s.namespace = %(namespace)s AND s.service = live.service
    JOIN workflows w ON w.id = s.workflow_id
    WHERE s.status IN ('queued', 'retrying', 'in_doubt', 'compensating') AND s.lease_until IS NULL
      AND s.due_at <= statement_timestamp() - %(due_for)s::interval AND NOT w.paused
      AND (s.due_at AT TIME ZONE 'UTC') - interval '10 seconds' * s.priority
          <= (statement_timestamp() - %(due_for)s::interval) AT TIME ZONE 'UTC'
) AS ringable_steps

-- name: ended_leases
-- Over by the clock, or held by a sidecar that is silent, gone or was never seen for so long. No
-- callback is given up during a pause.
SELECT s.workflow_id::text AS workflow_id, s.step, s.idx, s.status, s.attempt, s.comp_attempt,
       s.lease_until
FROM steps s LEFT JOIN sidecars c ON c.incarnation = s.owner
WHERE s.lease_until IS NOT NULL AND s.namespace = %(namespace)s
  AND (s.lease_until < statement_timestamp()
       OR c.gone
       OR c.seen_at < statement_timestamp() - %(unseen)s::interval)
  AND NOT (s.awaiting AND EXISTS (
      SELECT FROM workflows w WHERE w.id = s.workflow_id AND w.paused))
ORDER BY s.lease_until LIMIT %(limit)s

-- name: due_timers
-- Steps that have waited long enough.
SELECT s.workflow_id::text AS workflow_id, s.step, s.idx
FROM steps s JOIN workflows w ON w.id = s.workflow_id
WHERE s.namespace = %(namespace)s AND s.status = 'waiting'
  AND s.due_at <= statement_timestamp() AND NOT w.paused
ORDER BY s.due_at LIMIT %(limit)s

-- name: waiting_letters
-- What was told and nobody has brought.
SELECT recipient::text AS recipient, sender::text AS sender, revision, event::text AS event
FROM letters
WHERE namespace = %(namespace)s AND sent_at <= statement_timestamp() - %(older_than)s::interval
ORDER BY sent_at LIMIT %(limit)s

-- name: next_turns
-- Of each key as many of those that wait as there are places: the most urgent, and of these the
-- oldest. How many places there are says the first of them; the line ends before one whose own
-- limit leaves it none. Keys are numbered as they were given, from 1 on.
SELECT k.n, line.id, line.step, line.idx
FROM ROWS FROM (json_to_recordset(%(turns)s::json) AS (
    namespace text, definition text, turn_step text, turn text)) WITH ORDINALITY
    AS k (namespace, definition, turn_step, turn, n)
CROSS JOIN LATERAL (
    SELECT count(*) AS placed FROM turns q
    WHERE q.namespace = k.namespace AND q.definition = k.definition
      AND q.turn_step = k.turn_step AND q.turn = k.turn AND q.placed
) AS held
CROSS JOIN LATERAL (
    SELECT f.id, f.step, f.idx, f.ahead,
        bool_and(held.placed + f.ahead < f.turn_limit) OVER (ORDER BY f.ahead) AS has_place
    FROM (
        SELECT t.workflow_id::text AS id, t.step, t.idx, t.turn_limit, row_number() OVER (
            ORDER BY t.priority DESC, t.since, t.workflow_id, t.idx) - 1 AS ahead
        FROM turns t
        WHERE t.namespace = k.namespace AND t.definition = k.definition
          AND t.turn_step = k.turn_step AND t.turn = k.turn AND NOT t.placed
          AND t.workflow_id <> ALL (%(without)s::uuid[])
        ORDER BY t.priority DESC, t.since, t.workflow_id, t.idx
        LIMIT LEAST(%(limit)s, GREATEST(0, (
            SELECT q.turn_limit FROM turns q
            WHERE q.namespace = k.namespace AND q.definition = k.definition
              AND q.turn_step = k.turn_step AND q.turn = k.turn AND NOT q.placed
              AND q.workflow_id <> ALL (%(without)s::uuid[])
            ORDER BY q.priority DESC, q.since, q.workflow_id, q.idx LIMIT 1
        ) - held.placed))
    ) AS f
) AS line
WHERE line.has_place
ORDER BY k.n, line.ahead
LIMIT %(limit)s

-- name: free_turns
-- Where somebody waits although there is a place, after the last key of the page before. From key
-- to key by the index, however many wait for each.
WITH RECURSIVE keys AS (
    (SELECT definition, turn_step, turn FROM turns
     WHERE namespace = %(namespace)s AND NOT placed
       AND (definition, turn_step, turn)
           > (%(after_definition)s::text, %(after_step)s::text, %(after_turn)s::text)
     ORDER BY definition, turn_step, turn LIMIT 1)
    UNION ALL
    SELECT n.definition, n.turn_step, n.turn FROM keys k CROSS JOIN LATERAL (
        SELECT definition, turn_step, turn FROM turns
        WHERE namespace = %(namespace)s AND NOT placed
          AND (definition, turn_step, turn) > (k.definition, k.turn_step, k.turn)
        ORDER BY definition, turn_step, turn LIMIT 1
    ) AS n
)
SELECT %(namespace)s::text AS namespace, k.definition, k.turn_step, k.turn FROM keys k
WHERE (SELECT count(*) FROM turns t WHERE t.namespace = %(namespace)s AND t.placed
           AND t.definition = k.definition AND t.turn_step = k.turn_step AND t.turn = k.turn)
      < (SELECT t.turn_limit FROM turns t WHERE t.namespace = %(namespace)s AND NOT t.placed
           AND t.definition = k.definition AND t.turn_step = k.turn_step AND t.turn = k.turn
         ORDER BY t.priority DESC, t.since, t.workflow_id, t.idx LIMIT 1)
LIMIT %(limit)s

-- name: turn_holders
-- Who has the places, and how its workflow stands.
SELECT t.workflow_id::text AS id, t.step, t.idx, w.status, w.paused
FROM turns t JOIN workflows w ON w.id = t.workflow_id
WHERE t.namespace = %(namespace)s AND t.definition = %(definition)s
  AND t.turn_step = %(turn_step)s AND t.turn = %(turn)s AND t.placed
ORDER BY t.since, t.workflow_id, t.idx LIMIT 10

-- name: overdue_workflows
-- Deadlines that have passed.
SELECT id::text AS id FROM workflows
WHERE namespace = %(namespace)s AND status IN ('queued', 'in_progress')
  AND deadline_at IS NOT NULL AND NOT paused AND deadline_at <= statement_timestamp()
ORDER BY deadline_at LIMIT %(limit)s

-- name: ringable_steps
-- What nobody has claimed for long, of services with a sidecar that is seen, ready and staying: of
-- each service the page after the step that ended its last.
SELECT page.workflow_id::text AS workflow_id, page.step, page.idx, page.service, page.due_at,
       page.rank AT TIME ZONE 'UTC' AS rank, page.trace
FROM (
    SELECT DISTINCT service FROM sidecars
    WHERE namespace = %(namespace)s AND ready AND NOT draining AND NOT gone
      AND seen_at > statement_timestamp() - %(unseen)s::interval
) live
LEFT JOIN unnest(%(services)s::text[], %(after_rank)s::timestamp[], %(after_workflow)s::uuid[],
                 %(after_step)s::text[], %(after_idx)s::integer[])
     AS ended (service, after_rank, after_workflow, after_step, after_idx) USING (service)
CROSS JOIN LATERAL (
    SELECT s.workflow_id, s.step, s.idx, s.service, s.due_at,
        (s.due_at AT TIME ZONE 'UTC') - interval '10 seconds' * s.priority AS rank, w.trace
    FROM steps s JOIN workflows w ON w.id = s.workflow_id
    WHERE s.namespace = %(namespace)s AND s.service = live.service
      AND s.status IN ('queued', 'retrying', 'in_doubt', 'compensating') AND s.lease_until IS NULL
      AND s.due_at <= statement_timestamp() - %(due_for)s::interval AND NOT w.paused
      AND (s.due_at AT TIME ZONE 'UTC') - interval '10 seconds' * s.priority
          BETWEEN coalesce(ended.after_rank, '-infinity')
              AND (statement_timestamp() - %(due_for)s::interval) AT TIME ZONE 'UTC'
      AND (ended.after_rank IS NULL
           OR ((s.due_at AT TIME ZONE 'UTC') - interval '10 seconds' * s.priority, s.workflow_id,
               s.step COLLATE "C", s.idx)
              > (ended.after_rank, ended.after_workflow, ended.after_step, ended.after_idx))
    ORDER BY (s.due_at AT TIME ZONE 'UTC') - interval '10 seconds' * s.priority, s.workflow_id,
        s.step COLLATE "C", s.idx
    LIMIT %(limit)s
) page
ORDER BY page.rank, page.workflow_id, page.step COLLATE "C", page.idx

-- name: forget_sidecars
-- Only under the epoch in force.
WITH fence AS MATERIALIZED (
    SELECT 1 FROM leaders WHERE namespace = %(namespace)s AND epoch = %(epoch)s FOR SHARE
), gone AS (
    DELETE FROM sidecars USING fence
    WHERE sidecars.namespace = %(namespace)s
      AND sidecars.seen_at < clock_timestamp() - %(unseen)s::interval
    RETURNING 1
)
SELECT (SELECT count(*) FROM fence) AS fences, (SELECT count(*) FROM gone) AS forgotten
