-- name: patience
-- A migration may take long, and may have to wait for another one; it is not a query.
SET LOCAL statement_timeout = 0;
SET LOCAL lock_timeout = '60s'

-- name: lock
-- One migration at a time, whoever runs it; freed with the transaction.
SELECT pg_advisory_xact_lock(24768, hashtext(%(schema)s::text))

-- name: schema_exists
-- Whoever set the database up may have made it.
SELECT to_regnamespace(%(schema)s) IS NOT NULL AS there

-- name: journal
-- Where the migrations applied are written down.
CREATE TABLE IF NOT EXISTS schema_migrations (
    number     integer     PRIMARY KEY,
    name       text        NOT NULL,
    checksum   text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)

-- name: applied
-- The migrations applied so far.
SELECT number, name, checksum FROM schema_migrations ORDER BY number

-- name: note
-- Write one migration down.
INSERT INTO schema_migrations (number, name, checksum)
VALUES (%(number)s, %(name)s, %(checksum)s)
