-- Turns: workflows with the same key wait for a place; a place is a row that names its workflow.

ALTER TABLE workflows
    ADD COLUMN turn text,
    ADD COLUMN turn_limit integer,
    ADD COLUMN priority integer NOT NULL DEFAULT 0;

CREATE INDEX workflows_waiting ON workflows (namespace, definition, turn, priority DESC, id)
    WHERE status = 'queued' AND turn IS NOT NULL;

CREATE TABLE turns (
    workflow_id uuid        PRIMARY KEY,
    namespace   text        NOT NULL,
    definition  text        NOT NULL,
    turn        text        NOT NULL,
    admitted_at timestamptz NOT NULL
);
CREATE INDEX turns_taken ON turns (namespace, definition, turn);
