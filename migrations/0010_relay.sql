-- How far the log has been published to other services. The stream that it is published into is the truth, and says more
-- exactly where it ends; this says how far it must reach, so that a stream which is gone or cut off is noticed.

-- "name" is the stream's.
CREATE TABLE relay (
    partition  smallint    NOT NULL,
    name       text        NOT NULL,
    position   bigint      NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (partition, name)
) WITH (fillfactor = 50);
