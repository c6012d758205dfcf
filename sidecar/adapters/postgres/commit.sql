-- name: begin
-- Sent with the first question, so that it costs no round trip of its own.
BEGIN

-- name: commit
-- Sent with the last write.
COMMIT

-- name: fence
-- The leader's epoch is locked until the commit, so that a successor waits for this transaction.
SELECT epoch FROM leaders
WHERE namespace = %(namespace)s AND epoch = %(epoch)s
FOR SHARE

-- name: now
-- The only clock; read after every lock that was waited for.
SELECT clock_timestamp() AS now

-- name: inputs
-- For steps that are claimed with the settlement before them and get the workflow's own input.
SELECT id::text AS id, input::text AS input FROM workflows WHERE id = ANY(%(ids)s::uuid[])

-- name: insert_workflows
-- New workflows. Bodies travel as text: they are kept as they came, and JSON's null stays one.
INSERT INTO workflows (id, namespace, definition, version, status, reason, revision, last_seq,
    created_at, deadline_at, ended_at, labels, start_key, trace, input, output, error)
SELECT v.id, v.namespace, v.definition, v.version, v.status, v.reason, v.revision, v.last_seq,
    v.created_at, v.deadline_at, v.ended_at, v.labels, v.start_key, v.trace, v.input::json,
    v.output::json, v.error::json
FROM json_to_recordset(%(records)s::json) AS v (
    id uuid, namespace text, definition text, version integer, status text, reason text,
    revision bigint, last_seq integer, created_at timestamptz, deadline_at timestamptz,
    ended_at timestamptz, labels jsonb, start_key text, trace text, input text, output text,
    error text)

-- name: update_workflows
-- Workflows that moved.
UPDATE workflows w SET status = v.status, reason = v.reason, revision = v.revision,
    last_seq = v.last_seq, deadline_at = v.deadline_at, ended_at = v.ended_at,
    output = COALESCE(v.output::json, w.output), error = COALESCE(v.error::json, w.error)
FROM json_to_recordset(%(records)s::json) AS v (
    id uuid, status text, reason text, revision bigint, last_seq integer,
    deadline_at timestamptz, ended_at timestamptz, output text, error text)
WHERE w.id = v.id

-- name: insert_steps
-- Steps that got their row.
INSERT INTO steps (workflow_id, step, idx, namespace, service, status, may_have_effect, call_ms,
    due_at, lease_until, owner, ticket, attempt, tries, closed, answered, started_at, claimed_at,
    ended_at, succeeded, comp_attempt, comp_tries, comp_closed, comp_answered, comp_started_at,
    comp_claimed_at, comp_ended_at, input, output, error, comp_input, comp_output, comp_error)
SELECT v.workflow_id, v.step, v.idx, v.namespace, v.service, v.status, v.may_have_effect,
    v.call_ms, v.due_at, v.lease_until, v.owner, v.ticket, v.attempt, v.tries, v.closed,
    v.answered, v.started_at, v.claimed_at, v.ended_at, v.succeeded, v.comp_attempt,
    v.comp_tries, v.comp_closed, v.comp_answered, v.comp_started_at, v.comp_claimed_at,
    v.comp_ended_at, v.input::json, v.output::json, v.error::json, v.comp_input::json,
    v.comp_output::json, v.comp_error::json
FROM json_to_recordset(%(records)s::json) AS v (
    workflow_id uuid, step text, idx integer, namespace text, service text, status text,
    may_have_effect boolean, call_ms integer, due_at timestamptz, lease_until timestamptz,
    owner text, ticket bigint, attempt integer, tries integer, closed integer, answered integer,
    started_at timestamptz, claimed_at timestamptz, ended_at timestamptz, succeeded boolean,
    comp_attempt integer, comp_tries integer, comp_closed integer, comp_answered integer,
    comp_started_at timestamptz, comp_claimed_at timestamptz, comp_ended_at timestamptz,
    input text, output text, error text, comp_input text, comp_output text, comp_error text)

-- name: update_steps
-- Steps that moved. That a step succeeded is never forgotten: its compensation is told so.
UPDATE steps s SET status = v.status, may_have_effect = v.may_have_effect, call_ms = v.call_ms,
    due_at = v.due_at, lease_until = v.lease_until,
    owner = CASE WHEN v.lease_until IS NOT NULL THEN COALESCE(v.owner, s.owner) END,
    ticket = CASE WHEN v.lease_until IS NOT NULL THEN COALESCE(v.ticket, s.ticket) END,
    attempt = v.attempt, tries = v.tries, closed = v.closed, answered = v.answered,
    started_at = v.started_at, claimed_at = v.claimed_at, ended_at = v.ended_at,
    succeeded = s.succeeded OR v.succeeded,
    comp_attempt = v.comp_attempt, comp_tries = v.comp_tries, comp_closed = v.comp_closed,
    comp_answered = v.comp_answered, comp_started_at = v.comp_started_at,
    comp_claimed_at = v.comp_claimed_at, comp_ended_at = v.comp_ended_at,
    input = COALESCE(v.input::json, s.input), output = COALESCE(v.output::json, s.output),
    error = COALESCE(v.error::json, s.error),
    comp_input = COALESCE(v.comp_input::json, s.comp_input),
    comp_output = COALESCE(v.comp_output::json, s.comp_output),
    comp_error = COALESCE(v.comp_error::json, s.comp_error)
FROM json_to_recordset(%(records)s::json) AS v (
    workflow_id uuid, step text, idx integer, status text, may_have_effect boolean,
    call_ms integer, due_at timestamptz, lease_until timestamptz, owner text, ticket bigint,
    attempt integer, tries integer, closed integer, answered integer, started_at timestamptz,
    claimed_at timestamptz, ended_at timestamptz, succeeded boolean, comp_attempt integer,
    comp_tries integer, comp_closed integer, comp_answered integer, comp_started_at timestamptz,
    comp_claimed_at timestamptz, comp_ended_at timestamptz, input text, output text, error text,
    comp_input text, comp_output text, comp_error text)
WHERE s.workflow_id = v.workflow_id AND s.step = v.step AND s.idx = v.idx

-- name: insert_events
-- The history of the whole batch.
INSERT INTO events (workflow_id, seq, time, kind, cause, actor, step, idx, action, before, after,
    attempt)
SELECT v.workflow_id, v.seq, v.time, v.kind, v.cause, v.actor, v.step, v.idx, v.action, v.before,
    v.after, v.attempt
FROM json_to_recordset(%(records)s::json) AS v (
    workflow_id uuid, seq integer, time timestamptz, kind text, cause text, actor text, step text,
    idx integer, action text, before text, after text, attempt integer)
