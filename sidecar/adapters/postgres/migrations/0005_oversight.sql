-- What people who run workflows need to see and do: versions that are not to be started any more,
-- what is owed, and verbs over many workflows.

-- A version that was deleted keeps its row, without its document, so that its number is never given
-- again. `state_at` is when the state was set last.
ALTER TABLE definitions
    ADD COLUMN state text NOT NULL DEFAULT 'active'
        CHECK (state IN ('active', 'deprecated', 'retired', 'deleted')),
    ADD COLUMN state_at timestamptz NOT NULL DEFAULT clock_timestamp();

-- `owes_since` is set while something is owed its undoing and the workflow does not go forward any
-- more: what is there already is told by its age, until its next transition tells it truly.
ALTER TABLE workflows
    ADD COLUMN central boolean NOT NULL DEFAULT false,
    ADD COLUMN owes_since timestamptz;
UPDATE workflows SET owes_since = COALESCE(ended_at, created_at)
WHERE status = 'terminated' OR (status IN ('rolling_back', 'error') AND reason IS NOT NULL);

CREATE INDEX workflows_by_version ON workflows (namespace, definition, version, status);
CREATE INDEX workflows_owing ON workflows (namespace, owes_since, id) WHERE owes_since IS NOT NULL;
CREATE INDEX workflows_central ON workflows (namespace, id)
    WHERE central AND status IN ('rolling_back', 'error');

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
