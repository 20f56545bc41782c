-- Endpoints that receive the events of the log by HTTP. The log is the outbox: an endpoint is a position in each partition, so nothing is
-- queued and any position can be read again. All rows are in partition 0, as are the streams of their events, so that a row and its event
-- are written by one transaction on one node.

CREATE TABLE webhook (
    partition smallint NOT NULL CHECK (partition = 0),
    webhook_id uuid NOT NULL,
    -- The version of the stream of its events.
    version bigint NOT NULL,
    url text NOT NULL,
    -- The types, the account and the owner of the events that it receives; empty or null: all.
    types text[] NOT NULL,
    account_id uuid,
    owner text,
    -- SHA-256 of the URL and the filters: no two endpoints are equal.
    filter_hash bytea NOT NULL,
    -- Sealed under the key of the service.
    secret bytea NOT NULL,
    former_secret bytea,
    former_secret_until timestamptz,
    state text NOT NULL CHECK (state IN ('active', 'paused', 'failing')),
    -- Each command raises it. A worker that reads another number stops.
    generation bigint NOT NULL,
    registered_at timestamptz NOT NULL,
    failing_since timestamptz,
    last_status smallint,
    last_error text,
    -- The process that delivers, until when.
    claimed_by uuid,
    claimed_until timestamptz,
    PRIMARY KEY (partition, webhook_id),
    UNIQUE (partition, filter_hash)
);

-- How far an endpoint has received the events of a partition of the log: all up to the position, but for those of parked accounts.
CREATE TABLE webhook_cursor (
    partition smallint NOT NULL CHECK (partition = 0),
    webhook_id uuid NOT NULL,
    log_partition smallint NOT NULL,
    position bigint NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (partition, webhook_id, log_partition)
);

-- The accounts of which an event could not be delivered: that event and the later ones of the account wait.
CREATE TABLE webhook_parked (
    partition smallint NOT NULL CHECK (partition = 0),
    webhook_id uuid NOT NULL,
    log_partition smallint NOT NULL,
    stream_id uuid NOT NULL,
    -- The first event that waits, and the number of those known to wait.
    version bigint NOT NULL,
    events bigint NOT NULL,
    failures integer NOT NULL,
    failing_since timestamptz NOT NULL,
    next_attempt_at timestamptz NOT NULL,
    PRIMARY KEY (partition, webhook_id, log_partition, stream_id)
);

-- The attempts. The ids are UUIDs of version 7, in the order of their times.
CREATE TABLE webhook_delivery (
    partition smallint NOT NULL CHECK (partition = 0),
    delivery_id uuid NOT NULL,
    webhook_id uuid NOT NULL,
    event_id uuid NOT NULL,
    event_type text NOT NULL,
    position text,
    attempted_at timestamptz NOT NULL,
    status smallint,
    duration_ms integer NOT NULL,
    error text,
    PRIMARY KEY (partition, delivery_id)
);
CREATE INDEX webhook_delivery_of_webhook ON webhook_delivery (partition, webhook_id, delivery_id);
