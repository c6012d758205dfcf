-- A start without a version takes the one that was registered last, which may be an older one that was
-- registered again. What is there already was registered in the order of its versions.
ALTER TABLE definitions ADD COLUMN registered_at timestamptz NOT NULL DEFAULT clock_timestamp();
UPDATE definitions d SET registered_at = d.version * interval '1 microsecond' + (
    SELECT max(e.created_at) FROM definitions e
    WHERE e.namespace = d.namespace AND e.name = d.name AND e.version <= d.version);
CREATE INDEX definitions_registered ON definitions (namespace, name, registered_at);
