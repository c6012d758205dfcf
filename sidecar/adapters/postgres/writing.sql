-- name: moves
-- Fields that hold nothing, zero or false are left out of all records.
-- Transitions that were decided. A workflow that somebody holds, or that has moved since its state
-- was read, loses, and nothing of it is written. `IS TRUE` keeps the planner from joining these
-- lists row by row: it looks each id up in a hash table. `%% 1 = 0` is always true, and lets the
-- planner expect one record, not a hundred: for a hundred it would rather go through a table that is
-- tiny as a whole, and keep that plan while the table grows.
moved AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(moved)s::json) AS v (
        id uuid, expected bigint, was_paused boolean, paused boolean, status text, reason text, revision bigint, last_seq integer,
        deadline_at timestamptz, ended_at timestamptz, kept_signals integer, last_signal integer,
        owes_since timestamptz, output text, error text)
    WHERE COALESCE(v.last_seq, 0) %% 1 = 0
), won AS MATERIALIZED (
    SELECT w.id FROM moved v JOIN workflows w ON w.id = v.id
    WHERE w.revision = v.expected AND w.paused = COALESCE(v.was_paused, false)
    ORDER BY w.id FOR UPDATE OF w SKIP LOCKED
), written AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(steps)s::json) AS v (
        workflow_id uuid, step text, idx integer, status text, may_have_effect boolean,
        call_ms integer, due_at timestamptz, lease_until timestamptz, claim boolean,
        awaiting boolean, doubt_at timestamptz, fan text, attempt integer, tries integer, closed integer, answered integer, started_at timestamptz,
        claimed_at timestamptz, ended_at timestamptz, succeeded boolean, comp_attempt integer,
        comp_tries integer, comp_closed integer, comp_answered integer,
        comp_started_at timestamptz, comp_claimed_at timestamptz, comp_ended_at timestamptz,
        input text, output text, error text, comp_input text, comp_output text, comp_error text)
    WHERE COALESCE(v.call_ms, 0) %% 1 = 0
), changed AS (
    UPDATE workflows w SET status = v.status, reason = v.reason, revision = v.revision,
        last_seq = v.last_seq, deadline_at = v.deadline_at, ended_at = v.ended_at,
        paused = COALESCE(v.paused, false), kept_signals = COALESCE(v.kept_signals, 0),
        last_signal = COALESCE(v.last_signal, 0), owes_since = v.owes_since,
        output = COALESCE(v.output::json, w.output), error = COALESCE(v.error::json, w.error)
    FROM moved v
    WHERE w.id = v.id AND (v.id IN (SELECT id FROM won)) IS TRUE
), stepped AS (
    UPDATE steps s SET status = v.status, may_have_effect = COALESCE(v.may_have_effect, false),
        call_ms = v.call_ms, due_at = v.due_at,
        lease_until = CASE WHEN v.claim THEN statement_timestamp()
            + make_interval(secs => (v.call_ms + %(margin_ms)s) / 1000.0) ELSE v.lease_until END,
        owner = CASE WHEN v.claim THEN %(owner)s WHEN v.awaiting THEN NULL
            WHEN v.lease_until IS NOT NULL THEN s.owner END,
        ticket = CASE WHEN v.claim THEN %(ticket)s WHEN v.awaiting THEN NULL
            WHEN v.lease_until IS NOT NULL THEN s.ticket END,
        awaiting = COALESCE(v.awaiting, false), doubt_at = v.doubt_at, fan = v.fan::json,
        attempt = COALESCE(v.attempt, 0), tries = COALESCE(v.tries, 0), closed = COALESCE(v.closed, 0), answered = COALESCE(v.answered, 0),
        started_at = v.started_at, claimed_at = v.claimed_at, ended_at = v.ended_at,
        succeeded = s.succeeded OR COALESCE(v.succeeded, false),
        comp_attempt = COALESCE(v.comp_attempt, 0), comp_tries = COALESCE(v.comp_tries, 0), comp_closed = COALESCE(v.comp_closed, 0),
        comp_answered = COALESCE(v.comp_answered, 0), comp_started_at = v.comp_started_at,
        comp_claimed_at = v.comp_claimed_at, comp_ended_at = v.comp_ended_at,
        input = COALESCE(v.input::json, s.input), output = COALESCE(v.output::json, s.output),
        error = COALESCE(v.error::json, s.error),
        comp_input = COALESCE(v.comp_input::json, s.comp_input),
        comp_output = COALESCE(v.comp_output::json, s.comp_output),
        comp_error = COALESCE(v.comp_error::json, s.comp_error)
    FROM written v
    WHERE s.workflow_id = v.workflow_id AND s.step = v.step AND s.idx = COALESCE(v.idx, 0)
      AND (v.workflow_id IN (SELECT id FROM won)) IS TRUE
    RETURNING s.*
)

