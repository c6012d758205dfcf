-- Rate limits of actions, and the priorities of steps.

-- When the next call of a path is promised, and when the next one may be granted: what the
-- algorithm calls theoretical arrival times; and when the next one that is late comes back. A row that is asked for often, and written each time.
CREATE TABLE rate_limits (
    namespace text        NOT NULL,
    service   text        NOT NULL,
    path      text        NOT NULL,
    promised  timestamptz NOT NULL DEFAULT 'epoch',
    called    timestamptz NOT NULL DEFAULT 'epoch',
    late      timestamptz NOT NULL DEFAULT 'epoch',
    every     bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (namespace, service, path)
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- What steps were promised that had to be sent away, for which try, and until when it counts; one whose action is not limited has none.
CREATE TABLE rate_promises (
    workflow_id uuid        NOT NULL,
    step        text        NOT NULL,
    idx         integer     NOT NULL,
    action      text        NOT NULL,
    namespace   text        NOT NULL,
    service     text        NOT NULL,
    path        text        NOT NULL,
    moment      timestamptz NOT NULL,
    tries       integer     NOT NULL,
    granted     boolean     NOT NULL,
    kept_until  timestamptz NOT NULL,
    PRIMARY KEY (workflow_id, step, idx, action)
);
CREATE INDEX rate_promises_oldest ON rate_promises (namespace, service, kept_until);

ALTER TABLE steps ADD COLUMN priority integer NOT NULL DEFAULT 0;

DROP INDEX steps_claimable;
-- Claim, look and ring-again all go by this one predicate, in the order of `sidecar.saga.priority`:
-- the time when a step is due, or so much earlier by its priority.
CREATE INDEX steps_claimable ON steps (namespace, service,
        ((due_at AT TIME ZONE 'UTC') - interval '10 seconds' * priority), due_at)
    WHERE status IN ('queued', 'retrying', 'in_doubt', 'compensating') AND lease_until IS NULL;
