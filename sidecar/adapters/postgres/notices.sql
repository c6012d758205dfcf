-- name: listen
-- Hear what is said on one channel.
LISTEN {channel}

-- name: notify
-- Say many things in one transaction, which holds nothing else: a line for each, channel and
-- payload. One text costs the driver less than lists do.
SELECT pg_notify(split_part(said, ' ', 1), split_part(said, ' ', 2))
FROM unnest(string_to_array(%(said)s, E'\n')) AS said

-- name: prove
-- A round trip: the connection is alive in both directions.
SELECT 1
