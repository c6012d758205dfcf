-- name: guard_session
-- A stopped process keeps its lock for ever unless the server ends its idle session.
SELECT set_config('idle_session_timeout', %(idle_ms)s::text, false),
       set_config('statement_timeout', %(statement_ms)s::text, false),
       set_config('tcp_user_timeout', %(idle_ms)s::text, false),
       set_config('application_name', 'goconductor-election', false)

-- name: try_lock
-- No answer where nothing can be written, and no lock taken there: a session may outlive the
-- moment at which its server became a standby.
SELECT CASE WHEN current_setting('transaction_read_only') = 'off'
    THEN pg_try_advisory_lock(%(class)s::int, %(object)s::int) END AS held

-- name: still_held
-- Asked of the lock table, by backend pid: a pooled or recycled session would not be ours.
SELECT EXISTS (
    SELECT 1 FROM pg_locks
    WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted
      AND classid::bigint = %(class)s::bigint AND objid::bigint = %(object)s::bigint
) AND pg_backend_pid() = %(pid)s::int AS held
