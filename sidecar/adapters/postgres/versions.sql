-- name: set_state
-- The moment is that of the first time: repeated, it changes nothing.
UPDATE definitions SET state = %(state)s,
    state_at = CASE WHEN state = %(state)s THEN state_at ELSE clock_timestamp() END
WHERE namespace = %(namespace)s AND name = %(name)s AND version = %(version)s
  AND state <> 'deleted'
RETURNING namespace, name, version, hash, document::text AS document, created_at, state

-- name: list_versions
-- The newest first, with the number of workflows that have not ended: an index alone tells it, and
-- the counting ends at a limit.
SELECT d.namespace, d.name, d.version, d.hash, d.created_at, d.state, (
    SELECT count(*) FROM (
        SELECT FROM workflows w
        WHERE w.namespace = d.namespace AND w.definition = d.name AND w.version = d.version
          AND w.status IN ('queued', 'in_progress', 'rolling_back', 'error')
        LIMIT %(most)s
    ) AS counted
) AS open, d.registered_at = (
    SELECT max(c.registered_at) FROM definitions c
    WHERE c.namespace = d.namespace AND c.name = d.name AND c.state IN ('active', 'deprecated')
) IS TRUE AS current
FROM definitions d
WHERE d.namespace = %(namespace)s AND d.name = %(name)s AND d.state <> 'deleted'
  AND (%(before)s::integer IS NULL OR d.version < %(before)s)
ORDER BY d.version DESC LIMIT %(limit)s

-- name: what_holds
-- Whether a version may be deleted, and if not, why. Starts that were under way when it was retired
-- have come to an end since: a commit may not last that long. Which definitions run it as a child
-- stands in their documents: all are read, for what is asked so rarely.
SELECT CASE
        WHEN d.state <> 'retired' THEN 'not_retired'
        WHEN EXISTS (
            SELECT FROM workflows w
            WHERE w.namespace = d.namespace AND w.definition = d.name AND w.version = d.version
        ) THEN 'in_use'
        WHEN EXISTS (
            SELECT FROM definitions p
            CROSS JOIN LATERAL json_array_elements(p.document -> 'steps') AS step
            WHERE p.namespace = d.namespace AND p.state <> 'deleted'
              AND step ->> 'workflow' = d.name AND (step ->> 'version')::integer = d.version
        ) THEN 'pinned'
        WHEN d.state_at > clock_timestamp() - %(retired_for)s::interval THEN 'too_soon'
        ELSE 'done' END AS removal
FROM definitions d
WHERE d.namespace = %(namespace)s AND d.name = %(name)s AND d.version = %(version)s
  AND d.state <> 'deleted'
FOR UPDATE OF d

-- name: delete_version
-- The row stays, for its number; the same document may come again as another version.
UPDATE definitions SET state = 'deleted', document = 'null', hash = 'deleted:' || version
WHERE namespace = %(namespace)s AND name = %(name)s AND version = %(version)s
