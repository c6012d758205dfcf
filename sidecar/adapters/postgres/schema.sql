-- The whole present schema, for reading: the sum of all migrations (a test compares them).

-- A version that was deleted keeps its row, without its document, so that its number is never given
-- again. `state_at` is when the state was set last; `registered_at` is when the document was last
-- registered: the highest of a name is the one that a start without a version takes.
CREATE TABLE definitions (
    namespace  text        NOT NULL,
    name       text        NOT NULL,
    version    integer     NOT NULL CHECK (version > 0),
    hash       text        NOT NULL,
    document   json        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    state      text        NOT NULL DEFAULT 'active'
        CHECK (state IN ('active', 'deprecated', 'retired', 'deleted')),
    state_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    registered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (namespace, name, version),
    UNIQUE (namespace, name, hash)
);
CREATE INDEX definitions_registered ON definitions (namespace, name, registered_at);

-- Half of each page stays free: every transition rewrites the row, mostly in its place (HOT).
-- `owes_since` is set while something is owed its undoing and the workflow does not go forward any
-- more; `taken_over_by` is the rerun that owes it instead.
CREATE TABLE workflows (
    id           uuid        PRIMARY KEY,
    namespace    text        NOT NULL,
    definition   text        NOT NULL,
    version      integer     NOT NULL,
    status       text        NOT NULL CHECK (status IN (
        'queued', 'in_progress', 'completed', 'rolling_back', 'rolled_back', 'error',
        'terminated')),
    reason       text        CHECK (reason IN ('failed', 'cancelled', 'timed_out')),
    paused       boolean     NOT NULL DEFAULT false,
    revision     bigint      NOT NULL,
    last_seq     integer     NOT NULL,
    created_at   timestamptz NOT NULL,
    deadline_at  timestamptz,
    ended_at     timestamptz,
    labels       jsonb       NOT NULL DEFAULT '{}',
    start_key    text,
    trace        text,
    renders      boolean     NOT NULL,
    kept_signals integer     NOT NULL DEFAULT 0,
    last_signal  integer     NOT NULL DEFAULT 0,
    central      boolean     NOT NULL DEFAULT false,
    owes_since   timestamptz,
    taken_over_by uuid,
    parent_id    uuid,
    parent_step  text,
    parent_idx   integer,
    root_id      uuid,
    depth        integer,
    turn         text,
    turn_limit   integer,
    priority     integer     NOT NULL DEFAULT 0,
    input        json        NOT NULL,
    output       json,
    error        json
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);

CREATE INDEX workflows_newest ON workflows (namespace, id DESC);
CREATE INDEX workflows_by_definition ON workflows (namespace, definition, id DESC);
CREATE INDEX workflows_by_status ON workflows (namespace, status, id DESC);
CREATE INDEX workflows_by_label ON workflows USING gin (labels jsonb_path_ops)
    WHERE labels <> '{}';
CREATE INDEX workflows_deadline ON workflows (namespace, deadline_at)
    WHERE status IN ('queued', 'in_progress') AND deadline_at IS NOT NULL AND NOT paused;
CREATE INDEX workflows_by_version ON workflows (namespace, definition, version, status);
CREATE INDEX workflows_owing ON workflows (namespace, owes_since, id) WHERE owes_since IS NOT NULL;
CREATE INDEX workflows_central ON workflows (namespace, id)
    WHERE central AND status IN ('rolling_back', 'error');

CREATE TABLE start_keys (
    namespace   text        NOT NULL,
    definition  text        NOT NULL,
    start_key   text        NOT NULL,
    workflow_id uuid        NOT NULL,
    input_hash  text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (namespace, definition, start_key)
);

