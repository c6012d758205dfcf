-- name: listen
-- Hear what is said on one channel.
LISTEN {channel}

-- name: notify
-- Say many things in one transaction, which holds nothing else.
SELECT pg_notify(said.channel, said.payload)
FROM unnest(%(channels)s::text[], %(payloads)s::text[]) AS said (channel, payload)

-- name: prove
-- A round trip: the connection is alive in both directions.
SELECT 1
