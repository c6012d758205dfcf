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
