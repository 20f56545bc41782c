-- The highest timeline of Postgres that took writes. After a failover a former primary may accept writes again. A process that
-- starts then compares the timelines of the servers with this row, and does not go back to the former primary.

-- partition = 0: the row belongs to the whole log, as that of log_layout.
CREATE TABLE server_timeline (
    partition         smallint    NOT NULL PRIMARY KEY CHECK (partition = 0),
    system_identifier bigint      NOT NULL,
    timeline          bigint      NOT NULL CHECK (timeline > 0),
    recorded_at       timestamptz NOT NULL
);
