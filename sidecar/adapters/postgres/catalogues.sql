-- name: lock_catalogues
-- Versions of one service's catalogue are numbered one after the other, however many replicas of it
-- are started at once.
SELECT pg_advisory_xact_lock(24771, hashtext(%(namespace)s || '/' || %(service)s))

-- name: publish_catalogue
-- The next number, unless the same is there already; then that is in force again.
INSERT INTO catalogues AS c (namespace, service, version, hash, document)
SELECT %(namespace)s, %(service)s, COALESCE(max(version), 0) + 1, %(hash)s, %(document)s::json
FROM catalogues WHERE namespace = %(namespace)s AND service = %(service)s
ON CONFLICT (namespace, service, hash) DO UPDATE SET published_at = clock_timestamp()
RETURNING c.namespace, c.service, c.version, c.hash, c.document::text AS document, c.created_at,
    c.published_at

-- name: get_catalogue
-- One version, or the one that was published last.
SELECT namespace, service, version, hash, document::text AS document, created_at, published_at
FROM catalogues
WHERE namespace = %(namespace)s AND service = %(service)s
  AND (%(version)s::integer IS NULL OR version = %(version)s)
ORDER BY published_at DESC, version DESC LIMIT 1

-- name: list_catalogues
-- What each service offers now.
SELECT DISTINCT ON (service) namespace, service, version, hash, document::text AS document,
    created_at, published_at
FROM catalogues WHERE namespace = %(namespace)s
ORDER BY service, published_at DESC, version DESC

-- name: live_versions
-- What replicas have that stay: those that drain take nothing any more.
SELECT DISTINCT service, catalogue FROM sidecars
WHERE namespace = %(namespace)s AND NOT gone AND NOT draining
  AND seen_at >= clock_timestamp() - %(within)s::interval