-- name: no_moves
-- In their place, so that the rest can speak of them.
won AS (SELECT NULL::uuid AS id WHERE false),
moved AS (SELECT NULL::uuid AS id WHERE false),
written AS (SELECT NULL::uuid AS workflow_id, NULL::text AS step, 0 AS idx WHERE false),
stepped AS (SELECT * FROM steps WHERE false)

-- name: starts
-- New workflows; one whose start key somebody else has loses. So does one that is there (its batch
-- had taken effect in part, and its members come again in others), one whose version must not be
-- started any more, and one that wants the latest version where it is another.
starting AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(starting)s::json) AS v (
        id uuid, namespace text, definition text, version integer, status text, reason text,
        revision bigint, last_seq integer, created_at timestamptz, deadline_at timestamptz,
        ended_at timestamptz, labels jsonb, start_key text, trace text, renders boolean,
        central boolean,
        parent_id uuid, parent_step text, parent_idx integer, root_id uuid, depth integer,
        turn text, turn_limit integer, priority integer,
        input text, output text, error text, input_hash text, reserve boolean, checks boolean,
        latest boolean)
), fit AS MATERIALIZED (
    SELECT v.* FROM starting v
    WHERE v.checks IS NULL OR (EXISTS (
        SELECT FROM definitions d
        WHERE d.namespace = v.namespace AND d.name = v.definition AND d.version = v.version
          AND d.state IN ('active', 'deprecated') AND (v.latest IS NULL OR NOT EXISTS (
            SELECT FROM definitions later
            WHERE later.namespace = d.namespace AND later.name = d.name
              AND later.registered_at > d.registered_at
              AND later.state IN ('active', 'deprecated')))))
), reserved AS (
    INSERT INTO start_keys (namespace, definition, start_key, workflow_id, input_hash)
    SELECT v.namespace, v.definition, v.start_key, v.id, v.input_hash
    FROM fit v WHERE v.reserve ORDER BY v.definition, v.start_key
    ON CONFLICT (namespace, definition, start_key) DO NOTHING
    RETURNING workflow_id
), begun AS (
    INSERT INTO workflows (id, namespace, definition, version, status, reason, revision, last_seq,
        created_at, deadline_at, ended_at, labels, start_key, trace, renders, central, parent_id,
        parent_step, parent_idx, root_id, depth, turn, turn_limit, priority, input, output, error)
    SELECT v.id, v.namespace, v.definition, v.version, v.status, v.reason, v.revision, v.last_seq,
        v.created_at, v.deadline_at, v.ended_at, COALESCE(v.labels, '{}'), v.start_key, v.trace, COALESCE(v.renders, false),
        COALESCE(v.central, false), v.parent_id, v.parent_step, CASE WHEN v.parent_id IS NOT NULL
            THEN COALESCE(v.parent_idx, 0) END, v.root_id, v.depth,
        v.turn, v.turn_limit, COALESCE(v.priority, 0),
        v.input::json, v.output::json, v.error::json
    FROM fit v
    WHERE v.reserve IS NULL OR (v.id IN (SELECT workflow_id FROM reserved)) IS TRUE
    ON CONFLICT (id) DO NOTHING
    RETURNING id
)

-- name: no_starts
-- In their place.
starting AS (SELECT NULL::uuid AS id WHERE false),
begun AS (SELECT NULL::uuid AS id WHERE false)

