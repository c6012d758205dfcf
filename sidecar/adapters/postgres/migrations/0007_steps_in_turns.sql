-- Steps take turns as workflows do. A row of `turns` is one that waits for a place or has one: a
-- workflow (`step` is empty, `idx` is -1) or a step of it. Those who share places have the same
-- `turn_step`, which is empty for workflows, and the same `turn`.

ALTER TABLE steps ADD COLUMN turn text;

ALTER TABLE turns
    DROP CONSTRAINT turns_pkey,
    ADD COLUMN step text NOT NULL DEFAULT '',
    ADD COLUMN idx integer NOT NULL DEFAULT -1,
    ADD COLUMN turn_step text NOT NULL DEFAULT '',
    ADD COLUMN turn_limit integer NOT NULL DEFAULT 1,
    ADD COLUMN priority integer NOT NULL DEFAULT 0,
    ADD COLUMN placed boolean NOT NULL DEFAULT true;
ALTER TABLE turns RENAME COLUMN admitted_at TO since;
ALTER TABLE turns ADD PRIMARY KEY (workflow_id, idx, step);

UPDATE turns t SET turn_limit = w.turn_limit FROM workflows w WHERE w.id = t.workflow_id;
INSERT INTO turns (workflow_id, namespace, definition, turn, turn_limit, priority, since, placed)
SELECT id, namespace, definition, turn, turn_limit, priority, created_at, false
FROM workflows WHERE status = 'queued' AND turn IS NOT NULL;

ALTER TABLE turns
    ALTER COLUMN step DROP DEFAULT,
    ALTER COLUMN idx DROP DEFAULT,
    ALTER COLUMN turn_step DROP DEFAULT,
    ALTER COLUMN turn_limit DROP DEFAULT,
    ALTER COLUMN priority DROP DEFAULT,
    ALTER COLUMN placed DROP DEFAULT;

DROP INDEX workflows_waiting;
DROP INDEX turns_taken;
CREATE INDEX turns_placed ON turns (namespace, definition, turn_step, turn, since) WHERE placed;
CREATE INDEX turns_waiting
    ON turns (namespace, definition, turn_step, turn, priority DESC, since, workflow_id, idx)
    WHERE NOT placed;
