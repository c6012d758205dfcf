-- name: select_bulk
-- What a filter finds, up to a limit and one more; the first of them by their ids.
WITH found AS MATERIALIZED (
    SELECT id FROM workflows
    WHERE namespace = %(namespace)s
      AND (%(statuses)s::text[] IS NULL OR status = ANY(%(statuses)s::text[]))
      AND (%(definition)s::text IS NULL OR definition = %(definition)s)
      AND (%(version)s::integer IS NULL OR version = %(version)s)
      AND (%(labels)s::jsonb = '{}'::jsonb OR labels @> %(labels)s::jsonb)
      AND (%(before)s::timestamptz IS NULL OR created_at < %(before)s)
      AND (%(since)s::timestamptz IS NULL OR created_at > %(since)s)
    ORDER BY id LIMIT %(limit)s + 1
)
SELECT (SELECT count(*) FROM found) AS count,
    ARRAY(SELECT id::text FROM found ORDER BY id LIMIT %(show)s) AS first

-- name: choose
-- The same, and those found become the members of a job.
WITH found AS MATERIALIZED (
    SELECT id FROM workflows
    WHERE namespace = %(namespace)s
      AND (%(statuses)s::text[] IS NULL OR status = ANY(%(statuses)s::text[]))
      AND (%(definition)s::text IS NULL OR definition = %(definition)s)
      AND (%(version)s::integer IS NULL OR version = %(version)s)
      AND (%(labels)s::jsonb = '{}'::jsonb OR labels @> %(labels)s::jsonb)
      AND (%(before)s::timestamptz IS NULL OR created_at < %(before)s)
      AND (%(since)s::timestamptz IS NULL OR created_at > %(since)s)
    ORDER BY id LIMIT %(limit)s + 1
), chosen AS (
    INSERT INTO bulk_members (job_id, number, workflow_id)
    SELECT %(id)s::uuid, row_number() OVER (ORDER BY id), id
    FROM (SELECT id FROM found ORDER BY id LIMIT %(limit)s) AS within
)
SELECT count(*) AS count FROM found

-- name: begin_bulk
-- One that has chosen nothing is done.
INSERT INTO bulk_jobs (id, namespace, verb, arguments, filter, actor, status, selected, more, holder,
    ended_at)
VALUES (%(id)s::uuid, %(namespace)s, %(verb)s, %(arguments)s::json, %(written)s::json, %(actor)s,
    CASE WHEN %(selected)s::integer = 0 THEN 'done' ELSE 'running' END, %(selected)s, %(more)s,
    %(holder)s, CASE WHEN %(selected)s::integer = 0 THEN clock_timestamp() END)

-- name: get_bulk
-- One job.
SELECT id::text AS id, namespace, verb, arguments::text AS arguments, filter::text AS filter, actor,
    status, selected, more, done, refused, failed, holder, moved_at, created_at, ended_at
FROM bulk_jobs WHERE namespace = %(namespace)s AND id = %(id)s::uuid

-- name: list_bulk
-- A page of jobs, newest first; ids sort by time.
SELECT id::text AS id, namespace, verb, arguments::text AS arguments, filter::text AS filter, actor,
    status, selected, more, done, refused, failed, holder, moved_at, created_at, ended_at
FROM bulk_jobs
WHERE namespace = %(namespace)s AND (%(before)s::uuid IS NULL OR id < %(before)s::uuid)
ORDER BY bulk_jobs.id DESC LIMIT %(limit)s

-- name: members
-- A page of what became of each.
SELECT number, workflow_id::text AS workflow, result, detail FROM bulk_members
WHERE job_id = %(id)s::uuid AND number > %(after)s
  AND (%(result)s::text IS NULL OR result = %(result)s)
ORDER BY number LIMIT %(limit)s

-- name: stop_bulk
-- One that has ended stays as it is.
UPDATE bulk_jobs SET status = 'stopped', ended_at = clock_timestamp()
WHERE namespace = %(namespace)s AND id = %(id)s::uuid AND status = 'running'