-- name: history
-- What both write: steps that get their row, and what is told of it all.
writable AS MATERIALIZED (
    SELECT id FROM won UNION ALL SELECT id FROM begun
), fresh AS (
    INSERT INTO steps (workflow_id, step, idx, namespace, service, status, may_have_effect,
        call_ms, due_at, lease_until, owner, ticket, awaiting, doubt_at, fan, turn, attempt, tries,
        closed, answered, started_at, claimed_at, ended_at, succeeded, comp_attempt, comp_tries, comp_closed, comp_answered,
        comp_started_at, comp_claimed_at, comp_ended_at, input, output, error, comp_input,
        comp_output, comp_error, origin, priority)
    SELECT v.workflow_id, v.step, COALESCE(v.idx, 0), %(namespace)s, v.service, v.status,
        COALESCE(v.may_have_effect, false), v.call_ms, v.due_at,
        CASE WHEN v.claim THEN statement_timestamp()
            + make_interval(secs => (v.call_ms + %(margin_ms)s) / 1000.0) ELSE v.lease_until END,
        CASE WHEN v.claim THEN %(owner)s END, CASE WHEN v.claim THEN %(ticket)s::bigint END,
        COALESCE(v.awaiting, false), v.doubt_at, v.fan::json, v.turn,
        COALESCE(v.attempt, 0), COALESCE(v.tries, 0), COALESCE(v.closed, 0),
        COALESCE(v.answered, 0), v.started_at, v.claimed_at, v.ended_at,
        COALESCE(v.succeeded, false), COALESCE(v.comp_attempt, 0), COALESCE(v.comp_tries, 0),
        COALESCE(v.comp_closed, 0), COALESCE(v.comp_answered, 0),
        v.comp_started_at, v.comp_claimed_at, v.comp_ended_at, v.input::json, v.output::json,
        v.error::json, v.comp_input::json, v.comp_output::json, v.comp_error::json, v.origin,
        COALESCE(v.priority, 0)
    FROM json_to_recordset(%(fresh)s::json) AS v (
        workflow_id uuid, step text, idx integer, service text, status text,
        may_have_effect boolean, call_ms integer, due_at timestamptz, lease_until timestamptz,
        claim boolean, awaiting boolean, doubt_at timestamptz, fan text, turn text, origin uuid,
        attempt integer, tries integer, closed integer, answered integer, started_at timestamptz, claimed_at timestamptz, ended_at timestamptz, succeeded boolean,
        comp_attempt integer, comp_tries integer, comp_closed integer, comp_answered integer,
        comp_started_at timestamptz, comp_claimed_at timestamptz, comp_ended_at timestamptz,
        input text, output text, error text, comp_input text, comp_output text, comp_error text,
        priority integer)
    WHERE (v.workflow_id IN (SELECT id FROM writable)) IS TRUE
    RETURNING *
), history AS (
    INSERT INTO events (workflow_id, seq, time, kind, cause, actor, step, idx, action, before,
        after, attempt, details)
    SELECT v.workflow_id, v.seq, v.time, v.kind, v.cause, v.actor, v.step, COALESCE(v.idx, 0), v.action,
        v.before, v.after, v.attempt, v.details::json
    FROM json_to_recordset(%(events)s::json) AS v (
        workflow_id uuid, seq integer, time timestamptz, kind text, cause text, actor text,
        step text, idx integer, action text, before text, after text, attempt integer,
        details text)
    WHERE (v.workflow_id IN (SELECT id FROM writable)) IS TRUE
), lost AS (
    SELECT id FROM moved v WHERE (v.id IN (SELECT id FROM won)) IS NOT TRUE
    UNION ALL
    SELECT id FROM starting v WHERE (v.id IN (SELECT id FROM begun)) IS NOT TRUE
)

-- name: items
-- The elements of fan-outs that begin.
new_items AS (
    INSERT INTO items (workflow_id, step, idx, element)
    SELECT v.workflow_id, v.step, e.number - 1, e.element
    FROM json_to_recordset(%(items)s::json) AS v (workflow_id uuid, step text, elements text)
    CROSS JOIN LATERAL json_array_elements(v.elements::json) WITH ORDINALITY AS e (element, number)
    WHERE (v.workflow_id IN (SELECT id FROM writable)) IS TRUE
)

-- name: signals
-- Signals that are kept, and those that are not any more.
kept AS (
    INSERT INTO signals (workflow_id, number, name, payload, actor, reason, sent_at)
    SELECT v.workflow_id, v.number, v.name, v.payload::json, v.actor, COALESCE(v.reason, ''),
        v.sent_at
    FROM json_to_recordset(%(kept)s::json) AS v (
        workflow_id uuid, number integer, name text, payload text, actor text, reason text,
        sent_at timestamptz)
    WHERE (v.workflow_id IN (SELECT id FROM writable)) IS TRUE
), unkept AS (
    DELETE FROM signals s
    USING json_to_recordset(%(unkept)s::json) AS v (workflow_id uuid, number integer)
    WHERE s.workflow_id = v.workflow_id AND s.number = v.number
      AND (v.workflow_id IN (SELECT id FROM writable)) IS TRUE
)

-- name: letters
-- What is told to other workflows.
sent AS (
    INSERT INTO letters (recipient, sender, revision, namespace, event, sent_at)
    SELECT v.recipient, v.sender, v.revision, %(namespace)s, v.event::json, statement_timestamp()
    FROM json_to_recordset(%(letters)s::json) AS v (
        recipient uuid, sender uuid, revision bigint, event text)
    WHERE (v.sender IN (SELECT id FROM writable)) IS TRUE
)

-- name: brought
-- What was told, whatever came of it.
brought AS (
    DELETE FROM letters l
    USING json_to_recordset(%(brought)s::json) AS v (recipient uuid, sender uuid, revision bigint)
    WHERE l.recipient = v.recipient AND l.sender = v.sender AND l.revision = v.revision
)

