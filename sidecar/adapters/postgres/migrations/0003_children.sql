-- Children: workflows that a step of another workflow has started, and what they tell each other.

ALTER TABLE workflows
    ADD COLUMN parent_id uuid,
    ADD COLUMN parent_step text,
    ADD COLUMN parent_idx integer,
    ADD COLUMN root_id uuid,
    ADD COLUMN depth integer;

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
