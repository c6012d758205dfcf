-- What the whole language of definitions needs: steps that wait, are in doubt or skipped, fan-outs
-- with the elements of their items, signals that came early, and why somebody did something.

ALTER TABLE workflows
    ADD COLUMN kept_signals integer NOT NULL DEFAULT 0,
    ADD COLUMN last_signal integer NOT NULL DEFAULT 0,
    DROP CONSTRAINT workflows_status_check,
    ADD CONSTRAINT workflows_status_check CHECK (status IN (
        'queued', 'in_progress', 'completed', 'rolling_back', 'rolled_back', 'error',
        'terminated'));

ALTER TABLE steps
    ADD COLUMN awaiting boolean NOT NULL DEFAULT false,
    ADD COLUMN doubt_at timestamptz,
    ADD COLUMN fan json,
    DROP CONSTRAINT steps_status_check,
    ADD CONSTRAINT steps_status_check CHECK (status IN (
        'pending', 'queued', 'running', 'waiting', 'retrying', 'in_doubt', 'succeeded', 'skipped',
        'failed', 'cancelled', 'compensating', 'compensated', 'compensation_failed'));

-- The steps of a workflow stand together, before all items of its fan-outs.
ALTER TABLE steps DROP CONSTRAINT steps_pkey, ADD PRIMARY KEY (workflow_id, idx, step);

DROP INDEX steps_claimable;
CREATE INDEX steps_claimable ON steps (namespace, service, due_at)
    WHERE status IN ('queued', 'retrying', 'in_doubt', 'compensating') AND lease_until IS NULL;
CREATE INDEX steps_timers ON steps (namespace, due_at)
    WHERE status = 'waiting' AND due_at IS NOT NULL;

ALTER TABLE events ADD COLUMN details json;
CREATE INDEX events_signals ON events (workflow_id) WHERE kind = 'signal';

CREATE TABLE items (
    workflow_id uuid    NOT NULL,
    step        text    NOT NULL,
    idx         integer NOT NULL,
    element     json    NOT NULL,
    PRIMARY KEY (workflow_id, step, idx)
);

CREATE TABLE signals (
    workflow_id uuid        NOT NULL,
    number      integer     NOT NULL,
    name        text        NOT NULL,
    payload     json        NOT NULL,
    actor       text        NOT NULL,
    reason      text        NOT NULL,
    sent_at     timestamptz NOT NULL,
    PRIMARY KEY (workflow_id, number)
);

CREATE TABLE keys (
    namespace text  NOT NULL,
    name      text  NOT NULL,
    key       bytea NOT NULL,
    PRIMARY KEY (namespace, name)
);