-- name: turns
-- Who waits for a place from now on or has one, and who does neither any more.
stands AS (
    INSERT INTO turns (workflow_id, step, idx, namespace, definition, turn_step, turn, turn_limit,
        priority, since, placed)
    SELECT v.workflow_id, v.step, COALESCE(v.idx, 0), v.namespace, v.definition, v.turn_step,
        v.turn, v.turn_limit, COALESCE(v.priority, 0), v.since, COALESCE(v.placed, false)
    FROM json_to_recordset(%(stands)s::json) AS v (
        workflow_id uuid, step text, idx integer, namespace text, definition text, turn_step text,
        turn text, turn_limit integer, priority integer, since timestamptz, placed boolean)
    WHERE (v.workflow_id IN (SELECT id FROM writable)) IS TRUE
    ON CONFLICT (workflow_id, idx, step) DO UPDATE SET since = EXCLUDED.since, placed = EXCLUDED.placed
), gone AS (
    DELETE FROM turns t
    USING json_to_recordset(%(gone)s::json) AS v (workflow_id uuid, step text, idx integer)
    WHERE t.workflow_id = v.workflow_id AND t.step = v.step AND t.idx = COALESCE(v.idx, 0)
      AND (v.workflow_id IN (SELECT id FROM writable)) IS TRUE
)

-- name: no_history
-- A batch that writes nothing.
fresh AS (SELECT * FROM steps WHERE false),
lost AS (SELECT NULL::uuid AS id WHERE false)

-- name: answer
-- Always a row, for the clock and for whoever lost; then a row for every step that is held, one
-- for each other step of a workflow just taken up (so that its next transition can be decided
-- without reading), and one for each key that was refused. The columns stand in the order in
-- which `rows.held_step` and `rows.held_workflow` take them. `large` says that an output which
-- expressions may read was left out.
SELECT t.now, t.lost, r.*
FROM (SELECT clock_timestamp() AS now, ARRAY(SELECT id::text FROM lost) AS lost) AS t
LEFT JOIN (
    SELECT 'held' AS kind, s.workflow_id::text AS workflow_id, s.step, s.idx, s.service, s.status,
        s.may_have_effect, s.call_ms, s.due_at, s.lease_until,
        s.attempt, s.tries, s.closed, s.answered, s.started_at, s.claimed_at, s.ended_at,
        s.comp_attempt, s.comp_tries, s.comp_closed, s.comp_answered, s.comp_started_at,
        s.comp_claimed_at, s.comp_ended_at,
        s.output::text AS output, s.comp_input::text AS comp_input, s.succeeded,
        COALESCE(s.input, w.input)::text AS input,
        w.namespace, w.definition, w.version, w.status AS workflow_status, w.reason, w.paused,
        w.revision, w.last_seq, w.created_at, w.deadline_at, w.ended_at AS workflow_ended_at,
        w.trace, w.renders, CASE WHEN w.renders THEN w.input::text END AS workflow_input,
        s.awaiting, s.doubt_at, s.fan::text AS fan, w.kept_signals, w.last_signal,
        w.parent_id::text AS parent_id, w.parent_step, w.parent_idx, w.root_id::text AS root_id,
        w.depth, w.turn, w.turn_limit, w.owes_since, s.turn AS step_turn, s.origin::text
    FROM held s LEFT JOIN workflows w ON w.id = s.workflow_id
    UNION ALL
    SELECT CASE WHEN w.renders AND pg_column_size(x.output) >= %(large)s THEN 'large'
            ELSE 'other' END,
        x.workflow_id::text, x.step, x.idx, x.service, x.status,
        x.may_have_effect, x.call_ms, x.due_at, x.lease_until,
        x.attempt, x.tries, x.closed, x.answered, x.started_at, x.claimed_at, x.ended_at,
        x.comp_attempt, x.comp_tries, x.comp_closed, x.comp_answered, x.comp_started_at,
        x.comp_claimed_at, x.comp_ended_at,
        CASE WHEN w.renders AND pg_column_size(x.output) < %(large)s THEN x.output::text END,
        NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        NULL, NULL, x.awaiting, x.doubt_at, x.fan::text, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        NULL, NULL, NULL, x.turn, x.origin::text
    FROM taken s
    JOIN workflows w ON w.id = s.workflow_id
    JOIN LATERAL (
        SELECT * FROM steps
        WHERE workflow_id = s.workflow_id AND idx = -1 AND (step, idx) <> (s.step, s.idx)
        LIMIT %(others)s
    ) AS x ON true
    UNION ALL
    SELECT f.kind, f.workflow_id::text, f.step, f.idx, NULL, NULL, NULL, NULL, NULL, NULL,
        NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        NULL, NULL, NULL, NULL
    FROM refused f
) AS r ON true
