-- name: document
-- One version as it was given.
SELECT document::text AS document FROM definitions
WHERE namespace = %(namespace)s AND name = %(name)s AND version = %(version)s