-- By its key the steps of a workflow stand together, before all items of its fan-outs. `origin` is the
-- workflow under whose id the service knows the step, where that is not its own.
CREATE TABLE steps (
    workflow_id     uuid        NOT NULL,
    step            text        NOT NULL,
    idx             integer     NOT NULL,
    namespace       text        NOT NULL,
    service         text        NOT NULL,
    status          text        NOT NULL CHECK (status IN (
        'pending', 'queued', 'running', 'waiting', 'retrying', 'in_doubt', 'succeeded', 'skipped',
        'failed', 'cancelled', 'compensating', 'compensated', 'compensation_failed')),
    may_have_effect boolean     NOT NULL,
    call_ms         integer     NOT NULL,
    due_at          timestamptz,
    lease_until     timestamptz,
    owner           text,
    awaiting        boolean     NOT NULL DEFAULT false,
    doubt_at        timestamptz,
    fan             json,
    turn            text,
    ticket          bigint,
    attempt         integer     NOT NULL,
    tries           integer     NOT NULL,
    closed          integer     NOT NULL,
    answered        integer     NOT NULL,
    started_at      timestamptz,
    claimed_at      timestamptz,
    ended_at        timestamptz,
    succeeded       boolean     NOT NULL,
    comp_attempt    integer     NOT NULL,
    comp_tries      integer     NOT NULL,
    comp_closed     integer     NOT NULL,
    comp_answered   integer     NOT NULL,
    comp_started_at timestamptz,
    comp_claimed_at timestamptz,
    comp_ended_at   timestamptz,
    input           json,
    output          json,
    error           json,
    comp_input      json,
    comp_output     json,
    comp_error      json,
    origin          uuid,
    priority        integer     NOT NULL DEFAULT 0,
    PRIMARY KEY (workflow_id, idx, step)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);

-- Claim, look and ring-again all go by this one predicate, in the order of `sidecar.saga.priority`:
-- the time when a step is due, or so much earlier by its priority.
CREATE INDEX steps_claimable ON steps (namespace, service,
        ((due_at AT TIME ZONE 'UTC') - interval '10 seconds' * priority), due_at)
    WHERE status IN ('queued', 'retrying', 'in_doubt', 'compensating') AND lease_until IS NULL;
CREATE INDEX steps_timers ON steps (namespace, due_at)
    WHERE status = 'waiting' AND due_at IS NOT NULL;
CREATE INDEX steps_leased ON steps (lease_until) WHERE lease_until IS NOT NULL;

CREATE TABLE events (
    workflow_id uuid        NOT NULL,
    seq         integer     NOT NULL,
    time        timestamptz NOT NULL,
    kind        text        NOT NULL,
    cause       text        NOT NULL,
    actor       text        NOT NULL,
    step        text,
    idx         integer     NOT NULL,
    action      text,
    before      text,
    after       text,
    attempt     integer,
    details     json,
    PRIMARY KEY (workflow_id, seq)
);

-- A signal with an id is told from another by what has been heard.
CREATE INDEX events_signals ON events (workflow_id) WHERE kind = 'signal';

-- The elements of fan-outs, from the moment a fan-out begins; an item has a row of `steps` as well
-- from the moment it is first queued.
CREATE TABLE items (
    workflow_id uuid    NOT NULL,
    step        text    NOT NULL,
    idx         integer NOT NULL,
    element     json    NOT NULL,
    PRIMARY KEY (workflow_id, step, idx)
);

-- Signals that no step has taken yet; `workflows.kept_signals` says how many there are.
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

CREATE TABLE sidecars (
    incarnation text        PRIMARY KEY,
    namespace   text        NOT NULL,
    service     text        NOT NULL,
    version     text        NOT NULL,
    host        text        NOT NULL,
    ready       boolean     NOT NULL,
    draining    boolean     NOT NULL,
    gone        boolean     NOT NULL DEFAULT false,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    catalogue   integer
);

-- What services offer. `published_at` is when a version was published last, perhaps again: the
-- newest is in force.
CREATE TABLE catalogues (
    namespace    text        NOT NULL,
    service      text        NOT NULL,
    version      integer     NOT NULL,
    hash         text        NOT NULL,
    document     json        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    published_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (namespace, service, version),
    UNIQUE (namespace, service, hash)
);