-- name: take_bulk
-- Whoever comes first has it; its own holder has it anyway.
UPDATE bulk_jobs SET holder = %(holder)s, moved_at = clock_timestamp()
WHERE id = %(id)s::uuid AND status = 'running'
  AND (holder = %(holder)s OR moved_at < clock_timestamp() - %(quiet_for)s::interval)
RETURNING id::text AS id, namespace, verb, arguments::text AS arguments, filter::text AS filter,
    actor, status, selected, more, done, refused, failed, holder, moved_at, created_at, ended_at

-- name: next_bulk
-- Always a row if the job is the holder's, even if no member is left.
SELECT m.number, m.workflow_id::text AS workflow
FROM bulk_jobs j LEFT JOIN LATERAL (
    SELECT number, workflow_id FROM bulk_members
    WHERE job_id = j.id AND result IS NULL ORDER BY number LIMIT %(limit)s
) AS m ON true
WHERE j.id = %(id)s::uuid AND j.holder = %(holder)s AND j.status = 'running'
ORDER BY m.number

-- name: record_bulk
-- What is told twice counts once. What became of some is kept even of a job that was stopped
-- meanwhile; one that has got another holder is left to that.
WITH mine AS MATERIALIZED (
    SELECT id FROM bulk_jobs WHERE id = %(id)s::uuid AND holder = %(holder)s FOR UPDATE
), told AS (
    UPDATE bulk_members m SET result = v.result, detail = v.detail
    FROM json_to_recordset(%(results)s::json) AS v (number integer, result text, detail text), mine
    WHERE m.job_id = mine.id AND m.number = v.number AND m.result IS NULL
    RETURNING m.result
), counted AS (
    SELECT count(*) FILTER (WHERE result = 'done') AS done,
        count(*) FILTER (WHERE result = 'refused') AS refused,
        count(*) FILTER (WHERE result = 'failed') AS failed,
        count(*) AS told
    FROM told
)
UPDATE bulk_jobs j SET moved_at = clock_timestamp(), done = j.done + c.done,
    refused = j.refused + c.refused, failed = j.failed + c.failed,
    status = CASE WHEN j.status = 'running' AND j.done + j.refused + j.failed + c.told >= j.selected
        THEN 'done' ELSE j.status END,
    ended_at = CASE WHEN j.status = 'running'
        AND j.done + j.refused + j.failed + c.told >= j.selected
        THEN clock_timestamp() ELSE j.ended_at END
FROM counted c, mine
WHERE j.id = mine.id
RETURNING j.status

-- name: quiet_bulk
-- Jobs whose sidecar has gone.
SELECT id::text AS id FROM bulk_jobs
WHERE namespace = %(namespace)s AND status = 'running'
  AND moved_at < clock_timestamp() - %(quiet_for)s::interval
ORDER BY moved_at LIMIT %(limit)s

-- name: forget_bulk
-- Members first, some at a time; a job goes when it has none left. Only under the epoch in force.
WITH fence AS MATERIALIZED (
    SELECT 1 FROM leaders WHERE namespace = %(namespace)s AND epoch = %(epoch)s FOR SHARE
), old AS MATERIALIZED (
    SELECT id FROM bulk_jobs, fence
    WHERE bulk_jobs.namespace = %(namespace)s
      AND ended_at < clock_timestamp() - %(ended_for)s::interval
    ORDER BY ended_at LIMIT 100
), part AS MATERIALIZED (
    SELECT job_id, number FROM old JOIN bulk_members ON job_id = old.id LIMIT %(limit)s
), gone AS (
    DELETE FROM bulk_members m USING part WHERE m.job_id = part.job_id AND m.number = part.number
    RETURNING 1
), empty AS (
    DELETE FROM bulk_jobs j USING old
    WHERE j.id = old.id AND NOT EXISTS (SELECT FROM bulk_members m WHERE m.job_id = old.id)
    RETURNING 1
)
SELECT (SELECT count(*) FROM fence) AS fences,
    (SELECT count(*) FROM gone) + (SELECT count(*) FROM empty) AS forgotten
