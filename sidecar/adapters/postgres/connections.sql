-- name: session
-- Which server process serves this connection; its number alone may be given to another one.
SELECT pg_backend_pid() AS pid,
    (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()) AS began

-- name: end_session
-- No row: the session has ended, and with it whatever it was doing.
SELECT pg_terminate_backend(pid) AS told FROM pg_stat_activity
WHERE pid = %(pid)s AND backend_start = %(began)s
