-- Checkpoints: signed statements about the heads of the log. An auditor who keeps them detects a log that was rewritten with fitting
-- hashes, or cut off by a restore.

-- The name of the log in its checkpoints. A copy of the log has other positions and hashes, so it is another log with another id. The
-- service inserts the row, not this migration: a database may be cloned after its migration.
-- partition = 0: the row belongs to the whole log, as that of log_layout.
CREATE TABLE log_identity (
    partition  smallint    NOT NULL PRIMARY KEY CHECK (partition = 0),
    id         uuid        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- The Ed25519 keys that sign checkpoints. The last one signs. Its private part is sealed by the wrapping key; that of a replaced key is
-- deleted, so that it cannot sign later. The public parts stay, so that old checkpoints can be verified.
CREATE TABLE log_key (
    partition          smallint    NOT NULL CHECK (partition = 0),
    number             integer     NOT NULL CHECK (number > 0),
    public_key         bytea       NOT NULL CHECK (octet_length(public_key) = 32),
    sealed_private_key bytea,
    valid_from         timestamptz NOT NULL DEFAULT now(),
    valid_until        timestamptz,
    PRIMARY KEY (partition, number)
);
