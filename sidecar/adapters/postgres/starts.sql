-- name: known
-- Those that exist: an earlier try of the same batch had taken effect.
SELECT id::text AS id, status FROM workflows WHERE id = ANY(%(ids)s::uuid[])

-- name: unfit
-- Versions that must not be started: retired or gone, or not the latest where that was wanted. It is
-- asked before keys are taken: what it lets pass may still get no key, but a key is never taken for
-- what it does not let pass. Who goes on from a workflow that was terminated runs its version, retired
-- or not: it is chosen already, and cannot be deleted while that workflow is there.
SELECT v.namespace, v.definition, v.version, COALESCE(v.latest, false) AS latest,
    v.goes_on_from::text AS goes_on_from
FROM json_to_recordset(%(wanted)s::json) AS v (
    namespace text, definition text, version integer, latest boolean, goes_on_from uuid)
WHERE NOT EXISTS (
    SELECT FROM definitions d
    WHERE d.namespace = v.namespace AND d.name = v.definition AND d.version = v.version
      AND d.state IN ('active', 'deprecated'))
  AND NOT EXISTS (
    SELECT FROM workflows w
    WHERE w.id = v.goes_on_from AND w.status = 'terminated' AND w.namespace = v.namespace
      AND w.definition = v.definition AND w.version = v.version)
  OR (v.latest AND EXISTS (
    SELECT FROM definitions d JOIN definitions later
        ON later.namespace = d.namespace AND later.name = d.name
          AND later.registered_at > d.registered_at
    WHERE d.namespace = v.namespace AND d.name = v.definition AND d.version = v.version
      AND later.state IN ('active', 'deprecated')))

-- name: reserve_keys
-- Whoever comes first has the key. The keys come sorted, so that no two batches wait for each
-- other.
INSERT INTO start_keys (namespace, definition, start_key, workflow_id, input_hash)
SELECT v.namespace, v.definition, v.start_key, v.workflow_id, v.input_hash
FROM json_to_recordset(%(keys)s::json) AS v (
    namespace text, definition text, start_key text, workflow_id uuid, input_hash text,
    latest boolean, version integer, goes_on_from uuid)
WHERE (EXISTS (
    SELECT FROM definitions d
    WHERE d.namespace = v.namespace AND d.name = v.definition AND d.version = v.version
      AND d.state IN ('active', 'deprecated'))
  OR EXISTS (
    SELECT FROM workflows w
    WHERE w.id = v.goes_on_from AND w.status = 'terminated' AND w.namespace = v.namespace
      AND w.definition = v.definition AND w.version = v.version))
  AND (v.latest IS NULL OR NOT EXISTS (
    SELECT FROM definitions d JOIN definitions later
        ON later.namespace = d.namespace AND later.name = d.name
          AND later.registered_at > d.registered_at
    WHERE d.namespace = v.namespace AND d.name = v.definition AND d.version = v.version
      AND later.state IN ('active', 'deprecated')))
ON CONFLICT (namespace, definition, start_key) DO NOTHING

-- name: read_keys
-- Who has the keys.
SELECT k.definition, k.start_key, k.workflow_id::text AS workflow_id, k.input_hash, w.status
FROM json_to_recordset(%(keys)s::json) AS v (namespace text, definition text, start_key text)
JOIN start_keys k USING (namespace, definition, start_key)
LEFT JOIN workflows w ON w.id = k.workflow_id

-- name: release_keys
-- Those that this transaction has taken for workflows that it does not begin.
DELETE FROM start_keys k
USING unnest(%(ids)s::uuid[]) AS refused (id)
WHERE k.workflow_id = refused.id
  AND NOT EXISTS (SELECT FROM workflows w WHERE w.id = k.workflow_id)

-- name: hand_over
-- What they owe is owed by their reruns.
UPDATE workflows w SET taken_over_by = v.taken_over_by
FROM json_to_recordset(%(handed)s::json) AS v (id uuid, taken_over_by uuid)
WHERE w.id = v.id
