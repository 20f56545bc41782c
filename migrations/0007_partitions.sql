-- Into how many partitions the log is divided. It is fixed when the log is created: where an account's events are looked
-- for follows from it.

-- One row, in partition 0.
CREATE TABLE log_layout (
    partition smallint PRIMARY KEY CHECK (partition = 0),
    count     smallint NOT NULL CHECK (count BETWEEN 1 AND 64)
);

-- A log that holds anything is one that was not divided.
INSERT INTO log_layout (partition, count)
SELECT partition, 1 FROM log_head WHERE log_head.partition = 0 AND position > 0;
