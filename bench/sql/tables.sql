-- Tables with the same columns as Passbook's, without functions, triggers and roles. Autovacuum is off, so that no
-- background work on these tables runs while Passbook is measured.
SET client_min_messages = warning;

DROP TABLE IF EXISTS event, account;
DROP SEQUENCE IF EXISTS event_position;

CREATE SEQUENCE event_position;

CREATE TABLE event (
    partition      smallint    NOT NULL,
    position       bigint      NOT NULL,
    id             uuid        NOT NULL,
    stream_id      uuid        NOT NULL,
    version        bigint      NOT NULL,
    type           text        NOT NULL,
    schema_version smallint    NOT NULL,
    data           json        NOT NULL,
    metadata       json        NOT NULL,
    recorded_at    timestamptz NOT NULL,
    hash           bytea       NOT NULL,
    PRIMARY KEY (partition, position),
    UNIQUE (partition, stream_id, version)
) WITH (autovacuum_enabled = off);

CREATE TABLE account (
    partition         smallint    NOT NULL,
    generation        smallint    NOT NULL,
    account_id        uuid        NOT NULL,
    owner             text        NOT NULL,
    currency          text        NOT NULL,
    status            text        NOT NULL,
    balance           bigint      NOT NULL,
    version           bigint      NOT NULL,
    transaction_count bigint      NOT NULL,
    opened_at         timestamptz NOT NULL,
    last_activity_at  timestamptz NOT NULL,
    closed_at         timestamptz,
    PRIMARY KEY (partition, generation, account_id)
) WITH (autovacuum_enabled = off);

INSERT INTO account
SELECT 0, 1, ('be7c0000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
       'customer-' || n, 'EUR', 'open', 1000000, 1, 1, now(), now(), NULL
FROM generate_series(1, 5000) AS n;

ANALYZE account;
