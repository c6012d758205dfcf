-- What services offer, as their sidecars publish it at start, and which version each sidecar has.

-- `published_at` is when a version was published last, perhaps again: the newest is in force.
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

ALTER TABLE sidecars ADD COLUMN catalogue integer;