CREATE TABLE leaders (
    namespace text        PRIMARY KEY,
    epoch     bigint      NOT NULL,
    holder    text        NOT NULL,
    since     timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Keys that the sidecars of a namespace share, made by whoever needs one first.
CREATE TABLE keys (
    namespace text  NOT NULL,
    name      text  NOT NULL,
    key       bytea NOT NULL,
    PRIMARY KEY (namespace, name)
);

-- A verb over many workflows, and what became of each of them; `result` is null until it had its
-- turn. `holder` is the sidecar at work on it, `moved_at` when it last got on.
CREATE TABLE bulk_jobs (
    id         uuid        PRIMARY KEY,
    namespace  text        NOT NULL,
    verb       text        NOT NULL,
    arguments  json        NOT NULL,
    filter     json        NOT NULL,
    actor      text        NOT NULL,
    status     text        NOT NULL CHECK (status IN ('running', 'done', 'stopped')),
    selected   integer     NOT NULL,
    more       boolean     NOT NULL,
    done       integer     NOT NULL DEFAULT 0,
    refused    integer     NOT NULL DEFAULT 0,
    failed     integer     NOT NULL DEFAULT 0,
    holder     text        NOT NULL,
    moved_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at   timestamptz
);

CREATE INDEX bulk_jobs_newest ON bulk_jobs (namespace, id DESC);
CREATE INDEX bulk_jobs_running ON bulk_jobs (namespace, moved_at) WHERE status = 'running';
CREATE INDEX bulk_jobs_ended ON bulk_jobs (namespace, ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE bulk_members (
    job_id      uuid        NOT NULL,
    number      integer     NOT NULL,
    workflow_id uuid        NOT NULL,
    result      text        CHECK (result IN ('done', 'refused', 'failed')),
    detail      text,
    PRIMARY KEY (job_id, number)
);

CREATE INDEX bulk_members_open ON bulk_members (job_id, number) WHERE result IS NULL;

-- What parents and children tell each other, from the transaction that it tells of until it has
-- been brought.
CREATE TABLE letters (
    recipient uuid        NOT NULL,
    sender    uuid        NOT NULL,
    revision  bigint      NOT NULL,
    namespace text        NOT NULL,
    event     json        NOT NULL,
    sent_at   timestamptz NOT NULL,
    PRIMARY KEY (recipient, sender, revision)
);
CREATE INDEX letters_waiting ON letters (namespace, sent_at);

-- Who takes turns: one that waits for a place or has one, from the beginning of its waiting to its
-- end; a workflow (`step` is empty, `idx` is -1) or a step. Those who share places have the same
-- `turn_step`, which is empty for workflows, and the same `turn`.
CREATE TABLE turns (
    workflow_id uuid        NOT NULL,
    step        text        NOT NULL,
    idx         integer     NOT NULL,
    namespace   text        NOT NULL,
    definition  text        NOT NULL,
    turn_step   text        NOT NULL,
    turn        text        NOT NULL,
    turn_limit  integer     NOT NULL,
    priority    integer     NOT NULL,
    since       timestamptz NOT NULL,
    placed      boolean     NOT NULL,
    PRIMARY KEY (workflow_id, idx, step)
);
CREATE INDEX turns_placed ON turns (namespace, definition, turn_step, turn, since) WHERE placed;
CREATE INDEX turns_waiting
    ON turns (namespace, definition, turn_step, turn, priority DESC, since, workflow_id, idx)
    WHERE NOT placed;

-- When the next call of a path is promised, and when the next one may be granted: what the
-- algorithm calls theoretical arrival times. A row that is asked for often, and written each time.
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

-- What steps were promised that had to be sent away; one whose action is not limited has none.
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
