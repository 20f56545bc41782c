-- The fingerprints of the wrapping keys of the service, in the order in which they were used. The keys themselves are in a file. A
-- process compares its file with the last row when it starts, so that two instances never seal under keys that the other one lacks.

-- partition = 0: the rows belong to the whole log, as that of log_layout. The primary key lets only one of several instances decide
-- which key comes next.
CREATE TABLE wrapping_key (
    partition   smallint    NOT NULL CHECK (partition = 0),
    number      integer     NOT NULL CHECK (number > 0),
    fingerprint bytea       NOT NULL CHECK (octet_length(fingerprint) = 32),
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (partition, number)
);
