-- How far another log has been copied into this one. As long as a copy is not finished, nobody serves this log.

-- One row for each partition of the log that is copied. "position" and "hash" are of the last event that was copied from
-- it, "compared" is the last one that was read back, "keys_at" the time up to which its idempotency keys were copied.
CREATE TABLE copy_progress (
    partition        smallint    NOT NULL CHECK (partition = 0),
    source_partition smallint    NOT NULL,
    source_count     smallint    NOT NULL,
    position         bigint      NOT NULL,
    hash             bytea       NOT NULL,
    compared         bigint      NOT NULL,
    keys_at          timestamptz NOT NULL,
    finished_at      timestamptz,
    PRIMARY KEY (partition, source_partition)
);
